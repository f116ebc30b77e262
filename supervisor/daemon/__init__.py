"""The daemon as a process: its components, their order, reload, signals, and what systemd and the commands hear.

`process` opens the journal and runs the loop. `daemon` makes the list of components and goes through it. Each entry
is a `component.Component`. Those that carry out the configuration are in `components/`; `signals`, `loop_watchdog`,
`systemd_heartbeat` and `control_server` have the others. `state` holds what several of them read. `reload` has all of
them validate a new configuration, then apply it. `status` and `cluster_status` answer `pgsupervisor status`, through
`control_api`.

No component sees the daemon: each takes the `Runtime` and the callables that it needs. The order of the list is the
order in which they need each other.
"""
