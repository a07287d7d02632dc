"""`unified-reward serve` as a process: verdicts equal the judge's own, clients share batches, bad input is told, a full
queue refuses, and SIGTERM loses nothing."""

from __future__ import annotations

import base64
import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from numpy.typing import NDArray
from PIL import Image

from unified_reward.engines import Sampling
from unified_reward.engines.openai_engine import OpenAiEngine
from unified_reward.engines.transformers_engine import TransformersEngine
from unified_reward.judge import Query, load_pack
from unified_reward.judge.judge import Judge
from unified_reward.models.batching import Segment
from unified_reward.models.refs import model_directory
from unified_reward.models.vlm import load_vlm
from unified_reward.records import Task
from unified_reward.store import open_store

pytestmark = pytest.mark.integration
CAPTION = "a small red ring at the left on a white background"
MODEL = ["--model", "builtin:shapes/vlm", "--template", "shapes", "--name", "shapes"]


def pixels(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 255, (32, 32, 3), dtype=np.uint8)


def url(seed: int) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels(seed)).save(file, format="PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def start(home: Path, *options: str, **environment: str) -> tuple[subprocess.Popen[str], str]:
    words = [sys.executable, "-m", "unified_reward.cli", "serve", *MODEL, "--port", "0", "--home", str(home), *options]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"http://\S+", line)
    assert found, line
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if requests.get(f"{found[0]}/readyz", timeout=5).ok:
                return process, found[0]
        except requests.ConnectionError:
            time.sleep(0.1)
    raise AssertionError("the server did not become ready")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    process, address = start(tmp_path_factory.mktemp("home"))
    yield address
    process.terminate()
    assert process.wait(30) in (0, -signal.SIGTERM)


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    folder = tmp_path_factory.mktemp("store")
    directory = model_directory("builtin:shapes/vlm", open_store(folder.as_uri()), folder)
    return Judge(load_vlm(directory), load_pack("shapes"), lambda digest: pixels(int(digest)))


def post(address: str, path: str, body: Any, **more: Any) -> requests.Response:
    return requests.post(f"{address}{path}", json=body, timeout=60, **more)


def test_many_clients_get_the_judges_own_verdicts_and_share_batches(server: str, judge: Judge) -> None:
    wanted = judge.score([Query(Task.IMAGE_GENERATION_POINT, CAPTION, (str(seed),)) for seed in range(24)])

    def score(seed: int) -> float:
        answer = post(server, "/v1/score", {"items": [{"caption": CAPTION, "images": [url(seed)]}]}).json()
        return float(answer["scores"][0]["score"])

    with ThreadPoolExecutor(12) as clients:
        scores = list(clients.map(score, range(24)))
    assert scores == pytest.approx([one.score for one in wanted], abs=1e-4)
    page = requests.get(f"{server}/metrics", timeout=10).text
    batches = re.search(r'unified_reward_batch_items_count\{kind="score"\} (\d+)', page)
    assert batches
    assert int(batches[1]) < 24
    assert re.search(r'unified_reward_requests_total\{code="200",path="/v1/score"\} 24\n', page)


def test_compare_asks_both_orders(server: str, judge: Judge) -> None:
    (wanted,) = judge.compare([Query(Task.IMAGE_GENERATION_PAIR, CAPTION, ("1", "2"))])
    body = {"items": [{"caption": CAPTION, "images": [url(1), url(2)]}] * 2, "details": True}
    first, again = post(server, "/v1/compare", body).json()["comparisons"]
    assert first == again
    assert (first["p_first"], first["verdict"]) == (pytest.approx(wanted.p_first, abs=1e-4), wanted.choice)
    assert (first["rationale"], first["contradictory"]) == (wanted.rationale, wanted.contradictory)


def test_the_openai_engine_writes_what_the_model_in_this_process_writes(server: str, judge: Judge) -> None:
    turns = [[Segment(image=pixels(seed)), Segment(text=" what color is the ring ?")] for seed in range(4)]
    sampling = Sampling(max_new_tokens=12)
    told = OpenAiEngine(f"{server}/v1").write(turns, sampling)
    assert [one.text for one in told] == [one.text for one in TransformersEngine(judge.vlm).write(turns, sampling)]
    drawn = OpenAiEngine(f"{server}/v1").write(turns * 2, Sampling(12, temperature=1.0), [5] * 8)
    assert drawn[:4] == drawn[4:]


