"""Processes killed with SIGKILL at bad moments: nothing half-made counts, nothing is lost, nothing counts twice."""

import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from unified_reward.errors import UserError
from unified_reward.records import Candidate
from unified_reward.store import Dataset, Ledger, open_store, resolve

WORKERS = Path(__file__).with_name("workers.py")
ROWS, ROWS_PER_SHARD = 60, 5
pytestmark = pytest.mark.integration


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(WORKERS), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> list[str]:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return output.splitlines()


def wait_for(process: subprocess.Popen[str], word: str) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(word):
            return line.strip()
    raise AssertionError(f"the worker ended without saying {word}")


def test_of_eight_processes_one_wins_each_key(store_url: str) -> None:
    racers = [start("race", store_url, f"racer {i}", "50") for i in range(8)]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    won = {f"racer {i}": finish(racer)[0].split() for i, racer in enumerate(racers)}
    assert Counter(key for keys in won.values() for key in keys) == Counter(map(str, range(50)))
    store = open_store(store_url)
    assert all(store.get(f"race/{key}").decode() == me for me, keys in won.items() for key in keys)


def test_a_dataset_writer_killed_half_way_leaves_no_dataset_and_the_next_succeeds(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(store_url)
    monkeypatch.setenv("PAUSE", "600")
    writer = start("write_dataset", store_url, "data/a")
    wait_for(writer, "half")
    while len(store.list("media/")) <= 200:  # media are stored while the writer goes on
        time.sleep(0.05)
    writer.kill()
    writer.wait()
    with pytest.raises(UserError, match="data/a: it was never committed"):
        resolve(store, "data/a")

    monkeypatch.setenv("PAUSE", "0")
    again, elsewhere = (
        start("write_dataset", store_url, "data/a"),
        start("write_dataset", str(tmp_path / "b"), "data/a"),
    )
    assert finish(again)[-1] == finish(elsewhere)[-1] == resolve(store, "data/a").digest
    data = Dataset(store, resolve(store, "data/a"), Candidate)
    assert [row.index for row in data.records()] == list(range(400))
    assert data.media(data.row(399).media) == b"pixels 399" * 50


@pytest.mark.parametrize("victim", ["stuck", "dies"])
def test_three_workers_of_which_one_is_killed(store_url: str, victim: str) -> None:
    store = open_store(store_url)
    killed = start("work", store_url, victim)
    if victim == "stuck":
        lost = int(wait_for(killed, "stuck").split()[1])
    else:
        lost = 3
        assert killed.wait() == -signal.SIGKILL
    others = [start("work", store_url, "good") for _ in range(2)]
    wait_for(others[0], "shard")
    killed.kill()
    killed.wait()
    for other in others:
        finish(other)

    rows = Ledger(store, "work", rows=ROWS, rows_per_shard=ROWS_PER_SHARD).rows()
    assert rows.column("row").to_pylist() == list(range(ROWS))
    by = dict(zip(rows.column("row").to_pylist(), rows.column("pid").to_pylist(), strict=True))
    assert by[lost * ROWS_PER_SHARD] in {other.pid for other in others}
    assert killed.pid in by.values()  # what it had finished still counts


def test_all_are_killed_and_other_numbers_of_workers_go_on(store_url: str) -> None:
    store = open_store(store_url)
    first = [start("work", store_url, "stuck") for _ in range(3)]
    for worker in first:
        wait_for(worker, "stuck")
    for worker in first:
        worker.kill()
        worker.wait()
    before = Ledger(store, "work", rows=ROWS, rows_per_shard=ROWS_PER_SHARD).done()
    assert len(before) == 3

    finish(start("work", store_url, "good"))
    ledger = Ledger(store, "work", rows=ROWS, rows_per_shard=ROWS_PER_SHARD)
    assert ledger.rows().column("row").to_pylist() == list(range(ROWS))
    assert {index: done for index, done in ledger.done().items() if index in before} == before
