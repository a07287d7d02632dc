"""What a judge SFT step of the shapes world costs in one process, and in two FSDP processes on gloo.

    taskset -c 0 python benchmarks/train_speed.py                        one process on one core
    python benchmarks/train_speed.py --processes 2                       two, each on a core of its own

Prints JSON: wall and CPU seconds a step (median over steps, CPU summed over processes), and where a step's CPU goes with
`--profile`. The batch is global: two processes share the same 32 examples.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--processes", type=int, default=1)
    arguments.add_argument("--steps", type=int, default=30)
    arguments.add_argument("--batch", type=int, default=32)
    arguments.add_argument("--records", type=int, default=400)
    arguments.add_argument("--optimizer", choices=["muon", "adamw"], default="muon")
    arguments.add_argument("--units", choices=["root", "blocks"], default="root")
    arguments.add_argument("--cores", type=int, nargs="*", help="pin rank i to the i-th of these")
    arguments.add_argument("--profile", action="store_true")
    options = arguments.parse_args()
    if "RANK" in os.environ or options.processes == 1:
        measure(options)
    else:
        sys.exit(launch(options.processes))


def launch(processes: int) -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    world = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen([sys.executable, *sys.argv], env={**os.environ, **world, "RANK": str(r), "LOCAL_RANK": str(r)})
        for r in range(processes)
    ]
    return max(rank.wait() for rank in ranks)


def measure(options: argparse.Namespace) -> None:
    import torch

    from fsdp_utils.context import DistContext
    from unified_reward.config import TrainLoopConfig
    from unified_reward.training import loop

    torch.set_num_threads(1)
    dist = DistContext.init("cpu")
    if options.cores:
        os.sched_setaffinity(0, {options.cores[dist.rank % len(options.cores)]})
    objective = judge_objective(options.records, dist)
    config = TrainLoopConfig(
        processes=options.processes,
        steps=options.steps,
        global_batch=options.batch,
        optimizer=options.optimizer,
        shard_units=options.units,
    )
    marks: list[tuple[float, float]] = []
    step = loop._Run.step

    def timed(self: Any, batch: Any) -> None:
        step(self, batch)
        marks.append((time.perf_counter(), time.process_time()))

    loop._Run.step = timed  # type: ignore[method-assign]
    profiler = torch.profiler.profile() if options.profile and dist.is_main else None
    if profiler:
        profiler.start()
    result = loop.train(objective, dataset_size=options.records, config=config, dist=dist)
    if profiler:
        profiler.stop()
        print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=45, max_name_column_width=45))
    skip = 3
    walls = [b[0] - a[0] for a, b in zip(marks[skip:], marks[skip + 1 :], strict=False)]
    cpus = [b[1] - a[1] for a, b in zip(marks[skip:], marks[skip + 1 :], strict=False)]
    everyone = dist.gather_objects(cpus)
    if dist.is_main:
        print(
            json.dumps(
                {
                    "processes": dist.world_size, "optimizer": options.optimizer, "units": options.units,
                    "step_wall_s": round(statistics.median(walls), 4),
                    "step_cpu_s_by_rank": [round(statistics.median(c), 4) for c in everyone],
                    "loss": round(result.last["loss"], 5),
                }
            )
        )  # fmt: skip
    dist.close()


def judge_objective(records: int, dist: Any) -> Any:
    import unified_reward
    from unified_reward.data.media import decode
    from unified_reward.judge import load_pack
    from unified_reward.judge.render import record_segments
    from unified_reward.models.batching import encode
    from unified_reward.models.vlm import load_vlm
    from unified_reward.shapes.dataset import judge_records
    from unified_reward.training.sft import SftObjective

    vlm = load_vlm(Path(unified_reward.__file__).parent / "shapes/weights/vlm")
    pack, media, rows = load_pack("shapes"), {}, []
    for record, blobs in judge_records("train", records, 0):
        rows.append(record)
        media.update({digest: decode(data) for digest, data in blobs.items()})
    return SftObjective(
        vlm, lambda i: encode(vlm.processor, record_segments(rows[i], pack, media.__getitem__, vlm.processor)), dist
    )


if __name__ == "__main__":
    main()
