import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from unified_reward.errors import UserError
from unified_reward.store import Ledger, ObjectStore, open_store
from unified_reward.store.leases import Holder, Lease, Leases
from unified_reward.store.ledger import Shard, cut


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"))


def result(shard: Shard) -> pa.Table:
    return pa.table({"row": list(shard.rows)})


@pytest.mark.parametrize(("rows", "size"), [(0, 3), (1, 3), (3, 3), (10, 3), (10, 100)])
def test_shards_hold_each_row_once(rows: int, size: int) -> None:
    assert [row for shard in cut(rows, size) for row in shard.rows] == list(range(rows))
    assert all(0 < len(shard.rows) <= size for shard in cut(rows, size))


def test_all_is_done_once_and_then_nothing_is_pending(store: ObjectStore) -> None:
    ledger = Ledger(store, "work", rows=10, rows_per_shard=3)
    worked = []
    for shard in ledger.claim():
        worked.append(shard.index)
        assert ledger.commit(shard, result(shard))
    assert worked == [0, 1, 2, 3]
    assert ledger.rows().column("row").to_pylist() == list(range(10))
    again = Ledger(store, "work", rows=10, rows_per_shard=3)
    assert again.pending() == []
    assert list(again.claim()) == []


def test_a_finished_shard_is_skipped_on_resume(store: ObjectStore) -> None:
    ledger = Ledger(store, "work", rows=10, rows_per_shard=3)
    ledger.commit(ledger.shards[1], result(ledger.shards[1]))
    resumed = Ledger(store, "work", rows=10, rows_per_shard=3)
    assert [shard.index for shard in resumed.pending()] == [0, 2, 3]
    assert list(resumed.done()) == [1]
    assert resumed.committed_rows().column("row").to_pylist() == [3, 4, 5]
    with pytest.raises(UserError, match="work is 1 of 4 shards: shard 000000 is not committed"):
        resumed.rows()


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_ranks_share_the_shards_whenever_they_look(store: ObjectStore, world_size: int) -> None:
    ledger = Ledger(store, f"work{world_size}", rows=10, rows_per_shard=2)
    worked = []
    for rank in range(world_size):  # each looks only when the one before it is through
        for shard in ledger.pending(rank, world_size):
            worked.append(shard.index)
            ledger.commit(shard, result(shard))
    assert sorted(worked) == [0, 1, 2, 3, 4]


def test_the_first_commit_counts_and_a_late_one_changes_nothing(store: ObjectStore) -> None:
    ledger = Ledger(store, "work", rows=2, rows_per_shard=2)
    shard = ledger.shards[0]
    assert ledger.commit(shard, pa.table({"row": [0, 1]}))
    before = store.list()
    assert not ledger.commit(shard, pa.table({"row": [7, 7]}))
    assert store.list() == before
    assert ledger.rows().column("row").to_pylist() == [0, 1]


def test_a_result_that_was_not_committed_is_not_seen(store: ObjectStore) -> None:
    ledger = Ledger(store, "work", rows=2, rows_per_shard=2)
    store.put("work/000000.deadbeef.parquet", b"half a file")
    assert ledger.pending() == ledger.shards
    ledger.commit(ledger.shards[0], result(ledger.shards[0]))
    assert ledger.rows().num_rows == 2


def test_a_damaged_result_is_seen(store: ObjectStore) -> None:
    ledger = Ledger(store, "work", rows=2, rows_per_shard=2)
    ledger.commit(ledger.shards[0], result(ledger.shards[0]))
    store.put(f"work/{ledger.done()[0].file}", b"garbage")
    with pytest.raises(UserError, match="damaged"):
        ledger.rows()


def test_work_goes_on_with_the_numbers_it_began_with(store: ObjectStore) -> None:
    Ledger(store, "work", rows=10, rows_per_shard=3)
    with pytest.raises(UserError, match=r"_plan.json is .*begun with other numbers"):
        Ledger(store, "work", rows=10, rows_per_shard=4)


def test_no_rows_are_no_work(store: ObjectStore) -> None:
    ledger = Ledger(store, "work", rows=0, rows_per_shard=4)
    assert list(ledger.claim()) == []
    assert ledger.rows().num_rows == 0


def elsewhere(expires: float) -> bytes:
    return Lease(Holder("another machine", 1, 0.0), expires).to_bytes()


def test_a_lease_keeps_others_out_until_it_is_given_back(store: ObjectStore) -> None:
    mine, other = Leases(store, "w", 60), Leases(store, "w", 60)
    with mine.hold("s") as held:
        assert held
        with other.hold("s") as also:
            assert not also
    with other.hold("s") as held:
        assert held


@pytest.mark.parametrize(("expires_in", "free"), [(-1.0, True), (60.0, False)], ids=["over", "running"])
def test_a_lease_of_another_machine_counts_until_its_time_is_over(
    store: ObjectStore, expires_in: float, free: bool
) -> None:
    store.put("w/_leases/s/0", elsewhere(time.time() + expires_in))
    with Leases(store, "w", 60).hold("s") as held:
        assert held is free


def test_a_lease_of_a_dead_process_of_this_machine_is_free_at_once(store: ObjectStore) -> None:
    code = "import json; from unified_reward.store.leases import Holder; print(json.dumps(vars(Holder.this_process())))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    gone = Holder(**json.loads(printed))
    here = Holder.this_process()
    assert (gone.machine, gone.is_dead(), here.is_dead()) == (here.machine, True, False)
    assert replace(here, started=here.started - 1).is_dead()  # the pid was given to another process
    store.put("w/_leases/s/0", Lease(gone, time.time() + 3600).to_bytes())
    with Leases(store, "w", 60).hold("s") as held:
        assert held


def test_a_lease_is_renewed_while_it_is_held(store: ObjectStore) -> None:
    with Leases(store, "w", 0.2).hold("s"):
        first = Lease.from_bytes(store.get("w/_leases/s/0")).expires
        while Lease.from_bytes(store.get("w/_leases/s/0")).expires == first:
            time.sleep(0.01)
        assert Lease.from_bytes(store.get("w/_leases/s/0")).holder.pid == os.getpid()


def test_an_error_in_the_work_gives_the_shard_back(store: ObjectStore) -> None:
    ledger = Ledger(store, "work", rows=2, rows_per_shard=1)

    def work(fails: bool) -> list[int]:
        taken = []
        for shard in ledger.claim():
            taken.append(shard.index // (not fails))
            ledger.commit(shard, result(shard))
        return taken

    with pytest.raises(ZeroDivisionError):
        work(fails=True)
    assert work(fails=False) == [0, 1]
