"""The courier's own troubles: told once, never raised into the stage."""

from pathlib import Path

import pytest

from unified_reward.tracking import Courier, Target, embedded_uri, stage_run


def test_a_database_that_cannot_be_made_is_told_in_one_line_and_the_entries_wait(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    target = Target(embedded_uri(tmp_path / "file" / "mlflow"), "e")
    courier = Courier(tmp_path / "spool", prepare=target.uri).start()
    with stage_run(target, tmp_path / "spool", key="k", name="n", system_metrics=False, close_timeout_s=0.3) as run:
        run.metric("loss", 1.0, 0)
    backlog = courier.close(0.3)
    assert backlog.pending == 3
    faults = [
        r.getMessage()
        for r in caplog.records
        if "tracking.uri is" in r.getMessage() and "entries" not in r.getMessage()
    ]
    assert len(faults) == 2  # one from each courier: this one and the run's own
    assert "Choose another directory" in faults[0]
    assert not any(record.exc_info for record in caplog.records)


def test_a_backlog_says_what_waits_and_where(tmp_path: Path) -> None:
    courier = Courier(tmp_path)
    assert str(courier.backlog()) == ""
    (tmp_path / "k").mkdir()
    (tmp_path / "k" / "entries.jsonl").write_text('{"op":"open"}\n{"op":"end"}\n{"op":"half')
    assert str(courier.backlog()) == f"2 entries wait in {tmp_path} and are delivered at the next start"
