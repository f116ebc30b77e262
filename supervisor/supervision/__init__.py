"""Supervision: runs every worker, restarts it by its policy, and carries out orders.

Each worker is a `WorkerGroup` of instances (a service's replicas, a projection's shards). Each `WorkerInstance` has a
task that follows three inputs: its desired state, its lease, and what pure modules decide:

- `restart_policy`: what follows the end of a run (OTP's semantics, systemd's words);
- `stop_policy`: how long a run that was asked to stop is waited for;
- `states`: which transitions exist.

The user's coroutine runs in a second task (`run`), inside of which whatever it raises becomes a value: a worker's
SystemExit ends the worker and neither its siblings nor the event loop. `run_monitor` waits for that task and returns
why the wait is over. A worker with a lease runs only while this node holds it (`instance_lease`).

Orders
------

Restart, pause, resume, reload, and the notification that a halted projection may go on change a worker's instances.
Each of these orders holds the lock of the worker's group from its first step to its last, and first checks that the
worker still exists: it may have been removed while the order waited. So an instance is replaced only after it has
ended, and the group knows every instance. Orders for different workers do not wait for each other.

The gain or the loss of a lease changes no instance, but what an instance does. It goes to the instance's own task,
which takes one change after the other; only the cancellation of the run under a lost lease does not wait for that.

The daemon's stop takes no lock, because it may not wait for an order that drains a worker for a long time. It asks the
same instances to stop; the order then ends, too, and starts nothing.

States
------

What an instance does (`InstanceState`) and what is wanted of it (`DesiredState`) are separate:

```text
              SCHEDULE  ┌───────────┐  due            ┌─────────┐REQUEST_STOP┌──────────┐
   STOPPED ────────────►│ SCHEDULED ├────────────────►│         ├───────────►│ STOPPING │
      │                 └───────────┘    BEGIN        │         │            └──┬────┬──┘
      ├──────────────────────────────────────────────►│ RUNNING │          ended│    │ABANDON
      │                 ┌─────────┐   backoff over    │         │               ▼    ▼
      │                 │ WAITING ├──────────────────►│         │         STOPPED  ABANDONED
      │                 └─────────┘◄──────────────────┤         │
      │                 ┌────────┐  database is up    │         │ FINISH     ┌───────────────────┐
      │                 │ PARKED ├───────────────────►│         │ FAIL       │ FINISHED, FAILED, │
      │                 └────────┘◄───────────────────┤         ├───────────►│ EXHAUSTED         │
      ▼ PAUSE              an outage ended the run    └─────────┘ EXHAUST    └───────────────────┘
   PAUSED                                         (no lease: all but RUNNING and STOPPING ◄──► STANDBY)
```

STANDBY: the lease is not held here. SCHEDULED: a periodic worker between ticks. WAITING: the backoff after a failure.
PARKED: only an outage parks; one task waits for the database and wakes all parked instances. FINISHED, FAILED,
EXHAUSTED: only `restart` or a reload starts the worker again, with a new instance in this one's place; a halted
projection is also started again when somebody has skipped the event.

The less obvious transitions:

- ABANDONED → RUNNING: a run that ignores its stop is abandoned, logged and counted. A service may run
  again beside it. Ticks never overlap, so a periodic worker stays ABANDONED until the old tick has ended.
- STOPPED → ABANDONED: a successor (restart, reload) takes over the tick that its predecessor abandoned.
- RUNNING → STOPPED without STOPPING: the run had ended by itself when the order came.
- STOPPING → STOPPED → STANDBY: the lease was revoked or lost. The run under a lost lease is cancelled at once, and
  whatever it raises counts for nothing. The lease is given back only when the run has ended; a run that does not end
  ends the process instead.
- FINISHED and FAILED keep the lease, or the worker would only run again elsewhere; EXHAUSTED and PAUSED give it back.
- STOPPING → WAITING: a stalled tick is stopped by its own instance, and is a failure.

A stop is final for an instance: restart and reload put another one in its place, which takes over the
counters but not the history, so that a repaired worker begins with its whole allowance of restarts.
"""
