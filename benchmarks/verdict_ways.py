"""Verdicts from probabilities against verdicts from text, on held-out records of the shapes world.

    python benchmarks/verdict_ways.py --model DIR [--records 200] [--samples 5]

Ways: probabilities (both orders), one order of them, text (greedy, both orders), text with the majority of K samples, and
paper (one order, read as the released scripts do). Accuracy is the share of pairs whose better item is named; a tie or an
unread verdict is not right. Pearson is that of the scores.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from judge_speed import held_out

from unified_reward.data.media import decode
from unified_reward.judge import Query
from unified_reward.judge.judge import Judge
from unified_reward.judge.verdict import PairVerdict, PointVerdict
from unified_reward.judge.way import PAPER, Spoken
from unified_reward.records import Choice, JudgeRecord, Mode, Task


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--model", required=True, help="directory of a trained judge")
    arguments.add_argument("--records", type=int, default=200, help="of each task")
    arguments.add_argument("--samples", type=int, default=5)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    records, media = held_out(options.records)
    judge = Judge.load(options.model, lambda digest: decode(media[digest]))
    sampled = Spoken(samples=options.samples, temperature=1.0)
    ways: dict[str, Any] = {
        "probabilities": judge, "text": judge.spoken(), f"text, {options.samples} samples": judge.spoken(sampled),
        "paper": judge.spoken(PAPER),
    }  # fmt: skip
    for name, asked in ways.items():
        row: dict[str, Any] = {}
        started = time.process_time()
        for task in Task:
            own = [record for record in records if record.task is task]
            queries = [Query.of_record(record) for record in own]
            row[task.value] = (
                pairs(own, asked.compare(queries)) if task.mode is Mode.PAIR else points(own, asked.score(queries))
            )
        row["cpu_seconds"] = round(time.process_time() - started, 1)
        print(json.dumps({name: row}), flush=True)


def pairs(records: Sequence[JudgeRecord], verdicts: Sequence[PairVerdict]) -> dict[str, float]:
    named = [(r.choice, v) for r, v in zip(records, verdicts, strict=True) if r.choice in (Choice.FIRST, Choice.SECOND)]
    one_order = [v.p_first_shown_first for _, v in named]
    single = [
        p is not None and p != 0.5 and (p > 0.5) == (choice is Choice.FIRST)
        for (choice, _), p in zip(named, one_order, strict=True)
    ]
    return {
        "accuracy": round(sum(choice is v.choice for choice, v in named) / len(named), 3),
        "one_order": round(sum(single) / len(named), 3),
        "ties": round(sum(v.choice is Choice.TIE for _, v in named) / len(named), 3),
        "unparsed": round(sum(v.choice is Choice.UNPARSED for _, v in named) / len(named), 3),
    }


def points(records: Sequence[JudgeRecord], verdicts: Sequence[PointVerdict]) -> dict[str, float]:
    both = [(r.score, v.score) for r, v in zip(records, verdicts, strict=True) if v.score is not None]
    pearson = float(np.corrcoef(np.array(both, dtype=float).T)[0, 1]) if len(both) > 2 else math.nan
    return {"pearson": round(pearson, 3), "unparsed": round(1 - len(both) / len(records), 3)}


if __name__ == "__main__":
    main()