@pytest.mark.parametrize(
    ("path", "body", "code", "field", "why"),
    [
        ("/v1/score", {"items": []}, 422, "items", "at least 1 item"),
        ("/v1/score", {"items": [{"caption": "x"}]}, 422, "items[0].images", "an item has images or videos"),
        ("/v1/score", {"items": [{"images": ["AA"]}]}, 422, "items[0].caption", "a caption or a question"),
        ("/v1/score", {"items": [{"caption": "x", "images": ["%%"]}]}, 422, "items[0].images[0]", "nor base64"),
        ("/v1/score", {"items": [{"caption": "x", "images": ["aGVsbG8="]}]}, 422, "items[0].images[0]", ""),
        ("/v1/score", {"items": [{"caption": "x", "images": ["http://10.0.0.1/a"]}]}, 422, "items[0].images[0]",
         "fetches no such address"),
        ("/v1/score", {"items": [{"caption": "x", "image": "AA"}]}, 422, "items.0.image", "extra inputs"),
        ("/v1/compare", {"items": [{"caption": "x", "images": [url(1)]}]}, 422, "items[0].images", "2 are judged"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "stream": True}, 422, "stream", ""),
        ("/v1/chat/completions", {"model": "gpt", "messages": [{"role": "user", "content": "hi"}]}, 422, "model",
         "no such model"),
    ],
)  # fmt: skip
def test_bad_input_names_its_field(server: str, path: str, body: Any, code: int, field: str, why: str) -> None:
    reply = post(server, path, body)
    error = reply.json()["error"]
    assert (reply.status_code, error["param"]) == (code, field)
    assert why in error["why"]
    assert error["fix"]


def test_a_body_that_is_no_json_and_one_of_unknown_length(server: str) -> None:
    as_json = {"Content-Type": "application/json"}
    assert requests.post(f"{server}/v1/score", data=b"{", headers=as_json, timeout=10).status_code == 400
    assert requests.post(f"{server}/v1/score", data=iter([b"{}"]), timeout=10).status_code == 411


def test_the_description_tells_what_is_answered(server: str) -> None:
    described = requests.get(f"{server}/openapi.json", timeout=10).json()
    for path in ("/v1/score", "/v1/compare", "/v1/chat/completions"):
        answers = described["paths"][path]["post"]["responses"]
        assert set(answers) == {"200", "400", "401", "411", "413", "422", "429", "503"}
        refused = {answers[code]["content"]["application/json"]["schema"]["$ref"] for code in set(answers) - {"200"}}
        assert refused == {"#/components/schemas/Refused"}
    fields = set(described["components"]["schemas"]["Fault"]["properties"])
    assert set(post(server, "/v1/score", {"items": []}).json()["error"]) == fields
    page = requests.get(f"{server}/docs", timeout=10).text
    assert "POST /v1/score" in page
    assert "429 The queue is full" in page


def test_a_client_that_dies_takes_nobody_along(server: str) -> None:
    host, port = server.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as dying:
        dying.sendall(
            b"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n{"
        )
    assert post(server, "/v1/score", {"items": [{"caption": CAPTION, "images": [url(3)]}]}).ok


def test_a_full_queue_refuses_and_sigterm_finishes_what_is_queued(tmp_path: Path) -> None:
    process, address = start(tmp_path, "--queue", "64", "--batch", "8", UR_SERVE_TOKEN="secret")
    body = {"items": [{"caption": CAPTION, "images": [url(1000 + seed)]} for seed in range(32)]}
    right = {"headers": {"Authorization": "Bearer secret"}}
    assert post(address, "/v1/score", body).status_code == 401
    with ThreadPoolExecutor(16) as clients:
        replies = list(clients.map(lambda _: post(address, "/v1/compare", _pairs(), **right), range(16)))
        codes = {reply.status_code for reply in replies}
        assert codes == {200, 429}
        assert all(int(reply.headers["Retry-After"]) >= 1 for reply in replies if reply.status_code == 429)
        late = clients.submit(post, address, "/v1/score", body, **right)
        deadline = time.monotonic() + 20
        while not (_in_flight(address) or late.done()) and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGTERM)
        assert late.result(60).status_code == 200
    assert process.wait(30) in (0, -signal.SIGTERM)


def _pairs() -> dict[str, Any]:
    return {"items": [{"caption": f"{CAPTION} {n}", "images": [url(n), url(n + 1)]} for n in range(32)]}


def _in_flight(address: str) -> int:
    page = requests.get(f"{address}/metrics", timeout=10).text
    return int(re.findall(r"requests_in_flight (\d+)\n", page)[0])
