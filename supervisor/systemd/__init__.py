"""The daemon's messages to systemd, and the units.

`notify.py` sends messages and keeps those that must not be lost; `unit.py` prints the unit that fits a
configuration, and `unit_access.py` finds what its user cannot read. The shipped units in the folder `systemd/`
are what `unit.py` prints for their paths.
"""
