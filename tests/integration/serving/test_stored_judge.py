"""`unified-reward serve` where a pod stands: nothing at home, the judge of a run in $UR_STORE."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from unified_reward.cli.judging import judge_directory
from unified_reward.errors import UserError
from unified_reward.home import STORE, Home
from unified_reward.models.refs import directory_digest, model_directory
from unified_reward.stages.context import COMMIT, Commit, write_pointer
from unified_reward.store import ArtifactRef, ObjectStore, open_store, upload_directory

pytestmark = pytest.mark.integration
KEY, PREFIX = "0123abcd", "stages/reward-train/0123abcd/judge"


@pytest.fixture
def trained(store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArtifactRef:
    """A judge in $UR_STORE, as the reward-train of run `shapes` commits it."""
    store = open_store(store_url)
    judge = upload_directory(store, PREFIX, _packaged(store, tmp_path), "model")
    done = Commit("reward-train", KEY, "", {"judge": judge}, {}, {}, {}, {}, 1.0, 2.0)
    store.put(f"stages/reward-train/{KEY}/{COMMIT}", _json(done))
    write_pointer(store, "shapes", "reward-train", KEY)
    monkeypatch.setenv(STORE, store_url)
    return judge


def _packaged(store: ObjectStore, cache: Path) -> Path:
    return model_directory("builtin:shapes/vlm", store, cache)


def _json(done: Commit) -> bytes:
    outputs = {name: ref.model_dump() for name, ref in done.outputs.items()}
    return json.dumps({**vars(done), "outputs": outputs}).encode()


@pytest.mark.parametrize("model", ["shapes", "run:shapes", f"store:{PREFIX}"])
def test_a_judge_is_brought_from_the_store_that_is_named(trained: ArtifactRef, tmp_path: Path, model: str) -> None:
    assert trained.prefix == PREFIX
    home = Home.at(str(tmp_path / "pod"))
    found = judge_directory(model, home)
    assert found.is_relative_to(home.work)
    assert directory_digest(found) == directory_digest(_packaged(open_store(tmp_path.as_uri()), tmp_path))


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("other", "--model is other: no run of this name has a judge in "),
        ("run:other", "--model is other: no run of this name has a judge in "),
        ("run:", "--model is run:: no run has such a name"),
        ("run:a/b", "--model is run:a/b: no run has such a name"),
        ("a/b", "--model is a/b: there is no such directory"),
        ("store:stages/reward-train/none/judge", f"it was never committed .* Last committed nearby: {PREFIX}"),
    ],
)
def test_a_judge_that_is_not_there_is_told(trained: ArtifactRef, tmp_path: Path, model: str, told: str) -> None:
    assert trained
    with pytest.raises(UserError, match=told):
        judge_directory(model, Home.at(str(tmp_path / "pod")))


def test_it_is_served(trained: ArtifactRef, tmp_path: Path) -> None:
    with _served("run:shapes", tmp_path / "pod") as address:
        models = requests.get(f"{address}/v1/models", timeout=10).json()
    assert [one["id"] for one in models["data"]] == ["shapes"]
    assert trained


@contextmanager
def _served(model: str, home: Path) -> Iterator[str]:
    words = [
        sys.executable,
        "-m",
        "unified_reward.cli",
        "serve",
        "--model",
        model,
        "--template",
        "shapes",
        "--port",
        "0",
    ]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env={**os.environ, "UR_HOME": str(home)})
    assert process.stdout is not None
    try:
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                if requests.get(f"{found[0]}/readyz", timeout=5).ok:
                    break
            except requests.ConnectionError:
                time.sleep(0.1)
        yield found[0]
    finally:
        process.terminate()
        process.wait(30)
