"""The parts of the daemon that carry out the configuration, each with its start, reload and stop."""
