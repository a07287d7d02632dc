"""Edits on their way to a job: the same files give the same tar, nothing of data or secrets that Git does not see."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from unified_reward.errors import UserError
from unified_reward.launch import overlay, workspace
from unified_reward.launch.workspace import pack
from unified_reward.store import open_store


def _tree(root: Path) -> Path:
    (root / "src/pkg").mkdir(parents=True)
    (root / "src/pkg/a.py").write_text("VALUE = 1\n")
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "__pycache__").mkdir()
    (root / "__pycache__/a.pyc").write_bytes(b"x")
    return root


def _names(packed: bytes) -> dict[str, int]:
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        return {member.name: member.mode for member in archive.getmembers()}


def test_the_same_files_have_the_same_digest_wherever_and_whenever(tmp_path: Path) -> None:
    one, two = pack(_tree(tmp_path / "a")), pack(_tree(tmp_path / "b"))
    assert one == two
    assert _names(one.packed) == {"run.sh": 0o755, "src/pkg/a.py": 0o644}
    (tmp_path / "b/src/pkg/a.py").write_text("VALUE = 2\n")
    assert pack(tmp_path / "b").digest != one.digest


def test_of_a_repository_what_git_would_commit_is_taken_as_it_is_now(tmp_path: Path) -> None:
    root = _tree(tmp_path)
    for words in (["init", "-q"], ["add", "run.sh"]):
        subprocess.run(["git", *words], cwd=root, check=True)
    (root / ".gitignore").write_text("secret.txt\n__pycache__/\n")
    (root / "secret.txt").write_text("password")
    (root / "link.txt").symlink_to("secret.txt")
    assert set(_names(pack(root).packed)) == {".gitignore", "run.sh", "src/pkg/a.py"}
    (root / "run.sh").unlink()
    assert "run.sh" not in _names(pack(root).packed)


def test_a_link_to_a_file_of_the_tree_is_that_file_and_another_link_is_named(tmp_path: Path) -> None:
    root = _tree(tmp_path / "a")
    (root / "src/pkg/b.py").symlink_to("a.py")
    (root / "src/pkg/passwd").symlink_to("/etc/passwd")
    (root / "src/pkg/gone").symlink_to("nowhere")
    (root / "other").symlink_to("src")
    for way in ("without Git", "with Git"):
        found = pack(root)
        with tarfile.open(fileobj=io.BytesIO(found.packed)) as archive:
            member = archive.extractfile("src/pkg/b.py")
            assert member is not None
            assert member.read() == b"VALUE = 1\n", way
        assert "src/pkg/passwd" not in _names(found.packed), way
        assert found.left_out == ("other", "src/pkg/gone", "src/pkg/passwd"), way
        subprocess.run(["git", "init", "-q"], cwd=root, check=True)


def test_a_file_of_two_names_is_packed_under_both(tmp_path: Path) -> None:
    root = _tree(tmp_path)
    (root / "src/pkg/b.py").hardlink_to(root / "src/pkg/a.py")
    with tarfile.open(fileobj=io.BytesIO(pack(root).packed)) as archive:
        assert all(member.isfile() for member in archive.getmembers())


def test_a_repository_that_git_cannot_read_is_not_packed_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = _tree(tmp_path / "a")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    (root / ".git/config").write_text("[broken\n")
    with pytest.raises(UserError, match=r"cannot be asked \(fatal: bad config line 1"):
        pack(root)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="git is not installed"):
        pack(root)


def test_a_whole_disk_is_not_walked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace, "MOST_FILES", 1)
    with pytest.raises(UserError, match="it has more than 1 files"):
        pack(_tree(tmp_path))


def test_a_file_that_goes_while_it_is_packed_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace, "_files", lambda _: (["gone.py"], ()))
    with pytest.raises(UserError, match=r"it cannot be packed \(.*gone\.py"):
        pack(tmp_path)


def test_a_file_is_no_workspace(tmp_path: Path) -> None:
    (tmp_path / "a.py").touch()
    with pytest.raises(UserError, match="it is no directory"):
        pack(tmp_path / "a.py")


def test_too_much_is_refused_with_the_largest_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace, "LONGEST_BYTES", 1000)
    (tmp_path / "data.bin").write_bytes(
        bytes(range(256)) * 20
    )  # 5,120 bytes that do not shrink much are under eightfold
    (tmp_path / "noise.bin").write_bytes(__import__("random").Random(0).randbytes(2000))
    with pytest.raises(UserError, match=r"64 MiB may ride along.*data\.bin"):
        pack(tmp_path)
    (tmp_path / "more.bin").write_bytes(bytes(9000))
    with pytest.raises(UserError, match=r"more\.bin"):
        pack(tmp_path)


def test_a_workspace_arrives_first_on_the_path(tmp_path: Path) -> None:
    packed = pack(_tree(tmp_path / "a"))
    store = open_store((tmp_path / "store").as_uri())
    store.put(overlay.workspace_key(packed.digest), packed.packed)
    path = overlay.apply(packed.digest, (tmp_path / "store").as_uri(), tmp_path / "out")
    assert path == f"{tmp_path / 'out/src'}:{tmp_path / 'out'}"
    assert (tmp_path / "out/src/pkg/a.py").read_text() == "VALUE = 1\n"


@pytest.mark.parametrize("name", ["../evil", "/etc/evil"])
def test_a_tar_that_leaves_its_directory_is_refused(tmp_path: Path, name: str) -> None:
    import hashlib

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo(name))
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    open_store((tmp_path / "store").as_uri()).put(overlay.workspace_key(digest), buffer.getvalue())
    with pytest.raises(UserError, match="no file below it"):
        overlay.apply(digest, (tmp_path / "store").as_uri(), tmp_path / "out")
