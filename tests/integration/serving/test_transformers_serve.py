"""The OpenAI engine against a real server that is not ours: `transformers serve` on localhost.

TRANSFORMERS_SERVE: the command that starts it ("transformers" of an environment with transformers[serving], torchvision and
accelerate, which are not among our dependencies). Skipped where it is not set.
"""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
from numpy.typing import NDArray

from unified_reward.engines.openai_engine import OpenAiEngine
from unified_reward.judge import Query, load_pack
from unified_reward.judge.judge import Judge
from unified_reward.judge.spoken import SpokenJudge
from unified_reward.models.refs import model_directory
from unified_reward.models.vlm import load_vlm
from unified_reward.records import Task
from unified_reward.store import open_store

COMMAND = os.environ.get("TRANSFORMERS_SERVE", "")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not COMMAND, reason="TRANSFORMERS_SERVE does not name the command of transformers"),
]
# The tiny tokenizer's template takes plain text; a server sends parts.
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }} {% for part in m['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
)


def pixels(digest: str) -> NDArray[np.uint8]:
    return np.random.default_rng(int(digest)).integers(0, 255, (32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    store = open_store(tmp_path_factory.mktemp("store").as_uri())
    shutil.copytree(model_directory("builtin:shapes/vlm", store, folder), folder, dirs_exist_ok=True)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [*shlex.split(COMMAND), "serve", str(model), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    process = subprocess.Popen(words)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            requests.get(f"http://127.0.0.1:{port}/health", timeout=5)
            break
        except requests.ConnectionError:
            time.sleep(0.3)
    yield f"http://127.0.0.1:{port}/v1"
    process.terminate()
    process.wait(30)


def test_what_it_says_is_what_our_own_engine_says(server: str, model: Path) -> None:
    judge = Judge(load_vlm(model_directory("builtin:shapes/vlm", open_store(model.as_uri()), model)), load_pack("shapes"),
                  pixels)  # fmt: skip
    queries = [Query(Task.IMAGE_GENERATION_POINT, f"a red ring {n}", (str(n),)) for n in range(4)]
    engine = OpenAiEngine(server, model=str(model), parallel=2, timeout=60)
    ours = [one.rationale.strip() for one in judge.spoken().score(queries)]
    theirs = [one.rationale for one in SpokenJudge(engine, judge.pack, pixels).score(queries)]
    # it leaves the head of the assistant's turn in its answer, where a chat template ends without a line break
    assert [text.removeprefix("<|im_start|>assistant").strip() for text in theirs] == ours
