"""The work of each kind of worker, and what the users' functions see of the daemon."""
