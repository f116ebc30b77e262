"""Supervision: who runs, who waits, who is given up.

Each instance of a worker has a `Runner`, a task that carries out what pure modules decide:

- `restart`: what follows a run's end (OTP's semantics, systemd's words);
- `stopping`: how long a run that was told to stop is waited for;
- `state`: the moves that exist.

While a run is under way its `Attendance` stays with it; an outage parks and lets go through `Parking`. A worker with
a lease runs only while that is held here: its `Tenancy` tells, and `standby` waits.

The worker's own coroutine runs in a second task (`run`), inside of which whatever it raises becomes a
value: a worker's SystemExit ends the worker and neither its siblings nor the event loop.

What goes on (`State`) and what is wanted (`Wanted`) are separate:

```text
              SCHEDULE  ┌───────────┐  due            ┌─────────┐ TELL_STOP ┌──────────┐
   STOPPED ────────────►│ SCHEDULED ├────────────────►│         ├──────────►│ STOPPING │
      │                 └───────────┘    BEGIN        │         │           └──┬────┬──┘
      ├──────────────────────────────────────────────►│ RUNNING │         ended│    │ABANDON
      │                 ┌─────────┐   backoff over    │         │              ▼    ▼
      │                 │ WAITING ├──────────────────►│         │        STOPPED  ABANDONED
      │                 └─────────┘◄──────────────────┤         │
      │                 ┌────────┐  database is up    │         │ FINISH    ┌───────────────────┐
      │                 │ PARKED ├───────────────────►│         │ FAIL      │ FINISHED, FAILED, │
      │                 └────────┘◄───────────────────┤         ├──────────►│ EXHAUSTED         │
      ▼ PAUSE                       an outage's doing └─────────┘ EXHAUST   └───────────────────┘
   PAUSED                                        (no lease: everything but RUNNING and STOPPING ◄──► STANDBY)
```

STANDBY: another node holds the lease, or nobody yet. SCHEDULED: a periodic worker between ticks. WAITING: the
backoff after a failure. PARKED: only an outage parks. FINISHED, FAILED, EXHAUSTED: only an operator's
`restart` or a reload brings it back, with a new instance in its place; a projection that stands still at an
event also comes back when that was mended.

The odd edges:

- ABANDONED → RUNNING: a run that ignores its stop is left behind, named and counted. A service may run
  again beside it. Ticks never overlap, so a periodic worker stays ABANDONED until the old tick has ended.
- STOPPED → ABANDONED: a successor (restart, reload) inherits the tick that its predecessor left behind.
- RUNNING → STOPPED without STOPPING: the run had ended by itself when the order came.
- STOPPING → STOPPED → STANDBY: the lease was recalled, or lost. A lost one's run is cancelled at once, and whatever
  it raises counts for nothing. Only when it has ended is the lease given back: a run that will not end ends the
  process instead.
- FINISHED and FAILED keep the lease, or the worker would only run again elsewhere; EXHAUSTED and PAUSED let it go.
- STOPPING → WAITING: a stalled tick is stopped by its own runner, and is a failure.

A stop is final for an instance: restart and reload put another one in its place, which inherits the
counters but not the history, so that a mended worker begins with its whole allowance of restarts.
"""
