"""`unified-reward judge`: ask a trained judge about files of one's own."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unified_reward.cli.console import command, output, print_json, say
from unified_reward.config import Stage
from unified_reward.errors import UserError
from unified_reward.home import Home
from unified_reward.judge_command import ask, read_request
from unified_reward.models.refs import model_directory
from unified_reward.pipeline.decide import State
from unified_reward.pipeline.status import RunStatus, read_status
from unified_reward.stages.context import read_commit
from unified_reward.store import open_artifact, open_store

UNDECIDED = {"tie": "neither is better", "unparsed": "unreadable"}


def judge(
    *, images: Sequence[Path], videos: Sequence[Path], caption: str, question: str, answers: Sequence[str], model: str,
    template: str, home: str, as_json: bool,
) -> int:  # fmt: skip
    asked = read_request(images=images, videos=videos, caption=caption, question=question, answers=answers)
    directory = judge_directory(model, Home.at(home))
    say(f"Asking {model} ...")
    from unified_reward.judge.judge import Judge  # brings torch

    warnings.filterwarnings("ignore", category=FutureWarning)  # of libraries, for those who program with them
    answer = ask(Judge.load(directory, asked.pixels.__getitem__, pack=template), asked) | {"judge": model}
    if as_json:
        print_json(answer)
    else:
        _show(answer)
    return 0


def judge_directory(model: str, home: Home) -> Path:
    """Files of a judge. model: a run's name, a directory, store:PREFIX or builtin:NAME."""
    if ":" in model or Path(model).is_dir():
        return model_directory(model, open_store(home.store_url), home.work / "artifacts")
    if "/" in model:
        raise UserError(field="--model", value=model, why="there is no such directory",
                        fix="Name a run, or a directory of Hugging Face files.")  # fmt: skip
    return _judge_of(read_status(home, model), home)


def _judge_of(found: RunStatus, home: Home) -> Path:
    stage = found.stages[Stage.REWARD_TRAIN.value]
    store = open_store(found.store, create=False)
    done = read_commit(store, stage.stage, stage.key) if stage.state is State.DONE else None
    if done is None:
        raise UserError(field="--model", value=found.name, why="this run has not trained its judge yet",
                        fix=f"Run it first: {command(*found.again)}.")  # fmt: skip
    return open_artifact(store, done.outputs["judge"]).materialise(home.work / "artifacts")


def _show(answer: dict[str, Any]) -> None:
    lines = []
    names = [f"{place}. {item['item']}" for place, item in enumerate(answer["items"], start=1)]
    if "verdict" in answer:
        better = {str(place): f"{name} is better" for place, name in enumerate(names, start=1)}
        lines.append(f"{(better | UNDECIDED)[answer['verdict']]}: {_probabilities(answer)}")
        for place, text in ((0, answer["rationale"]), (1, answer["rationale_swapped"])):
            lines += [f"    reasons with {names[place]} shown first: {text.strip()}"] if text else []
    for name, item in zip(names, answer["items"], strict=True):
        if item["score"] is not None:
            low, high = answer["scale"]
            lines.append(f"{name}: {item['score']:.2f} on a scale from {low:g} to {high:g}")
            lines += [f"    reasons: {item['rationale'].strip()}"] if item["rationale"] else []
    output().print("\n".join(lines), markup=False, soft_wrap=True)


def _probabilities(answer: dict[str, Any]) -> str:
    orders = answer["p_first_shown_first"], answer["p_first_shown_second"]
    if None in orders:
        return "the two are the same"
    return f"P(first) = {answer['p_first']:.3f} ({orders[0]:.3f} shown first, {orders[1]:.3f} shown second)"
