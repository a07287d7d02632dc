"""Names of models to their files: `builtin:NAME` ships with the package, `store:PREFIX` is an artifact, else a directory.

Kept free of torch, so that a launcher can name and digest a model without loading one.
"""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path

from unified_reward.errors import UserError
from unified_reward.store import ObjectStore, open_artifact, resolve

BUILTIN = "builtin:"
STORED = "store:"


def model_directory(ref: str, store: ObjectStore, cache: Path) -> Path:
    """The local directory of model `ref`; an artifact is brought to `cache` first.

    Raises UserError when there is no such model.
    """
    if ref.startswith(BUILTIN):
        return _builtin(ref)
    if ref.startswith(STORED):
        return open_artifact(store, resolve(store, ref.removeprefix(STORED))).materialise(cache)
    return _directory(ref)


def model_digest(ref: str, store: ObjectStore) -> str:
    """sha256 (hex) of what `ref` stands for now: of the artifact's manifest, or of the directory's files."""
    if ref.startswith(STORED):
        return resolve(store, ref.removeprefix(STORED)).digest
    return directory_digest(_builtin(ref) if ref.startswith(BUILTIN) else _directory(ref))


def directory_digest(directory: Path) -> str:
    """sha256 (hex) over the relative paths and the contents of all files below `directory`."""
    total = hashlib.sha256()
    for path in sorted(p for p in directory.rglob("*") if p.is_file()):
        with path.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        total.update(f"{path.relative_to(directory).as_posix()}\0{content}\n".encode())
    return total.hexdigest()


def _builtin(ref: str) -> Path:
    world, _, name = ref.removeprefix(BUILTIN).partition("/")
    weights = Path(str(resources.files("unified_reward"))) / world / "weights"
    if not name or not (weights / name).is_dir():
        packaged = Path(str(resources.files("unified_reward"))).glob("*/weights/*")
        known = ", ".join(sorted(f"{BUILTIN}{p.parent.parent.name}/{p.name}" for p in packaged if p.is_dir()))
        raise UserError(
            field="model", value=ref, why="no such model ships with the package", fix=f"Use one of {known}."
        )
    return weights / name


def _directory(ref: str) -> Path:
    directory = Path(ref).expanduser()
    if not directory.is_dir():
        raise UserError(
            field="model",
            value=ref,
            why="there is no such directory",
            fix="Name a directory of Hugging Face files, builtin:NAME or store:PREFIX.",
        )
    return directory
