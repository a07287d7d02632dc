"""The spool keeps every entry once, whatever happens to the process that writes it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from unified_reward.errors import UserError
from unified_reward.tracking import spool
from unified_reward.tracking.spool import ENTRIES, Cursor, SpoolWriter


def opened() -> dict[str, object]:
    return {"op": "open", "uri": "sqlite:////x/mlflow.db", "key": "k", "parent_key": "", "parent_run_id": ""}


def metrics(step: int, **values: float) -> dict[str, object]:
    return {"op": "metrics", "step": step, "time": 1, "values": values}


def test_a_half_written_line_is_cut_before_the_next_entry(tmp_path: Path) -> None:
    first = SpoolWriter(tmp_path / "run")
    first.append(opened())
    first.close()
    with (tmp_path / "run" / ENTRIES).open("ab") as stream:
        stream.write(b'{"op":"metrics","st')
    second = SpoolWriter(tmp_path / "run")
    second.append(metrics(0, loss=1.0))
    entries, offset = spool.read_entries(tmp_path / "run" / ENTRIES, 0)
    assert [entry["op"] for entry in entries] == ["open", "metrics"]
    assert offset == (tmp_path / "run" / ENTRIES).stat().st_size
    assert second.attempt == 2


def test_a_line_being_written_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / ENTRIES
    path.write_bytes(b'{"op":"open"}\n{"op":"end"')
    assert spool.read_entries(path, 0) == ([{"op": "open"}], 14)


def test_chunks_cover_all_entries_in_order(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path / "run")
    for step in range(50):
        writer.append(metrics(step, loss=step / 3))
    seen, offset = [], 0
    while True:
        entries, offset = spool.read_entries(writer.directory / ENTRIES, offset, limit=200)
        if not entries:
            break
        seen += [entry["step"] for entry in entries]
    assert seen == list(range(50))
    spool.save_cursor(writer.directory, Cursor(offset=offset))
    assert spool.pending(writer.directory) == 0
    writer.append(metrics(50, loss=0.0))
    assert spool.pending(writer.directory) == 1


def test_replayed_steps_are_recognised_only_in_a_later_attempt(tmp_path: Path) -> None:
    first = SpoolWriter(tmp_path / "run")
    first.append(metrics(7, loss=1.0))
    assert not first.is_replay("loss", 7)
    first.close()
    second = SpoolWriter(tmp_path / "run")
    assert second.is_replay("loss", 7)
    assert not second.is_replay("loss", 8)
    assert not second.is_replay("accuracy", 0)


def test_two_writers_of_one_run_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "LOCK_WAIT_S", 0.0)
    writer = SpoolWriter(tmp_path / "run")
    with pytest.raises(UserError, match="another process writes this run"):
        SpoolWriter(tmp_path / "run")
    writer.close()
    SpoolWriter(tmp_path / "run").close()


def test_kill_9_frees_the_writers_lock_and_keeps_what_was_written(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from unified_reward.tracking.spool import SpoolWriter\n"
        "writer = SpoolWriter(Path(sys.argv[1]))\n"
        "writer.append({'op': 'open'}); writer.append({'op': 'metrics', 'step': 1, 'values': {}})\n"
        "print('ready', flush=True); time.sleep(600)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    with spool.without_writer(tmp_path / "run") as free:
        assert not free
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    with spool.without_writer(tmp_path / "run") as free:
        assert free
    assert spool.pending(tmp_path / "run") == 2


def test_a_directory_that_cannot_be_made_names_itself(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"tracking spool is .*file/run"):
        SpoolWriter(tmp_path / "file" / "run")


def test_nan_and_infinity_survive_the_disk(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path / "run")
    writer.append(metrics(0, a=float("nan"), b=float("inf")))
    values = spool.read_entries(writer.directory / ENTRIES, 0)[0][0]["values"]
    assert json.dumps(values) == '{"a": NaN, "b": Infinity}'
