"""The embedded database: a PostgreSQL of the daemon's own, run as its child process.

`startup` puts it together: the state directory's lock (`locks`), the server (`server`), and its restart when it ends
by itself (`restart`). `data_directory` makes the files, `process` and `child_exec` run PostgreSQL's programs as a user
that PostgreSQL accepts, and `orphans` ends what a killed daemon has left running.
"""
