"""The OpenAI engine against a real server that is not ours: `transformers serve` on localhost, with the shapes judge.

`make integration` installs what it needs beside the environment, in .venv/transformers-serve (58 MB): with torchvision in the
environment transformers prepares pictures in other ways, and beside a CPU build of torch it could not be imported.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
from numpy.typing import NDArray

from unified_reward.data.media import decode
from unified_reward.engines import Engine, Sampling
from unified_reward.engines.openai_engine import OpenAiEngine
from unified_reward.errors import UserError
from unified_reward.judge import Query, load_pack
from unified_reward.judge.judge import Judge
from unified_reward.judge.render import user_segments
from unified_reward.judge.spoken import SpokenJudge
from unified_reward.judge.way import Spoken
from unified_reward.models.refs import model_directory
from unified_reward.models.vlm import load_vlm
from unified_reward.records import Mode, Task
from unified_reward.shapes.dataset import judge_records
from unified_reward.store import open_store

INSTALLED = Path(sys.prefix) / "transformers-serve"
COMMAND = Path(__file__).with_name("transformers_command.py")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not INSTALLED.is_dir(), reason="make integration installs what `transformers serve` needs"),
]
TASKS = (Task.IMAGE_GENERATION_PAIR, Task.IMAGE_UNDERSTANDING_PAIR, Task.IMAGE_GENERATION_POINT,
         Task.IMAGE_UNDERSTANDING_POINT)  # fmt: skip
# The tiny tokenizer's template takes plain text; a server sends parts.
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }} {% for part in m['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
)


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    return model_directory("builtin:shapes/vlm", open_store(folder.as_uri()), folder)


@pytest.fixture(scope="module")
def model(packaged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    shutil.copytree(packaged, folder, dirs_exist_ok=True)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    told = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(told | {"do_sample": True}))
    return folder


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["serve", str(model), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    alone = {**os.environ, "PYTHONPATH": str(INSTALLED), "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen([sys.executable, str(COMMAND), *words], env=alone)
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the server left with {process.returncode}"
        try:
            if requests.get(url, timeout=5).ok:
                return
        except requests.ConnectionError:
            time.sleep(0.3)
    raise AssertionError("the server did not answer")


class World:
    """Held-out pairs and items with pictures, and the base judge, which has learned check lists but no verdicts yet."""

    def __init__(self, model: Path) -> None:
        self.queries: dict[Task, list[Query]] = {}
        self.files: dict[str, bytes] = {}
        for task in TASKS:
            made = list(judge_records("test", 3, 0, {task: 1.0}))
            self.queries[task] = [Query.of_record(record) for record, _ in made]
            self.files |= {digest: file for _, files in made for digest, file in files.items()}
        self.judge = Judge(load_vlm(model), load_pack("shapes"), self.pixels)

    def pixels(self, digest: str) -> NDArray[np.uint8]:
        return decode(self.files[digest])

    def behind(self, engine: Engine, way: Spoken | None = None) -> SpokenJudge:
        return SpokenJudge(engine, self.judge.pack, self.pixels, way)


@pytest.fixture(scope="module")
def world(packaged: Path) -> World:
    return World(packaged)


@pytest.fixture(scope="module")
def engine(server: str, model: Path) -> OpenAiEngine:
    return OpenAiEngine(server, model=str(model), parallel=2, timeout=60)


@pytest.mark.parametrize("task", TASKS)
def test_what_it_says_is_what_our_own_engine_says(engine: OpenAiEngine, world: World, task: Task) -> None:
    """Two pictures, or a picture and two answers, in both orders; one picture, or a picture and an answer."""
    queries = world.queries[task]
    if task.mode is Mode.PAIR:
        pairs = zip(world.behind(engine).compare(queries), world.judge.spoken().compare(queries), strict=True)
        words = [(said(their.rationale_swapped), said(our.rationale_swapped)) for their, our in pairs]
    else:
        items = zip(world.behind(engine).score(queries), world.judge.spoken().score(queries), strict=True)
        words = [(said(their.rationale), said(our.rationale)) for their, our in items]
    assert [their for their, _ in words] == [our for _, our in words]
    assert all(our for _, our in words)


def test_it_draws_only_when_it_is_asked_to(engine: OpenAiEngine, world: World) -> None:
    """The checkpoint draws by its own defaults, as released ones do, so greedy answers show that 0 was sent."""
    (turn,) = [user_segments(world.queries[TASKS[0]][0], world.judge.pack, world.pixels, engine.control_tokens)]
    assert len({one.text for one in engine.write([turn] * 3, Sampling(12))}) == 1
    assert len({one.text for one in engine.write([turn] * 6, Sampling(12, temperature=5.0))}) > 1


def test_what_it_refuses_is_one_line(server: str, world: World) -> None:
    other = OpenAiEngine(server, model="no-such-model", retries=0, timeout=60)
    with pytest.raises(UserError, match=r"it answered 4\d\d .*no-such-model"):
        world.behind(other).score(world.queries[Task.IMAGE_GENERATION_POINT])


def said(text: str) -> str:
    """It leaves the head of the assistant's turn in its answer, where a chat template ends without a line break."""
    return text.removeprefix("<|im_start|>assistant").strip()
