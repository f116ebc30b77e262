"""The configuration: TOML and environment in, frozen values out, every fault at once.

    finding       which file
    toml_file     the file's bytes, as tables
    environment   PGSUPERVISOR__SECTION__KEY laid over the tables
    schema        every key there is: the only list, also for the environment and the commented file
    value         what one value may be
    table         reads a table by its keys and collects the faults
    section       [supervisor], [log] and [database] as values of the model
    worker        [workers.NAME] likewise
    dsn, target   what a connection string is, how it is shown, where it comes from
    location      state directory and control socket, also for commands that have no whole configuration
    reading       all of it together
    difference    what a reload has to do (pure)

A fault names the file or the variable, the key path, what was found and what was expected. It
never repeats a connection string: faults end up in journals and terminals.
"""
