"""The embedded store in the life of the daemon: its lock, its server, and its restart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supervisor.config.model import Server
from supervisor.database.embedded.locks import GIVE_UP_S, StateLock
from supervisor.database.embedded.process import find_programs
from supervisor.database.embedded.restart import supervise
from supervisor.database.embedded.server import EmbeddedServer, lock_folder
from supervisor.errors import ConfigError, ConfigFault, EmbeddedDatabaseMisconfigured
from supervisor.journal import log_event

if TYPE_CHECKING:
    from collections.abc import Callable

    from supervisor.config.model import EmbeddedStore
    from supervisor.daemon.daemon import Daemon
    from supervisor.database.embedded.locks import Holder

# The gate's own connection, one to prove a reload with, an administrator's and the reserved ones.
_BESIDES_THE_POOL = 20


async def open_store(daemon: Daemon, target: EmbeddedStore, enter: Callable[[str], None]) -> Server:
    """Take the store's lock, start its PostgreSQL and return where it is.

    Raises:
        ConfigError: It cannot work until a person changes something.
        EmbeddedDatabaseLocked: Another process kept it.
        EmbeddedDatabaseFailed: It cannot be started at the moment; the message says why.
    """
    key = "database.dsn"
    try:
        find_programs()
        if target.path is None:
            key = "supervisor.state_dir"  # what the dsn does not place lies there
        return await _open(daemon, target, enter)
    except EmbeddedDatabaseMisconfigured as error:
        raise ConfigError(ConfigFault(str(daemon.config.path), key, str(error))) from error


async def _open(daemon: Daemon, target: EmbeddedStore, enter: Callable[[str], None]) -> Server:
    config = daemon.config
    state_dir = config.daemon.state_dir
    await _take_lock(daemon, StateLock(lock_folder(target, state_dir)), enter)
    enter("Starting the embedded PostgreSQL")
    log_event("store.starting", path=str(target.path or state_dir))
    began_s = daemon.clock.now_s()
    store = EmbeddedServer(
        target, state_dir, clock=daemon.clock, max_connections=config.database.pool_max + _BESIDES_THE_POOL
    )
    daemon.store = store
    await store.start()
    log_event("store.started", path=str(store.path), took_s=round(daemon.clock.now_s() - began_s, 3))
    daemon.tasks.start(supervise(store, clock=daemon.clock), name="embedded PostgreSQL")
    return Server(store.dsn, source="the embedded store")


async def _take_lock(daemon: Daemon, lock: StateLock, enter: Callable[[str], None]) -> None:
    began_s = daemon.clock.now_s()
    daemon.state_lock = lock

    def on_waiting(holder: Holder, waited_s: float) -> None:
        enter(f"Waiting for the embedded store, which {holder} holds")
        log_event(
            "store.locked",
            path=str(lock.directory),
            holder_pid=holder.pid,
            holder_host=holder.host,
            holder_since=holder.since,
            waited_s=round(waited_s, 1),
        )

    # A predecessor may drain for as long as its own stop_timeout, which is most likely ours.
    give_up_s = max(GIVE_UP_S, 2 * daemon.config.daemon.stop_timeout_s)
    was_taken = lock.try_acquire()
    if was_taken is None:
        return
    await lock.acquire(clock=daemon.clock, give_up_s=give_up_s, on_waiting=on_waiting)
    log_event("store.unlocked", path=str(lock.directory), waited_s=round(daemon.clock.now_s() - began_s, 3))
