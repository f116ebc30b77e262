"""What the daemon and systemd say to each other.

`notify.py` decides what must not be lost, `channel.py` carries it; `unit.py` prints the unit that fits a
configuration. The shipped units in the folder `systemd/` are what `unit.py` prints for their paths.
"""
