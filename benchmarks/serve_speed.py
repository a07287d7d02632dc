"""What the judge as a service costs: pictures a minute of many clients, against two peers in the same run.

    python benchmarks/serve_speed.py [--model DIR --template shapes] [--pictures 600] [--clients 16]

Peers: one request at a time against the same server, and one direct call of the judge in this process (no HTTP, no
PNG). All pictures are distinct within a way, so nothing is reused. The server and its clients share this machine's cores.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from unified_reward.judge import Query, load_pack
from unified_reward.judge.judge import Judge
from unified_reward.models.vlm import load_vlm
from unified_reward.records import Task
from unified_reward.shapes.dataset import judge_records

Pixels = NDArray[np.uint8]
Body = dict[str, Any]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--model", default=str(resources.files("unified_reward.shapes") / "weights" / "vlm"))
    arguments.add_argument("--template", default="shapes")
    arguments.add_argument("--pictures", type=int, default=600)
    arguments.add_argument("--clients", type=int, default=16)
    arguments.add_argument("--group", type=int, default=24, help="pictures of one request, as a group of GRPO")
    options = arguments.parse_args()
    torch.set_num_threads(1)

    samples = pictures(4 * options.pictures)
    parts = [samples[n * options.pictures : (n + 1) * options.pictures] for n in range(4)]
    server, address = start(options.model, options.template)
    try:
        send = sender(address)
        send([item(*samples[0])])
        table = {
            "direct_call": timed(options.pictures, lambda: direct(options.model, options.template, parts[0])),
            "one_request_at_a_time": timed(options.pictures, lambda: [send([item(*one)]) for one in parts[1]]),
            "clients_one_picture_each": timed(options.pictures, lambda: spread(send, parts[2], 1, options.clients)),
            "clients_groups": timed(options.pictures, lambda: spread(send, parts[3], options.group, options.clients)),
        }
    finally:
        server.terminate()
        server.wait(30)
    one, whole = table["one_request_at_a_time"], table["direct_call"]
    print(json.dumps({
        "pictures_per_minute": table,
        "times_one_at_a_time": {name: round(rate / one, 2) for name, rate in table.items()},
        "share_of_direct_call": {name: round(rate / whole, 2) for name, rate in table.items()},
    }, indent=1))  # fmt: skip


def pictures(count: int) -> list[tuple[str, bytes]]:
    """Captions and PNGs, all distinct."""
    found: dict[bytes, str] = {}
    for record, media in judge_records("test", 2 * count, 0, {Task.IMAGE_GENERATION_POINT: 1.0}):
        found.setdefault(distinct(media[record.media[0]], len(found)), record.prompt)
        if len(found) == count:
            break
    return [(caption, png) for png, caption in found.items()]


def distinct(png: bytes, number: int) -> bytes:
    """One corner pixel carries the number: the shapes world has fewer pictures than are needed."""
    pixels = np.array(Image.open(io.BytesIO(png)).convert("RGB"))
    pixels[0, 0] = (number & 255, number >> 8 & 255, 7)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def direct(model: str, template: str, samples: list[tuple[str, bytes]]) -> None:
    decoded = {str(n): np.asarray(Image.open(io.BytesIO(png))) for n, (_, png) in enumerate(samples)}
    judge = Judge(load_vlm(model), load_pack(template), decoded.__getitem__)
    judge.score([Query(Task.IMAGE_GENERATION_POINT, caption, (str(n),)) for n, (caption, _) in enumerate(samples)])


def item(caption: str, png: bytes) -> Body:
    return {"caption": caption, "images": [base64.b64encode(png).decode()]}


def sender(address: str) -> Callable[[list[Body]], None]:
    def send(items: list[Body]) -> None:
        request = urllib.request.Request(
            f"{address}/v1/score", json.dumps({"items": items}).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=120) as reply:
            assert len(json.load(reply)["scores"]) == len(items)

    return send


def spread(send: Callable[[list[Body]], None], samples: list[tuple[str, bytes]], group: int, clients: int) -> None:
    items = [item(*one) for one in samples]
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(send, [items[at : at + group] for at in range(0, len(items), group)]))


def timed(count: int, work: Callable[[], Any]) -> int:
    """Pictures a minute."""
    started = time.perf_counter()
    work()
    return round(60 * count / (time.perf_counter() - started))


def start(model: str, template: str) -> tuple[subprocess.Popen[str], str]:
    words = ["-m", "unified_reward.cli", "serve", "--model", model, "--template", template, "--port", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                              env=environment)  # fmt: skip
    assert server.stdout is not None
    return server, server.stdout.readline().split()[-1]


if __name__ == "__main__":
    main()
