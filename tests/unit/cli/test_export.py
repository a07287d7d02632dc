"""`unified-reward export`: what a run has trained, whole in the directory that was named, or not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unified_reward.cli.exporting import export
from unified_reward.errors import UserError
from unified_reward.names import STORE
from unified_reward.stages.context import COMMIT, Commit, write_pointer
from unified_reward.store import open_store, upload_directory


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home, and a store that holds the judge of run `mine` and its policy `vlm`."""
    url = (tmp_path / "store").as_uri()
    store = open_store(url)
    for node, output in (("reward-train", "judge"), ("dpo-train/vlm", "policy")):
        stage = node.split("/")[0]
        files = tmp_path / output
        (files / "unet").mkdir(parents=True)
        (files / "config.json").write_text(output)
        (files / "unet" / "weights").write_bytes(output.encode() * 100)
        ref = upload_directory(store, f"stages/{stage}/k/{output}", files, "model")
        done = Commit(stage, "k", "", {output: ref}, {}, {}, {}, {}, 1.0, 2.0)
        values = {**vars(done), "outputs": {output: ref.model_dump()}}
        store.put(f"stages/{stage}/k/{COMMIT}", json.dumps(values).encode())
        write_pointer(store, "mine", node, "k")
    monkeypatch.setenv(STORE, url)
    return tmp_path / "home"


@pytest.mark.parametrize(("policy", "output"), [("", "judge"), ("vlm", "policy")])
def test_all_files_are_there(home: Path, tmp_path: Path, policy: str, output: str) -> None:
    assert export("mine", tmp_path / "new" / "out", policy, str(home)) == 0
    assert (tmp_path / "new" / "out" / "config.json").read_text() == output
    assert (tmp_path / "new" / "out" / "unet" / "weights").read_bytes() == output.encode() * 100
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("run", "policy", "told"),
    [
        ("other", "", "RUN is other: run other has no finished reward-train in "),
        ("mine", "vml", "--policy is vml: run mine has no finished dpo-train/vml .* Policies that it has aligned: vlm"),
    ],
)
def test_what_is_not_trained_is_told(home: Path, tmp_path: Path, run: str, policy: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        export(run, tmp_path / "out", policy, str(home))
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(home: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(UserError, match=r"DIR is .*taken: it is there already"):
        export("mine", tmp_path / "taken", "", str(home))


def test_a_place_that_cannot_be_written_is_told(home: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"DIR is .*file/out: it cannot be written"):
        export("mine", tmp_path / "file" / "out", "", str(home))
