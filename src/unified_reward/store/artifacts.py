"""Immutable outputs: files under a prefix, and a manifest written last that makes them exist.

    <prefix>/_manifest.json            kind, meta, and name, size and sha256 of each file; its own sha256 is the digest
    <prefix>/<sha12>-<name>            a file; a directory in the name stays in front

A file's key holds the head of its digest, so that two attempts at one prefix (a worker that was given up but still
lives, and its successor) never write over each other. Whoever writes the manifest first has made the artifact.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from unified_reward.config.spec import ArtifactRef
from unified_reward.errors import UserError
from unified_reward.store.local_cache import fill_once
from unified_reward.store.object_store import ObjectInfo, ObjectStore, check_digest

MANIFEST = "_manifest.json"
FORMAT = 1


@dataclass(frozen=True)
class FileEntry:
    """A file of an artifact. size: bytes. sha256: hex."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What an artifact is. kind: what its files are, e.g. "dataset", "model". meta: JSON, at the kind's liking."""

    kind: str
    meta: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, FileEntry] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Canonical JSON: the same content gives the same bytes, and so the same digest."""
        files = {name: asdict(entry) for name, entry in self.files.items()}
        content = {"format": FORMAT, "kind": self.kind, "meta": dict(self.meta), "files": files}
        return (json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes, prefix: str) -> Manifest:
        content = json.loads(data)
        if content.get("format") != FORMAT:
            raise UserError(field=f"{prefix}/{MANIFEST}", value=f"format {content.get('format')}",
                            why=f"this version reads format {FORMAT}", fix="Read it with the version that wrote it.")  # fmt: skip
        files = {_inside(name, prefix): FileEntry(**entry) for name, entry in content["files"].items()}
        return cls(content["kind"], content["meta"], files)


class ArtifactWriter:
    """Stores the files of an artifact one by one; the artifact exists from `commit` on."""

    def __init__(self, store: ObjectStore, prefix: str, kind: str, meta: Mapping[str, Any] | None = None) -> None:
        self.store, self.prefix, self.kind = store, prefix.strip("/"), kind
        self.meta: dict[str, Any] = dict(meta or {})
        self.files: dict[str, FileEntry] = {}

    def add(self, name: str, content: bytes | Path) -> None:
        """Store a file under `name`, unless an earlier attempt has stored just this content."""
        if name in self.files or name == MANIFEST:
            raise ValueError(f"the artifact {self.prefix} has a file {name} already")
        entry = _entry(content)
        key = file_key(self.prefix, name, entry)
        there = self.store.head(key)
        if there is None or there.size != entry.size:
            if isinstance(content, Path):
                self.store.put_file(content, key)
            else:
                self.store.put(key, content)
        self.files[name] = entry

    def commit(self) -> ArtifactRef:
        """Write the manifest. Committed before with the same content: the same reference. With other: UserError."""
        data = Manifest(self.kind, self.meta, self.files).to_bytes()
        key = f"{self.prefix}/{MANIFEST}"
        if not self.store.put_if_absent(key, data) and self.store.get(key) != data:
            raise UserError(field="artifact", value=self.prefix, why="it is already committed with other content",
                            fix="Artifacts never change: write to another prefix.")  # fmt: skip
        return ArtifactRef(prefix=self.prefix, digest=_sha256(data))


def write_artifact(
    store: ObjectStore, prefix: str, files: Mapping[str, bytes | Path], kind: str, meta: Mapping[str, Any] | None = None
) -> ArtifactRef:
    """Store `files` (name -> bytes or a local path) as one immutable artifact. Raises UserError; see ArtifactWriter."""
    writer = ArtifactWriter(store, prefix, kind, meta)
    for name in sorted(files):
        writer.add(name, files[name])
    return writer.commit()


def upload_directory(
    store: ObjectStore, prefix: str, directory: Path, kind: str, meta: Mapping[str, Any] | None = None
) -> ArtifactRef:
    """Store every file below `directory` as one artifact, named by its path within."""
    return write_artifact(store, prefix, directory_files(directory), kind, meta)


def directory_files(directory: Path) -> dict[str, Path]:
    """Every file below `directory` by its path within. Raises UserError when there is none."""
    files = {p.relative_to(directory).as_posix(): p for p in directory.rglob("*") if p.is_file()}
    if not files:
        raise UserError(
            field="directory", value=directory, why="there is no file in it", fix="Name a directory with files."
        )
    return files


@dataclass(frozen=True)
class Artifact:
    """A committed artifact, its manifest checked against the digest it was asked for by."""

    store: ObjectStore
    ref: ArtifactRef
    manifest: Manifest

    @property
    def kind(self) -> str:
        return self.manifest.kind

    @property
    def meta(self) -> Mapping[str, Any]:
        return self.manifest.meta

    @property
    def files(self) -> Mapping[str, FileEntry]:
        return self.manifest.files

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files.values())

    def key(self, name: str) -> str:
        """Where the file lies in the store, e.g. for ranged reads. Raises UserError when the artifact has no such file."""
        if name not in self.files:
            known = ", ".join(sorted(self.files)[:10]) or "none"
            raise UserError(
                field="file", value=name, why=f"{self.ref.prefix} has no such file", fix=f"It has: {known}."
            )
        return file_key(self.ref.prefix, name, self.files[name])

    def read(self, name: str) -> bytes:
        """A file's bytes, checked against the manifest."""
        key = self.key(name)
        data = self.store.get(key)
        check_digest(key, _sha256(data), self.files[name].sha256, self.store.url)
        return data

    def materialise(self, directory: Path) -> Path:
        """A local directory with all files: `directory`/<digest>, filled once by whoever comes first and then reused.

        Every file is checked against its sha256 when it is brought here. Safe among any number of processes. Raises
        UserError when the disk has too little room. Do not write into the directory.
        """
        entries = {name: (self.key(name), entry.size, entry.sha256) for name, entry in self.files.items()}
        return fill_once(self.store, entries, directory, self.ref.digest)


