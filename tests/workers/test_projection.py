"""A projection on a real database: what it is given, when, and what is written with it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from support.stage import Seen, appended, seen, stage

if TYPE_CHECKING:
    from collections.abc import Sequence


async def test_gives_every_event_once_and_in_order(database: str) -> None:
    """What was there before and what comes later is applied once, in order, and the checkpoint says so."""
    async with stage(database) as st:
        await st.append_many(1234)
        handler = Seen()
        actor = await st.play(handler)
        await st.until(lambda: len(handler.positions) == 1234)
        last = 0
        for n in range(5):
            last = await st.append("late", n=n)
        await st.applied_upto(last)
        await actor.end()
        assert await seen(st) == await appended(st)
        row = await st.checkpoint()
        assert (row["position"], row["applied"]) == (last, 1239)
        assert max(handler.batches) == 500
