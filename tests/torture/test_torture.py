"""A short run of the whole torture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from torture.run import Settings, torture

if TYPE_CHECKING:
    from pathlib import Path

# Its plan has every kind of disturbance in it. The rest of the minute is for the start and the convergence.
SEED = 0
SECONDS = 44.0


@pytest.mark.slow
def test_nothing_is_lost_doubled_or_stale(
    postgres_template: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Killed, frozen, cut off, robbed of their server and sessions, four nodes apply each event once and in order."""
    # The proxies go on sending to what was just reset.
    caplog.set_level("ERROR", "asyncio")
    said: list[str] = []
    outcome = torture(Settings(SECONDS, SEED, keep=tmp_path), postgres_template, said.append)
    report = "\n".join([f"seed {SEED}", *said, *outcome.figures.as_text()])
    assert outcome.violations == [], report
    assert outcome.complaints == [], report
    assert outcome.figures.events > 1000, report
    assert outcome.figures.takes > 20, report
