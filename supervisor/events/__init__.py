"""Events: appending them, reading them up to the horizon, and how far each projection has come."""
