"""A directory of a person's edits as the tar that a job puts over its image's code: the same content, the same digest.

In a Git repository the files are those that Git would commit, as they are now; elsewhere all but what is never code.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from unified_reward.errors import UserError
from unified_reward.launch.overlay import LONGEST_BYTES

SKIPPED = {".git", ".hg", ".venv", "venv", "__pycache__", "node_modules", ".mypy_cache", ".ruff_cache", ".pytest_cache",
           ".hypothesis", ".unified-reward"}  # fmt: skip

MOST_FILES = 20_000  # found out before all of a disk is walked


@dataclass(frozen=True)
class Workspace:
    """digest: sha256 of `packed`, a tar.gz. left_out: links that lead to none of the files."""

    digest: str
    packed: bytes
    files: int
    left_out: tuple[str, ...] = ()


def asked_workspace(asked: str) -> Workspace | None:
    """asked: "true" for the current directory, a path, or nothing."""
    if asked.lower() in ("", "false", "none"):
        return None
    return pack(Path.cwd() if asked.lower() == "true" else Path(os.path.expanduser(asked)))


def pack(directory: Path) -> Workspace:
    """Raises UserError when there is nothing to pack or more than 64 MiB of it, packed or not packed eightfold."""
    if not directory.is_dir():
        why = "it is no directory" if directory.exists() else "there is no such directory"
        raise UserError(field="workspace", value=str(directory), why=why, fix="Name a directory.")
    try:
        return _packed(directory.resolve())
    except OSError as error:  # a file that has just gone, or may not be read, or shrinks
        raise UserError(field="workspace", value=str(directory), why=f"it cannot be packed ({error})",
                        fix="See that its files can be read and stay as they are, and submit again.") from None  # fmt: skip


def _packed(directory: Path) -> Workspace:
    files, left_out = _files(directory)
    if not files:
        raise UserError(
            field="workspace", value=str(directory), why="it has no files", fix="Name the directory of your code."
        )
    total = sum((directory / name).stat().st_size for name in files)
    if total > 8 * LONGEST_BYTES:
        raise _too_large(directory, files, total)
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0, filename="") as zipped,
        tarfile.open(fileobj=zipped, mode="w|", format=tarfile.PAX_FORMAT, dereference=True) as archive,
    ):
        for name in files:
            with (directory / name).open("rb") as content:  # of a link, what it leads to
                archive.addfile(_plain(archive.gettarinfo(arcname=name, fileobj=content)), content)
    packed = buffer.getvalue()
    if len(packed) > LONGEST_BYTES:
        raise _too_large(directory, files, len(packed))
    return Workspace(hashlib.sha256(packed).hexdigest(), packed, len(files), left_out)


def _files(directory: Path) -> tuple[list[str], tuple[str, ...]]:
    """Relative paths of the files and of links to a file among them, and the links that are left out. Each sorted."""
    names = []
    if any((place / ".git").exists() for place in (directory, *directory.parents)):
        names = _of_git(directory)
    else:
        for root, folders, here in os.walk(directory):
            folders[:] = [name for name in folders if name not in SKIPPED]
            linked = [name for name in folders if os.path.islink(os.path.join(root, name))]
            names += [os.path.relpath(os.path.join(root, name), directory) for name in (*here, *linked)]
            if len(names) > MOST_FILES:
                raise UserError(field="workspace", value=str(directory), why=f"it has more than {MOST_FILES} files",
                                fix="Name the directory of your code.")  # fmt: skip
    links = {name for name in names if (directory / name).is_symlink()}
    plain = {name for name in {*names} - links if (directory / name).is_file()}
    followed = {name for name in links if os.path.relpath(os.path.realpath(directory / name), directory) in plain}
    return sorted(plain | followed), tuple(sorted(links - followed))


def _of_git(directory: Path) -> list[str]:
    """What Git would commit. Without its word, what is ignored (data, secrets) could ride along. Raises UserError."""
    command = ["git", "-C", str(directory), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        found = subprocess.run(command, capture_output=True, check=False)
        failed = found.stderr.decode(errors="replace").strip().partition("\n")[0] if found.returncode else ""
    except FileNotFoundError:
        failed = "git is not installed"
    if failed:
        raise UserError(field="workspace", value=str(directory), why=f"it is of a Git repository that cannot be asked ({failed})",
                        fix="Mend that, or name a directory outside of it.")  # fmt: skip
    return [os.fsdecode(name) for name in found.stdout.split(b"\0") if name]


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mtime = 0
    info.mode = 0o755 if info.mode & 0o100 else 0o644
    return info


def _too_large(directory: Path, files: list[str], size: int) -> UserError:
    largest = sorted(files, key=lambda name: -(directory / name).stat().st_size)[:3]
    shown = ", ".join(f"{name} {(directory / name).stat().st_size / 2**20:.0f} MiB" for name in largest)
    return UserError(field="workspace", value=str(directory), why=f"it is {size / 2**20:.0f} MiB, and 64 MiB may ride along",
                     fix=f"Keep data out of it, or list it in .gitignore; the largest: {shown}.")  # fmt: skip
