"""Work on n rows by any number of processes that may die at any instruction: each shard's result counts exactly once.

    <prefix>/_plan.json                 how many rows, cut into shards of how many: fixed by whoever comes first
    <prefix>/<shard>.<attempt>.parquet  a result; worthless until it is named by
    <prefix>/<shard>.done               the file that counts, its sha256 and rows; written by put-if-absent
    <prefix>/_leases/<shard>/<n>        who works on the shard now; see leases.py

The `.done` object decides. Leases only spare doubled work: were all of them lost, the result would be the same. Shards
depend on the rows alone, so work goes on with another number of processes.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass

import pyarrow as pa

from unified_reward.errors import UserError
from unified_reward.store.dataset import from_parquet, to_parquet
from unified_reward.store.leases import LEASE_SECONDS, Leases
from unified_reward.store.object_store import ObjectStore, check_digest

PLAN = "_plan.json"
DONE = ".done"
POLL_SECONDS = 0.2
LONGEST_POLL_SECONDS = 2.0


@dataclass(frozen=True)
class Shard:
    """Rows [start, stop) of the work list."""

    index: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        return f"{self.index:06d}"

    @property
    def rows(self) -> range:
        return range(self.start, self.stop)


@dataclass(frozen=True)
class Done:
    """The result that counts. file: relative to the ledger's prefix. rows: of the result, not of the work list."""

    file: str
    sha256: str
    rows: int


def cut(rows: int, rows_per_shard: int) -> list[Shard]:
    """Rows 0..rows-1 in shards of `rows_per_shard`, the last one shorter."""
    starts = range(0, rows, rows_per_shard)
    return [Shard(i, start, min(start + rows_per_shard, rows)) for i, start in enumerate(starts)]


class Ledger:
    """The shards of one piece of work. `for shard in ledger.claim(): ledger.commit(shard, work_on(shard.rows))`."""

    def __init__(self, store: ObjectStore, prefix: str, *, rows: int, rows_per_shard: int) -> None:
        """Raises UserError when the work under `prefix` was begun with other numbers."""
        if rows < 0 or rows_per_shard < 1:
            raise ValueError(f"{rows} rows in shards of {rows_per_shard}: rows must be >= 0 and shards >= 1")
        self.store, self.prefix = store, prefix.strip("/")
        self.shards = cut(rows, rows_per_shard)
        self._fix_plan({"rows": rows, "rows_per_shard": rows_per_shard})

    def done(self) -> dict[int, Done]:
        """What is committed, by shard index. Once here, never changed."""
        return {index: self._read_done(key) for index, key in self._committed().items()}

    def pending(self, rank: int = 0, world_size: int = 1) -> list[Shard]:
        """This rank's share of the shards that nobody has committed yet, in order.

        The share goes by the shard's number, not by what is pending, since ranks may look at different times.
        """
        committed = self._committed()
        return [s for s in self.shards if s.index not in committed and s.index % world_size == rank]

    def claim(self, *, lease_seconds: float = LEASE_SECONDS) -> Iterator[Shard]:
        """Shards to work on, one at a time, until all are committed, by this process or others.

        A shard is held by a lease while the caller works on it. A lease ends when its holder dies (at once on the same
        machine, else when it has not been renewed for `lease_seconds`). When all pending shards are held by others,
        this waits for them, and takes over those of a holder that died.
        """
        leases, wait = Leases(self.store, self.prefix, lease_seconds), POLL_SECONDS
        while pending := self.pending():
            worked = False
            for shard in pending:
                with ExitStack() as held:
                    if self._is_done(shard) or not held.enter_context(leases.hold(shard.name)):
                        continue
                    if not self._is_done(shard):  # its holder may have committed it between the two questions
                        worked = True
                        yield shard
            wait = POLL_SECONDS if worked else min(2 * wait, LONGEST_POLL_SECONDS)
            if not worked:
                time.sleep(wait)

    def commit(self, shard: Shard, table: pa.Table) -> bool:
        """Make `table` the result of `shard`. False when another attempt was first: then that one counts."""
        data = to_parquet(table)
        file = f"{shard.name}.{uuid.uuid4().hex[:12]}.parquet"
        self.store.put(f"{self.prefix}/{file}", data)
        done = Done(file, hashlib.sha256(data).hexdigest(), table.num_rows)
        first = self.store.put_if_absent(self._done_key(shard), json.dumps(asdict(done)).encode())
        if not first:
            self.store.delete(f"{self.prefix}/{file}")
        return first

    def rows(self) -> pa.Table:
        """The results of all shards in the order of the work list, each checked against its sha256.

        Raises UserError when a shard is not committed yet or a result is damaged.
        """
        missing = self.pending()
        if missing:
            committed = f"{len(self.shards) - len(missing)} of {len(self.shards)} shards"
            raise UserError(field=self.prefix, value=committed,
                            why=f"shard {missing[0].name} is not committed", fix="Run the stage again; it continues.")  # fmt: skip
        return self.committed_rows()

    def committed_rows(self) -> pa.Table:
        """As `rows`, of the shards committed so far; a table without columns when there are none."""
        found = self.done()
        tables = [self._read(found[shard.index]) for shard in self.shards if shard.index in found]
        return pa.concat_tables(tables) if tables else pa.table({})

    def _read(self, done: Done) -> pa.Table:
        key = f"{self.prefix}/{done.file}"
        data = self.store.get(key)
        check_digest(key, hashlib.sha256(data).hexdigest(), done.sha256, self.store.url)
        return from_parquet(data)

    def _read_done(self, key: str) -> Done:
        return Done(**json.loads(self.store.get(key)))

    def _committed(self) -> dict[int, str]:
        """{shard index: key of its `.done`}."""
        keys = [key for key in self.store.list(f"{self.prefix}/") if key.endswith(DONE)]
        return {int(key.rpartition("/")[2].removesuffix(DONE)): key for key in keys}

    def _is_done(self, shard: Shard) -> bool:
        return self.store.exists(self._done_key(shard))

    def _done_key(self, shard: Shard) -> str:
        return f"{self.prefix}/{shard.name}{DONE}"

    def _fix_plan(self, plan: dict[str, int]) -> None:
        key, data = f"{self.prefix}/{PLAN}", json.dumps(plan).encode()
        if self.store.put_if_absent(key, data):
            return
        found = json.loads(self.store.get(key))
        if found != plan:
            raise UserError(field=key, value=found, why=f"the work was begun with other numbers than {plan}",
                            fix="Go on with those, or write under another prefix.")  # fmt: skip
