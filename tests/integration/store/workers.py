"""Processes that the tests start and kill: `python workers.py JOB URL ...`. Progress goes to standard output."""

import os
import signal
import sys
import time

import pyarrow as pa

from unified_reward.records import Candidate
from unified_reward.store import DatasetWriter, Ledger, ObjectStore, open_store

ROWS, ROWS_PER_SHARD = 60, 5
CANDIDATES = 400


def say(*words: object) -> None:
    print(*words, flush=True)


def race(store: ObjectStore, me: str, keys: str) -> None:
    """Try for each key; say which were won."""
    sys.stdin.readline()  # all start together
    won = [key for key in map(str, range(int(keys))) if store.put_if_absent(f"race/{key}", me.encode())]
    say(*won)


def candidates(writer: DatasetWriter[Candidate]) -> None:
    for i in range(CANDIDATES):
        digest = writer.add_media(f"pixels {i}".encode() * 50)
        writer.add(Candidate(id=f"c{i}", prompt_id="p", index=i, seed=i, policy="x", media=digest))
        if i == CANDIDATES // 2:
            say("half")
            time.sleep(float(os.environ.get("PAUSE", "0")))


def write_dataset(store: ObjectStore, prefix: str) -> None:
    with DatasetWriter(store, prefix, Candidate, rows_per_shard=50) as writer:
        candidates(writer)
        say(writer.commit().digest)


class DiesBeforeDone(ObjectStore):
    """Is killed between a shard's result and the object that makes it count."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        if key.endswith("000003.done"):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().put_if_absent(key, data)


def work(store: ObjectStore, manner: str) -> None:
    """Work on the ledger: `good`, or `stuck` at its second shard, or `dies` in the commit of shard 3."""
    if manner == "dies":
        store.__class__ = DiesBeforeDone
    ledger = Ledger(store, "work", rows=ROWS, rows_per_shard=ROWS_PER_SHARD)
    for number, shard in enumerate(ledger.claim()):
        say("shard", shard.index)
        if manner == "stuck" and number == 1:
            say("stuck", shard.index)
            time.sleep(600)
        time.sleep(0.05)
        ledger.commit(shard, pa.table({"row": list(shard.rows), "pid": [os.getpid()] * len(shard.rows)}))


if __name__ == "__main__":
    job, url, *rest = sys.argv[1:]
    {"race": race, "write_dataset": write_dataset, "work": work}[job](open_store(url), *rest)
