"""A person's edits over the image's code: a tar in the object store, named by its sha256, unpacked before the ranks start."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path, PurePosixPath

from unified_reward.errors import UserError

LONGEST_BYTES = 64 * 1024 * 1024


def workspace_key(digest: str) -> str:
    """Where a workspace of this sha256 is in the store."""
    return f"workspaces/{digest}.tar.gz"


def apply(digest: str, store_url: str, directory: Path) -> str:
    """Unpack the workspace below `directory` and return the PYTHONPATH that puts it first. Raises UserError."""
    from unified_reward.store import NotFound, open_store

    store = open_store(store_url)
    try:
        packed = store.get(workspace_key(digest))
    except NotFound:
        raise UserError(field="workspace", value=digest, why=f"it is not in {store_url}",
                        fix="Submit the job again, so that it is uploaded.") from None  # fmt: skip
    if hashlib.sha256(packed).hexdigest() != digest:
        raise UserError(field="workspace", value=digest, why="what the store has under this name is something else",
                        fix="Remove it from the store and submit the job again.")  # fmt: skip
    directory.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as archive:
        archive.extractall(directory, members=_harmless(archive.getmembers(), digest))
    roots = [directory / "src", directory] if (directory / "src").is_dir() else [directory]
    return ":".join(map(str, roots))


def _harmless(members: list[tarfile.TarInfo], digest: str) -> list[tarfile.TarInfo]:
    """All of them, when each stays below the directory. (tarfile's own filters came with Python 3.11.4.)"""
    for member in members:
        path = PurePosixPath(member.name)
        if not (member.isfile() or member.isdir()) or path.is_absolute() or ".." in path.parts:
            raise UserError(field="workspace", value=digest, why=f"it has {member.name}, which is no file below it",
                            fix="Submit the job again, so that it is packed again.")  # fmt: skip
        member.mode &= 0o755
    return members
