"""Reload: every component validates the new configuration before anything changes, then all apply it in order.

```text
   read ─▶ validate each ─▶ apply each ─▶ finish each, in reverse ─▶ applied
             │                  └─ an error ─▶ discard the rest ─▶ incomplete
             └─ an error ─▶ discard those before ─▶ rejected
```

A rejected reload has changed nothing. An incomplete one has: the components before the failed one run by the new
configuration, those after it by the old one. Each component says itself by which sections it runs (`in_force`),
so that the next reload compares with what is really in force.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn

from supervisor.config.diff import diff_configs
from supervisor.errors import ConfigError, SupervisorError
from supervisor.journal import log_event
from supervisor.threads import run_in_thread
from supervisor.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from supervisor.config.model import Config
    from supervisor.daemon.component import Component, Prepared
    from supervisor.daemon.components.handlers import HandlersComponent
    from supervisor.daemon.components.workers import WorkersComponent
    from supervisor.daemon.state import DaemonState
    from supervisor.runtime import Runtime

TASK = "reload"
# systemd 253 sends the SIGHUP first and starts the client then; a Python needs a moment to start.
_CLIENT_JOIN_WINDOW_S = 3.0
_READ_TIMEOUT_S = 10.0


class ReloadResult(NamedTuple):
    """The outcome of a reload.

    Attributes:
        outcome: `rejected`: nothing has changed; `incomplete`: a part of the new configuration is in force.
        lines: What changed, or everything that is wrong.
    """

    outcome: Literal["applied", "rejected", "incomplete"]
    lines: tuple[str, ...]


class Reloader:
    """Runs one reload at a time; all requests that come meanwhile become one more.

    Args:
        components: In the order in which they started.
        state: The daemon's.
        runtime: Services.
        read_config: Reads the configuration anew; called in a thread.
        handlers: Imports the workers of a dry run.
        workers: Knows which of them only a reload starts.
        on_begin: Called when a reload begins.
        on_end: Called when it has ended, whatever its outcome.
    """

    def __init__(
        self, components: Sequence[Component], state: DaemonState, *, runtime: Runtime,
        read_config: Callable[[], Config], handlers: HandlersComponent, workers: WorkersComponent,
        on_begin: Callable[[], object], on_end: Callable[[], object],
    ) -> None:  # fmt: skip
        self._components = components
        self._state = state
        self._clock = runtime.clock
        self._read_config = read_config
        self._handlers = handlers
        self._workers = workers
        self._on_begin = on_begin
        self._on_end = on_end
        self._is_enabled = asyncio.Event()
        self._wakeup = Wakeup(clock=runtime.clock)
        self._pending: asyncio.Future[ReloadResult] | None = None
        self._is_pending_by_signal = False
        self._last: asyncio.Future[ReloadResult] | None = None
        self._last_began_s = float("-inf")
        self._last_file: object = None
        self._was_last_by_signal = False

    def enable(self) -> None:
        """Allow reloads; a request that came during the start is served now."""
        self._is_enabled.set()

    def request(self) -> asyncio.Future[ReloadResult]:
        """Request a reload that begins after this call, and return a future of its result."""
        if self._pending is None:
            self._pending = asyncio.get_running_loop().create_future()
        self._wakeup.wake()
        return self._pending

    def request_from_signal(self) -> None:
        """Request a reload because of a SIGHUP."""
        self._is_pending_by_signal = True
        self.request()

    def request_or_join(self) -> asyncio.Future[ReloadResult]:
        """Request a reload for a client.

        Under Type=notify-reload, systemd sends a SIGHUP and runs the client too. A reload that a SIGHUP
        began just before, from the same file, is the client's own. A refusal that has ended is not: its cause may
        have been outside of the file, and repaired since.
        """
        last = self._last
        age_s = self._clock.now_s() - self._last_began_s
        if (
            last is not None
            and self._was_last_by_signal
            and age_s < _CLIENT_JOIN_WINDOW_S
            and self._last_file == self._file_fingerprint()
            and not (last.done() and last.result().outcome != "applied")
        ):
            self._was_last_by_signal = False  # a second client gets one of its own
            return last
        return self.request()

    async def run(self) -> NoReturn:
        """Serve the requests, for ever."""
        await self._is_enabled.wait()
        while True:
            await self._wakeup.wait()
            result, self._pending = self._pending, None
            if result is None or self._state.is_stopping:
                continue
            self._last, self._last_began_s = result, self._clock.now_s()
            self._last_file = self._file_fingerprint()
            self._was_last_by_signal, self._is_pending_by_signal = self._is_pending_by_signal, False
            outcome = await self._reload()
            if not result.done():
                result.set_result(outcome)

    async def preview(self) -> ReloadResult:
        """Return what a reload would change, without changing anything."""
        from supervisor.config.diff_text import diff_text  # noqa: PLC0415 - only reloads need it

        try:
            old, new = self._in_force(), await self._read()
            _refuse_restart(old, new)
            prepared = await self._handlers.validate(old, new)
            await prepared.discard()
        except (SupervisorError, TimeoutError) as error:
            return ReloadResult("rejected", tuple(str(error).splitlines()))
        lines = diff_text(old, new, restarted=self._workers.started_anew(old, new))
        return ReloadResult("applied", tuple(lines))

    async def _reload(self) -> ReloadResult:
        began_s = self._clock.now_s()
        self._state.is_reloading = True
        self._on_begin()
        log_event("reload.started")
        try:
            try:
                old, new = self._in_force(), await self._read()
                _refuse_restart(old, new)
                prepared = await self._validate(old, new)
            except (SupervisorError, TimeoutError) as error:
                return self._rejected(str(error), None)
            except Exception as error:  # noqa: BLE001 - whatever it was, the old configuration runs on
                return self._rejected(f"a fault of the daemon itself: {type(error).__name__}: {error}", error)
            return await self._apply(prepared, old, new, began_s)
        finally:
            self._state.is_reloading = False
            self._on_end()

    async def _read(self) -> Config:
        return await run_in_thread(
            self._read_config, what="reading the configuration", timeout_s=_READ_TIMEOUT_S, clock=self._clock
        )

    def _in_force(self) -> Config:
        """Return the configuration by which the components really run."""
        config = self._state.config
        for component in self._components:
            config = component.in_force(config)
        return config

    async def _validate(self, old: Config, new: Config) -> list[tuple[Component, Prepared]]:
        """Have every component validate the new configuration; a refusal discards what the others have prepared."""
        prepared: list[tuple[Component, Prepared]] = []
        try:
            for component in self._components:
                each = await component.validate(old, new)
                prepared.append((component, each))
        except BaseException:
            await _discard(prepared)
            raise
        return prepared

    async def _apply(
        self, prepared: list[tuple[Component, Prepared]], old: Config, new: Config, began_s: float
    ) -> ReloadResult:
        count = 0
        current = ""
        try:
            for component, each in prepared:
                current = component.name
                await each.apply()
                count += 1
            for component, each in reversed(prepared):
                current = component.name
                await each.finish()
        except Exception as error:  # noqa: BLE001 - the outcome is reported, and the next reload can repair it
            await _discard(prepared[count + 1 :])
            self._state.config = self._in_force()
            return self._incomplete(current, error, prepared, count)
        except BaseException:
            await _discard(prepared[count + 1 :])
            raise
        from supervisor.config.diff_text import changed_keys  # noqa: PLC0415 - only reloads need it

        self._state.config = new
        return self._succeeded(prepared, changed_keys(old, new), took_s=self._clock.now_s() - began_s)

    def _succeeded(
        self, prepared: Iterable[tuple[Component, Prepared]], keys: Sequence[str], *, took_s: float
    ) -> ReloadResult:
        changes: dict[str, str] = {}
        for _, each in prepared:
            # The workers come last in the list, and first for people.
            for key, names in each.changes.items():
                changes[key] = f"{names}, {changes[key]}" if key in changes else names
        if keys:
            changes["changed"] = ", ".join([changes["changed"], *keys] if "changed" in changes else keys)
        fields: dict[str, Any] = {key: changes[key] for key in ("added", "changed", "removed") if key in changes}
        log_event("reload.applied", took_s=round(took_s, 3), **fields)
        lines = tuple(f"{key}: {names}" for key, names in fields.items()) or ("Nothing has changed.",)
        self._state.reload_error = self._state.reload_incomplete = None
        self._state.last_reload = f"applied: {'; '.join(lines)}"
        return ReloadResult("applied", lines)

    def _rejected(self, faults: str, error: Exception | None) -> ReloadResult:
        log_event("reload.rejected", faults=faults, exc=error)
        lines = tuple(faults.splitlines())
        first = lines[0] if len(lines) == 1 else f"{lines[0]} (and {len(lines) - 1} more)"
        self._state.reload_error = first
        self._state.last_reload = f"rejected: {first}"
        return ReloadResult("rejected", lines)

    def _incomplete(
        self, failed: str, error: Exception, prepared: list[tuple[Component, Prepared]], count: int
    ) -> ReloadResult:
        """Report what is in force after `count` components have applied and `failed` has not."""
        applied = ", ".join(component.name for component, each in prepared[:count] if not each.is_empty)
        kept = ", ".join(component.name for component, each in prepared[count + 1 :] if not each.is_empty)
        reason = f"{error}" if isinstance(error, SupervisorError) else f"{type(error).__name__}: {error}"
        if stopped := self._workers.stopped_for_switch():
            reason += f"; these workers are stopped until a reload is applied: {', '.join(stopped)}"
        log_event("reload.incomplete", part=failed, reason=reason, applied=applied, kept=kept, exc=error)
        lines = (
            f"{failed} could not be changed: {reason}",
            f"the new configuration is in force for: {applied or 'nothing'}",
            f"the old configuration is in force for: {kept or 'nothing'}",
        )
        text = f"{failed} could not be changed: {reason}"
        self._state.reload_error, self._state.reload_incomplete = None, text
        self._state.last_reload = f"incomplete: {'; '.join(lines)}"
        return ReloadResult("incomplete", lines)

    def _file_fingerprint(self) -> object:
        """Return a value that changes when the file does."""
        try:
            stat = self._state.config.path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_ino, stat.st_size


async def _discard(prepared: list[tuple[Component, Prepared]]) -> None:
    """Discard all of them, the last first; one that fails keeps nothing of the others."""
    for component, each in reversed(prepared):
        try:
            await each.discard()
        except Exception as error:  # noqa: BLE001 - the others must be discarded, too
            log_event("daemon.failed", exc=error, task=f"discard {component.name}")


def _refuse_restart(old: Config, new: Config) -> None:
    """Refuse what only a restart can change.

    Raises:
        ConfigError: With a fault for each such key.
    """
    if needs_restart := diff_configs(old._replace(workers={}), new._replace(workers={})).needs_restart:
        raise ConfigError(*needs_restart)
