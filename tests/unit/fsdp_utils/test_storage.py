from __future__ import annotations

import os
from pathlib import Path

import pytest

from fsdp_utils.storage import LocalDirectory


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"content")
    return path


def test_put_get_list_delete(tmp_path: Path, source: Path) -> None:
    storage = LocalDirectory(tmp_path / "root")
    storage.put_file(source, "a/b/one")
    assert storage.exists("a/b/one")
    assert storage.list("a/") == storage.list("a/b/o") == {"a/b/one": 7}
    assert storage.list("b") == {}
    storage.get_file("a/b/one", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"content"
    storage.delete("a/b/one")
    storage.delete("a/b/one")
    assert not storage.exists("a/b/one")
    assert list((tmp_path / "root").iterdir()) == []  # empty directories go too
    with pytest.raises(FileNotFoundError):
        storage.get_file("a/b/one", tmp_path / "again")


def test_across_filesystems_nothing_half_copied_appears(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, replace = LocalDirectory(tmp_path / "root"), os.replace

    def other_device(left: Path, right: Path) -> None:
        if left == source:
            raise OSError(18, "Invalid cross-device link")
        assert storage.list("") == {}
        replace(left, right)

    monkeypatch.setattr("fsdp_utils.storage.os.replace", other_device)
    storage.put_file(source, "a/one")
    assert storage.list("") == {"a/one": 7}
