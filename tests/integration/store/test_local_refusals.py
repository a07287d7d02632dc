"""Directories that refuse: full disks and missing rights end in one line, early, and with nothing half-written."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from unified_reward.errors import UserError
from unified_reward.records import Candidate
from unified_reward.store import MANIFEST, DatasetWriter, open_store, write_artifact

MEBIBYTE = 1024 * 1024
pytestmark = pytest.mark.integration

AS_NOBODY = """
import os, sys
from unified_reward.errors import UserError
from unified_reward.store import open_store
if os.geteuid() == 0:
    os.seteuid(65534)
try:
    store = open_store(sys.argv[1])
    store.check_writable()
except UserError as error:
    print(error)
"""


@pytest.fixture
def closed() -> Iterator[Path]:
    """A directory that all may read and none but root may write; pytest's own lets nobody else in."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o555)
    yield directory
    directory.rmdir()


@pytest.mark.parametrize("below", ["", "new"], ids=["the store", "its parent"])
def test_a_directory_one_may_not_write_is_said_at_once(closed: Path, below: str) -> None:
    told = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, str(closed / below)], capture_output=True, text=True, check=True
    )
    assert told.stdout.startswith("store is ")
    assert "not permitted" in told.stdout or "Permission denied" in told.stdout
    assert len(told.stdout.splitlines()) == 1
    assert list(closed.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a small disk cannot be mounted here: that takes root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_said_and_leaves_no_artifact(small_disk: Path) -> None:
    store = open_store(str(small_disk / "store"))
    with pytest.raises(UserError, match=r"MiB are free there and 50.0 MiB are needed"):
        store.require_space(50 * MEBIBYTE)
    (small_disk.parent / "big").write_bytes(os.urandom(40 * MEBIBYTE))
    with pytest.raises(UserError, match="no space is left there"):
        write_artifact(store, "a", {"big": small_disk.parent / "big"}, "model")
    with DatasetWriter(store, "d", Candidate) as writer:
        writer.add_media(os.urandom(3 * MEBIBYTE))
        with pytest.raises(UserError, match="no space is left there"):
            writer.commit()
    assert not [key for key in store.list() if key.endswith(MANIFEST)]
    assert [path for path in small_disk.rglob("*") if path.stat().st_size > MEBIBYTE] == []
    store.put("small", b"x" * 1000)
    assert store.get("small") == b"x" * 1000