def open_artifact(store: ObjectStore, ref: ArtifactRef) -> Artifact:
    """The committed artifact `ref`. Raises UserError when it was never committed, or when another stands there."""
    data = _manifest_bytes(store, ref.prefix)
    digest = _sha256(data)
    if digest != ref.digest:
        raise UserError(field=ref.prefix, value=f"digest {digest[:12]}", why=f"digest {ref.digest[:12]} was asked for",
                        fix="Use the artifact as it stands, or run again the stage that made it.")  # fmt: skip
    return Artifact(store, ref, Manifest.from_bytes(data, ref.prefix))


def resolve(store: ObjectStore, prefix: str) -> ArtifactRef:
    """The reference of the artifact committed under `prefix`.

    Raises UserError when there is none; it names the last one committed nearby.
    """
    return ArtifactRef(prefix=prefix.strip("/"), digest=_sha256(_manifest_bytes(store, prefix.strip("/"))))


def file_key(prefix: str, name: str, entry: FileEntry) -> str:
    folder, _, base = name.rpartition("/")
    return "/".join(part for part in (prefix, folder, f"{entry.sha256[:12]}-{base}") if part)


def _manifest_bytes(store: ObjectStore, prefix: str) -> bytes:
    _check_prefix(prefix)
    try:
        return store.get(f"{prefix}/{MANIFEST}")
    except FileNotFoundError:
        nearby = max(_committed_nearby(store, prefix), key=lambda found: found.modified, default=None)
    fix = "Run the stage that makes it"
    if nearby is not None:
        fix = f"Last committed nearby: {nearby.key.removesuffix('/' + MANIFEST)}. {fix}, or use that one"
    raise UserError(
        field="artifact", value=prefix, why=f"it was never committed (no {MANIFEST})", fix=f"{fix}."
    ) from None


def _committed_nearby(store: ObjectStore, prefix: str, levels: int = 2) -> Iterator[ObjectInfo]:
    """Manifests below the nearest of the `levels` folders above `prefix` that has any."""
    folder = prefix
    for _ in range(levels):
        folder = folder.rpartition("/")[0]
        if not folder:
            return
        found = [info for info in store.objects(f"{folder}/") if info.key.endswith(f"/{MANIFEST}")]
        if found:
            yield from found
            return


def _inside(name: str, prefix: str) -> str:
    """`name`, refused when it is not a path below the artifact: a manifest may come from a stranger."""
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise UserError(field=f"{prefix}/{MANIFEST}", value=f"file {name}", why="the name leads out of the artifact",
                        fix="Do not use this artifact.")  # fmt: skip
    return name


def _check_prefix(prefix: str) -> None:
    if not prefix or any(part in ("", ".", "..") for part in prefix.split("/")):
        raise UserError(field="artifact", value=prefix or None, why="it is not a prefix in the store",
                        fix="Write names joined by single slashes, as in stages/import/KEY/judge_records.")  # fmt: skip


def _entry(content: bytes | Path) -> FileEntry:
    if isinstance(content, bytes):
        return FileEntry(len(content), _sha256(content))
    with content.open("rb") as stream:
        return FileEntry(content.stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
