"""What a verdict of the judge costs on one core, and how good the model is at it, per task of the shapes world.

    taskset -c 0 python benchmarks/judge_speed.py                     the base that ships
    taskset -c 0 python benchmarks/judge_speed.py --model DIR         a trained judge
    ... --profile                                                     and where the time goes

Prints JSON. All records are distinct and media are decoded anew, so nothing is reused but what one pair's two orders
share; a pair verdict is two readings. CPU time counts decoding, patches, vision, check list and verdict.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import sys
import time
from importlib import resources

import torch

from unified_reward.data.media import decode
from unified_reward.evaluation import judge_metrics
from unified_reward.judge import Query, load_pack
from unified_reward.judge.judge import Judge
from unified_reward.models.vlm import load_vlm
from unified_reward.records import JudgeRecord, Mode, Task, Verdict
from unified_reward.shapes.dataset import judge_records


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--model", default=str(resources.files("unified_reward.shapes") / "weights" / "vlm"))
    arguments.add_argument("--template", default="shapes")
    arguments.add_argument("--records", type=int, default=200, help="of each task")
    arguments.add_argument("--batch", type=int, default=128)
    arguments.add_argument("--profile", action="store_true")
    options = arguments.parse_args()
    torch.set_num_threads(1)

    records, media = held_out(options.records)
    judge = Judge(load_vlm(options.model), load_pack(options.template), lambda d: decode(media[d]), batch=options.batch)
    profile = cProfile.Profile()
    if options.profile:
        profile.enable()
    table = {task.value: measure(judge, [r for r in records if r.task is task]) for task in Task}
    profile.disable()
    print(json.dumps(table, indent=1))
    if options.profile:
        pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(30)


def held_out(count: int) -> tuple[list[JudgeRecord], dict[str, bytes]]:
    records, media = [], {}
    for task in Task:
        for record, pictures in judge_records("test", count, 0, {task: 1.0}):
            records.append(record)
            media.update(pictures)
    return records, media


def measure(judge: Judge, records: list[JudgeRecord]) -> dict[str, float | None]:
    task, queries = records[0].task, [Query.of_record(record) for record in records]
    started = time.process_time()
    verdicts: list[Verdict]
    wanted: tuple[str, ...]
    if task.mode is Mode.PAIR:
        verdicts = [
            v.record(id="", task=task, prompt_id="", first_id="1", second_id="2") for v in judge.compare(queries)
        ]
        wanted, ranges = ("accuracy", "single_order_accuracy", "swap_consistency"), {}
    else:
        verdicts = [v.record(id="", task=task, prompt_id="", first_id="1") for v in judge.score(queries)]
        wanted, ranges = ("pearson", "mae"), {task: judge.pack.point(task).range}
    spent = time.process_time() - started
    metrics = judge_metrics(records, verdicts, ranges)[task.value]
    cost = {"ms_per_verdict": round(1e3 * spent / len(records), 2)}
    return cost | {name: None if metrics[name] is None else round(metrics[name], 3) for name in wanted}


if __name__ == "__main__":
    main()
