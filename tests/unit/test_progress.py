"""How far a stage is: the time left comes from what was done since the first report."""

from __future__ import annotations

from pathlib import Path

import pytest

from unified_reward import progress
from unified_reward.names import PROGRESS_FILE
from unified_reward.progress import Progress


def test_the_time_left_is_not_guessed_from_the_first_report() -> None:
    at_first = Progress(50, 200, "prompts", "", started=100.0, updated=100.0, first=50)
    assert at_first.eta_seconds(100.0) is None
    later = Progress(100, 200, "prompts", "", started=100.0, updated=110.0, first=50)
    assert later.eta_seconds(110.0) == pytest.approx(20.0)
    assert later.eta_seconds(115.0) == pytest.approx(15.0)


def test_a_report_says_where_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROGRESS_FILE, str(tmp_path / "progress.json"))
    monkeypatch.setattr(progress, "MIN_INTERVAL_S", 0.0)
    progress.report(30, 60, "steps")
    progress.report(40, 60, "steps")
    found = progress.read(tmp_path / "progress.json")
    assert found is not None
    assert (found.done, found.first) == (40, 30)
