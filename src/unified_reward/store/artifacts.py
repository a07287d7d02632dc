"""An artifact: files under a prefix and a manifest of their digests, written last. It exists as a whole or not at all."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unified_reward.config.spec import ArtifactRef
from unified_reward.errors import UserError
from unified_reward.store.object_store import NotFoundError, ObjectStore

MANIFEST = "_manifest.json"


@dataclass(frozen=True)
class FileEntry:
    """path: below the artifact's prefix. sha256: hex."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Artifact:
    """A committed artifact. kind: dataset, model, ...; meta: what its maker says of it (JSON)."""

    store: ObjectStore
    ref: ArtifactRef
    kind: str
    meta: dict[str, Any]
    files: tuple[FileEntry, ...]

    def read(self, path: str) -> bytes:
        """One file, checked. Raises UserError when it is not what was committed."""
        entry = next((f for f in self.files if f.path == path), None)
        if entry is None:
            raise NotFoundError(f"{self.ref.prefix}/{path}")
        data = self.store.get(f"{self.ref.prefix}/{path}")
        self._check(entry, hashlib.sha256(data).hexdigest())
        return data

    def materialise(self, cache: Path) -> Path:
        """All files in a local directory named by the digest; brought once, safe against other processes."""
        target = cache / self.ref.digest
        if target.is_dir():
            return target
        cache.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=cache, prefix=f".{self.ref.digest[:12]}."))
        try:
            for entry in self.files:
                local = partial / entry.path
                self.store.get_file(f"{self.ref.prefix}/{entry.path}", local)
                self._check(entry, _file_digest(local))
            partial.chmod(0o755)
            os.rename(partial, target)
        except OSError:
            if not target.is_dir():  # else another process was first
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return target

    def _check(self, entry: FileEntry, digest: str) -> None:
        if digest != entry.sha256:
            raise UserError(field="artifact", value=f"{self.ref.prefix}/{entry.path}",
                            why="its content is not what was committed", fix="Run its stage again.")  # fmt: skip


def write_artifact(
    store: ObjectStore,
    prefix: str,
    files: Mapping[str, bytes | Path],
    *,
    kind: str,
    meta: Mapping[str, Any] | None = None,
) -> ArtifactRef:
    """Write files, then the manifest that commits them. The same content again gives the same reference.

    Raises UserError when another content was committed under `prefix`.
    """
    entries = []
    for path, content in sorted(files.items()):
        if isinstance(content, bytes):
            store.put(f"{prefix}/{path}", content)
            entries.append(FileEntry(path, len(content), hashlib.sha256(content).hexdigest()))
        else:
            store.put_file(f"{prefix}/{path}", content)
            entries.append(FileEntry(path, content.stat().st_size, _file_digest(content)))
    return commit_manifest(store, prefix, entries, kind=kind, meta=meta or {})


def commit_manifest(
    store: ObjectStore, prefix: str, entries: list[FileEntry], *, kind: str, meta: Mapping[str, Any]
) -> ArtifactRef:
    """Make files that are already in the store an artifact."""
    content = {"kind": kind, "meta": dict(meta), "files": [asdict(e) for e in entries]}
    manifest = json.dumps(content, sort_keys=True, indent=1).encode()
    key = f"{prefix}/{MANIFEST}"
    if not store.put_if_absent(key, manifest) and store.get(key) != manifest:
        raise UserError(field="artifact", value=prefix, why="other content was committed there before, and it cannot change",
                        fix="Write under a new prefix.")  # fmt: skip
    return ArtifactRef(prefix=prefix, digest=hashlib.sha256(manifest).hexdigest())


def directory_files(directory: Path) -> dict[str, bytes | Path]:
    """The files below a directory, for `write_artifact`."""
    return {p.relative_to(directory).as_posix(): p for p in sorted(directory.rglob("*")) if p.is_file()}


def open_artifact(store: ObjectStore, ref: ArtifactRef) -> Artifact:
    """The artifact `ref` names. Raises UserError when it was never committed or is another one."""
    manifest = _manifest(store, ref.prefix)
    digest = hashlib.sha256(manifest).hexdigest()
    if digest != ref.digest:
        raise UserError(field="artifact", value=ref.prefix, why=f"its digest is {digest[:12]}, not {ref.digest[:12]}",
                        fix="Run the stage that reads it again.")  # fmt: skip
    content = json.loads(manifest)
    return Artifact(store, ref, content["kind"], content["meta"], tuple(FileEntry(**f) for f in content["files"]))


def resolve(store: ObjectStore, prefix: str) -> ArtifactRef:
    """The reference of what is committed under `prefix`. Raises UserError that names the nearest committed one."""
    return ArtifactRef(prefix=prefix, digest=hashlib.sha256(_manifest(store, prefix)).hexdigest())


def _manifest(store: ObjectStore, prefix: str) -> bytes:
    try:
        return store.get(f"{prefix}/{MANIFEST}")
    except NotFoundError:
        top = prefix.split("/", 1)[0]
        committed = [o.key.removesuffix(f"/{MANIFEST}") for o in store.list(top) if o.key.endswith(f"/{MANIFEST}")]
        near = difflib.get_close_matches(prefix, committed, n=1, cutoff=0.0)
        fix = f"Committed nearby: {near[0]}." if near else "Nothing is committed there; run the stage that makes it."
        raise UserError(
            field="artifact", value=prefix, why=f"it was never committed (no {MANIFEST})", fix=fix
        ) from None


def _file_digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
