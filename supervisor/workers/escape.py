"""What leaves a handler although it is no `Exception`: a cancellation of its own making, an exit, and their kin."""

from __future__ import annotations

import asyncio

from supervisor.errors import SupervisorError
from supervisor.supervision.instance_log import sentence_of


class HandlerEscaped(SupervisorError):
    """The handler failed with something that would end more than the handler."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(f"the handler raised {sentence_of(error)}")


def is_handlers_own(error: BaseException) -> bool:
    """Whether this is a failure of the handler in disguise: nobody has cancelled the task that awaits it."""
    task = asyncio.current_task()
    return not isinstance(error, Exception) and task is not None and task.cancelling() == 0
