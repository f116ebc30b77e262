"""The SQL schema: the migration files, the migrator, the grants that a daemon needs, and the advisory lock numbers.

A schema version is the number of the last migration file that was applied. A version that has been released never
changes: each change is a new file. Two rules let daemons of neighbouring releases run on one schema:

- A file names the oldest daemon that may run on the schema it makes (`-- oldest daemon: N`, N is the schema version
  of that daemon's release). The table `supervisor.migration` keeps the number. A daemon older than the schema starts
  if the number allows it.
- A file adds. It drops no function and no column that a released daemon uses, and changes no function's signature: a
  new signature gets a new name. It contains no GRANT and no REVOKE: the migrator grants what is new to the roles that
  run daemons.

`tests/schemas/` keeps each released version, and the tests hold both rules against it.
"""
