"""Ranks as processes forked from one that has the imports behind it."""

from __future__ import annotations

import multiprocessing
import runpy
import socket
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl",
        "transformers.models.qwen3_vl.modeling_qwen3_vl",
        "transformers.models.llava_onevision.modeling_llava_onevision",
        "unified_reward.models.tiny_vlm",
        "unified_reward.training.dpo",
        "unified_reward.training.export",
        "unified_reward.training.loop",
        "unified_reward.training.sft",
    ]
)


def start(world: int, case: dict[str, Any], worker: Path) -> list[BaseProcess]:
    """The ranks, started; each is `worker` with the globals PLACE (torchrun's environment) and GIVEN (case)."""
    Path(case["out"]).mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(world):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        globals_ = {"PLACE": {key: str(value) for key, value in place.items()}, "GIVEN": case}
        process = FORKS.Process(target=runpy.run_path, args=(str(worker), globals_, "__main__"))
        process.start()
        processes.append(process)
    return processes


def run(world: int, case: dict[str, Any], worker: Path, *, expect: int | None = 0) -> str:
    """Run to the end; every rank must leave with `expect` (None: with any failure). Returns what they printed."""
    processes = start(world, case, worker)
    deadline = time.monotonic() + 120
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    text = "\n".join(path.read_text() for path in sorted(Path(case["out"]).glob("rank-*.txt")))
    assert all(code == expect for code in codes) if expect is not None else all(codes), f"{codes}\n{text}"
    return text
