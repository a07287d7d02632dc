"""Versioned datasets: an artifact of Parquet shards, one row a record, and the media the rows name by digest.

Rows keep the order they were added in. A dataset exists from `commit` on, or it does not.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from types import TracebackType
from typing import Any, Generic, cast

import pyarrow as pa
import pyarrow.parquet as pq

from unified_reward.config.spec import ArtifactRef
from unified_reward.errors import UserError
from unified_reward.records import RowType, from_row, schema_of, to_row
from unified_reward.store.artifacts import ArtifactWriter, open_artifact
from unified_reward.store.media import CACHE_BYTES, THREADS, MediaCache, MediaWriter, media_key
from unified_reward.store.object_store import ObjectStore

KIND = "dataset"
ROWS_PER_SHARD = 65_536


def to_parquet(table: pa.Table) -> bytes:
    """The table as one Parquet file, zstd-compressed."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def from_parquet(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    return pq.read_table(pa.BufferReader(data), columns=None if columns is None else list(columns))


class DatasetWriter(Generic[RowType]):
    """A dataset in the making: `with DatasetWriter(...) as w: w.add_media(...); w.add(...); ref = w.commit()`.

    Left without `commit`, it leaves no dataset; the media it stored stay and are found by the next attempt.
    """

    def __init__(
        self,
        store: ObjectStore,
        prefix: str,
        record_type: type[RowType],
        rows_per_shard: int = ROWS_PER_SHARD,
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        if rows_per_shard < 1:
            raise ValueError(f"rows_per_shard is {rows_per_shard}; it must be at least 1")
        self.store, self.record_type, self.rows_per_shard = store, record_type, rows_per_shard
        self.meta = dict(meta or {})
        self._files = ArtifactWriter(store, prefix, KIND)
        self._media = MediaWriter(store)
        self._schema = schema_of(record_type)
        self._rows: list[dict[str, Any]] = []
        self._rows_of_shards: list[int] = []
        self._named: set[bytes] = set()
        self._open = True

    def __enter__(self) -> DatasetWriter[RowType]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        self._media.close()

    def add(self, record: RowType) -> None:
        """Append a row. A UserError of the media added so far may show here."""
        self._require_open()
        if not isinstance(record, self.record_type):
            raise TypeError(f"this dataset holds {self.record_type.__name__}, not {type(record).__name__}")
        self._named.update(bytes.fromhex(digest) for digest in _media_of(record))
        self._rows.append(to_row(record))
        if len(self._rows) >= self.rows_per_shard:
            self._write_shard()

    def add_media(self, data: bytes) -> str:
        """Store a medium once; returns its sha256 (hex), by which rows name it."""
        self._require_open()
        return self._media.add(data)

    def commit(self) -> ArtifactRef:
        """Make the dataset exist. Raises UserError when rows name media that are not in the store."""
        self._require_open()
        if self._rows or not self._rows_of_shards:
            self._write_shard()
        self._media.flush()
        self._check_media()
        self._files.meta = {"record": self.record_type.__name__, "rows": self._rows_of_shards, "meta": self.meta}
        self._open = False
        return self._files.commit()

    def _write_shard(self) -> None:
        table = pa.Table.from_pylist(self._rows, schema=self._schema)
        self._files.add(_shard_name(len(self._rows_of_shards)), to_parquet(table))
        self._rows_of_shards.append(len(self._rows))
        self._rows = []

    def _check_media(self) -> None:
        unknown = sorted(digest.hex() for digest in self._named - self._media.written)
        with ThreadPoolExecutor(THREADS) as pool:
            found = pool.map(lambda digest: self.store.exists(media_key(digest)), unknown)
            missing = [digest for digest, there in zip(unknown, found, strict=True) if not there]
        if missing:
            raise UserError(field="media", value=missing[0], why=f"rows name {len(missing)} media that were never stored",
                            fix="Add the bytes of every medium before committing.")  # fmt: skip

    def _require_open(self) -> None:
        if not self._open:
            raise RuntimeError("the dataset writer was committed or left already")


class Dataset(Generic[RowType]):
    """A committed dataset, checked against its digest. Rows are kept in memory as Arrow, media in a bounded cache."""

    def __init__(
        self, store: ObjectStore, ref: ArtifactRef, kind: type[RowType], *, media_cache_bytes: int = CACHE_BYTES
    ) -> None:
        """Raises UserError when `ref` is not a dataset of `kind`, or not there."""
        self.store, self.ref, self.kind = store, ref, kind
        self.artifact = open_artifact(store, ref)
        about = self.artifact.meta
        if self.artifact.kind != KIND or about["record"] != kind.__name__:
            found = f"{about['record']} dataset" if self.artifact.kind == KIND else self.artifact.kind
            raise UserError(field=ref.prefix, value=f"a {found}", why=f"a {kind.__name__} dataset is needed here",
                            fix="Name another input.")  # fmt: skip
        self._starts = [0, *accumulate(about["rows"])]
        self._tables: dict[int, pa.Table] = {}
        self._media = MediaCache(store, media_cache_bytes)

    @property
    def meta(self) -> Mapping[str, Any]:
        """What its writer noted: source, licence, seed and the like."""
        return cast("Mapping[str, Any]", self.artifact.meta["meta"])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def row(self, index: int) -> RowType:
        """Row `index`, 0 <= index < len."""
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of a dataset of {len(self)} rows")
        shard = bisect_right(self._starts, index) - 1
        return from_row(self.kind, self._shard(shard).slice(index - self._starts[shard], 1).to_pylist()[0])

    def records(self) -> Iterator[RowType]:
        """All rows, in order."""
        for shard in self._shards():
            for row in self._shard(shard).to_pylist():
                yield from_row(self.kind, row)

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows as Arrow; only these columns when given."""
        whole = pa.concat_tables([self._shard(shard) for shard in self._shards()])
        return whole if columns is None else whole.select(list(columns))

    def media(self, digest: str) -> bytes:
        """A medium's bytes, checked against its digest. Raises UserError when missing or damaged."""
        return self._media.get(digest)

    def _shards(self) -> range:
        return range(len(self._starts) - 1)

    def _shard(self, shard: int) -> pa.Table:
        if shard not in self._tables:
            table = from_parquet(self.artifact.read(_shard_name(shard)))
            expected = schema_of(self.kind)
            if not table.schema.equals(expected):
                different = sorted(set(table.schema.names) ^ set(expected.names)) or "of other types"
                why = f"{self.kind.__name__} has other columns in this version"
                raise UserError(
                    field=self.ref.prefix, value=f"columns {different}", why=why, fix="Import the data again."
                )
            self._tables[shard] = table
        return self._tables[shard]


def _media_of(record: object) -> list[str]:
    named = getattr(record, "media", [])
    return [digest for digest in ([named] if isinstance(named, str) else named) if digest]


def _shard_name(shard: int) -> str:
    return f"rows-{shard:05d}.parquet"
