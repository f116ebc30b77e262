"""The configuration: TOML and environment in, frozen values out, every fault at once.

    paths         which file; state directory and control socket, also without a whole configuration
    table_reader  the file's bytes as tables, a table by its keys, and the faults
    environment   PGSUPERVISOR__SECTION__KEY laid over the tables
    schema        every key: for the loader, the environment, the reference page and the commented file
    kinds         one row a worker kind: its keys, how they are read, what it needs
    validators    what one value may be
    loader        all of it together
    dsn           the one parser of connection strings
    dsn_source    where the connection string comes from
    partial_read  the workers of a wrong configuration
    model         the values, with their defaults
    diff          what a reload has to do (pure)
    diff_text     the same for people

A fault names the file or the variable, the key path, what was found and what was expected. It
never repeats a connection string: faults end up in journals and terminals.
"""
