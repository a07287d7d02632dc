"""A dataset version: parquet shards of one kind of record, media by digest beside them, and a manifest written last."""

from __future__ import annotations

import hashlib
import io
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from unified_reward.config.spec import ArtifactRef
from unified_reward.errors import UserError
from unified_reward.records import from_row, schema_of, to_row
from unified_reward.store.artifacts import FileEntry, commit_manifest, open_artifact
from unified_reward.store.object_store import NotFoundError, ObjectStore

ROWS_PER_SHARD = 10_000
MEDIA_CACHE_BYTES = 128 * 1024 * 1024
RowType = TypeVar("RowType")


def media_key(digest: str) -> str:
    return f"media/sha256/{digest[:2]}/{digest}"


def put_media(store: ObjectStore, data: bytes) -> str:
    """Store a picture or video under its sha256 (hex), which is returned."""
    digest = hashlib.sha256(data).hexdigest()
    store.put_if_absent(media_key(digest), data)
    return digest


class DatasetWriter(Generic[RowType]):
    """Collects records and media; nothing is a dataset before `commit`. Left without commit, no manifest is written."""

    def __init__(
        self, store: ObjectStore, prefix: str, kind: type[RowType], *, rows_per_shard: int = ROWS_PER_SHARD,
        meta: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.store, self.prefix, self.kind, self.meta = store, prefix, kind, dict(meta or {})
        self._schema, self._per_shard = schema_of(kind), rows_per_shard
        self._rows: list[dict[str, Any]] = []
        self._shards: list[FileEntry] = []
        self._count = 0
        self._media: set[str] = set()

    def add(self, record: RowType) -> None:
        self._rows.append(to_row(record))
        self._count += 1
        if len(self._rows) >= self._per_shard:
            self._flush()

    def add_media(self, data: bytes) -> str:
        """Store a picture or video once; returns its sha256 (hex)."""
        digest = hashlib.sha256(data).hexdigest()
        if digest not in self._media:
            self._media.add(put_media(self.store, data))
        return digest

    def commit(self) -> ArtifactRef:
        """Publish the version."""
        if self._rows or not self._shards:
            self._flush()
        meta = {**self.meta, "record": self.kind.__name__, "rows": self._count}
        return commit_manifest(self.store, self.prefix, self._shards, kind="dataset", meta=meta)

    def _flush(self) -> None:
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(self._rows, schema=self._schema), buffer, compression="zstd")
        data, path = buffer.getvalue(), f"rows-{len(self._shards):05d}.parquet"
        self.store.put(f"{self.prefix}/{path}", data)
        self._shards.append(FileEntry(path, len(data), hashlib.sha256(data).hexdigest()))
        self._rows = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rows = []


class Dataset(Generic[RowType]):
    """A committed version, checked against its digest. Rows are in memory; media are read when asked for."""

    def __init__(self, store: ObjectStore, ref: ArtifactRef, kind: type[RowType]) -> None:
        artifact = open_artifact(store, ref)
        if artifact.meta.get("record") != kind.__name__:
            raise UserError(field="dataset", value=ref.prefix, why=f"it holds {artifact.meta.get('record')} rows",
                            fix=f"Name a dataset of {kind.__name__} rows.")  # fmt: skip
        self.store, self.ref, self.kind, self.meta = store, ref, kind, artifact.meta
        tables = [pq.read_table(io.BytesIO(artifact.read(f.path))) for f in artifact.files]
        self.table: pa.Table = pa.concat_tables(tables)
        self._media: OrderedDict[str, bytes] = OrderedDict()
        self._media_bytes = 0

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def row(self, index: int) -> RowType:
        return from_row(self.kind, self.table.slice(index, 1).to_pylist()[0])

    def records(self) -> Iterator[RowType]:
        for batch in self.table.to_batches(max_chunksize=4096):
            for row in batch.to_pylist():
                yield from_row(self.kind, row)

    def media(self, digest: str) -> bytes:
        """The bytes of a medium, checked. Raises UserError when it is missing or damaged."""
        if digest in self._media:
            self._media.move_to_end(digest)
            return self._media[digest]
        try:
            data = self.store.get(media_key(digest))
        except NotFoundError:
            raise self._damaged(digest, "it is not in the store") from None
        if hashlib.sha256(data).hexdigest() != digest:
            raise self._damaged(digest, "its content is not what was stored")
        self._keep(digest, data)
        return data

    def _keep(self, digest: str, data: bytes) -> None:
        self._media[digest] = data
        self._media_bytes += len(data)
        while self._media_bytes > MEDIA_CACHE_BYTES:
            self._media_bytes -= len(self._media.popitem(last=False)[1])

    def _damaged(self, digest: str, why: str) -> UserError:
        return UserError(field="media", value=digest, why=why, fix="Restore the object, or import the data again.")
