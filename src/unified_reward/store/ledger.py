"""The shard ledger: a list of work cut into shards with fixed names, each committed exactly once.

A worker writes `<shard>.<attempt>.parquet`, then puts `<shard>.done` (file, sha256, rows) on the condition that there is
none. Readers take only what a `.done` names. So a worker may die anywhere, two may do the same shard, and the number of
workers may change: every shard counts once.
"""

from __future__ import annotations

import hashlib
import io
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from unified_reward.errors import UserError
from unified_reward.store.object_store import ObjectStore


@dataclass(frozen=True)
class Shard:
    """Rows [start, stop) of the work list."""

    number: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        return f"shard-{self.number:06d}"


class ShardLedger:
    """rows: length of the work list. size: rows per shard. Both are part of the job: change them, change the prefix."""

    def __init__(self, store: ObjectStore, prefix: str, *, rows: int, size: int) -> None:
        self.store, self.prefix = store, f"{prefix}-{rows}x{size}"
        self.shards = [Shard(n, a, min(a + size, rows)) for n, a in enumerate(range(0, rows, size))]

    def pending(self, rank: int = 0, world_size: int = 1) -> Iterator[Shard]:
        """This rank's shards that nobody has committed, asked again before each."""
        done = self._done()
        for shard in self.shards[rank::world_size]:
            if shard.name not in done and self.store.head(f"{self.prefix}/{shard.name}.done") is None:
                yield shard

    def commit(self, shard: Shard, table: pa.Table) -> bool:
        """Publish a shard's rows. False when another worker had done so before: then these are ignored."""
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        data, file = buffer.getvalue(), f"{shard.name}.{uuid.uuid4().hex[:12]}.parquet"
        self.store.put(f"{self.prefix}/{file}", data)
        mark = {"file": file, "sha256": hashlib.sha256(data).hexdigest(), "rows": table.num_rows}
        return self.store.put_if_absent(f"{self.prefix}/{shard.name}.done", json.dumps(mark).encode())

    def rows(self, schema: pa.Schema) -> pa.Table:
        """All committed rows, in the order of the work list. Raises ValueError while a shard is missing."""
        done = self._done()
        missing = [shard.name for shard in self.shards if shard.name not in done]
        if missing:
            raise ValueError(
                f"{len(missing)} of {len(self.shards)} shards are not committed, the first is {missing[0]}"
            )
        return pa.concat_tables([schema.empty_table(), *(self._read(shard) for shard in self.shards)])

    def _done(self) -> set[str]:
        keys = (info.key.rsplit("/", 1)[-1] for info in self.store.list(self.prefix))
        return {key.removesuffix(".done") for key in keys if key.endswith(".done")}

    def _read(self, shard: Shard) -> pa.Table:
        mark = json.loads(self.store.get(f"{self.prefix}/{shard.name}.done"))
        data = self.store.get(f"{self.prefix}/{mark['file']}")
        if hashlib.sha256(data).hexdigest() != mark["sha256"]:
            raise UserError(field="shard", value=f"{self.prefix}/{mark['file']}", why="its content is not what was committed",
                            fix=f"Delete {shard.name}.done and run the stage again.")  # fmt: skip
        return pq.read_table(io.BytesIO(data))
