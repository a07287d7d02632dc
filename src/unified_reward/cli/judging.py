"""`unified-reward judge`: ask a trained judge about files of one's own."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unified_reward.cli.console import command, output, print_json, say
from unified_reward.config import Stage
from unified_reward.config.engines import EngineName, engine_options
from unified_reward.engines.openai_engine import OpenAiEngine
from unified_reward.errors import UserError
from unified_reward.home import Home
from unified_reward.judge import load_pack
from unified_reward.judge.render import MediaSource
from unified_reward.judge.spoken import SpokenJudge
from unified_reward.judge.way import PAPER, Spoken
from unified_reward.judge_command import Verdicts, ask, read_request
from unified_reward.models.refs import model_directory
from unified_reward.names import STORE
from unified_reward.pipeline.decide import State
from unified_reward.pipeline.status import RunStatus, read_status
from unified_reward.stages.context import read_commit, read_pointer
from unified_reward.store import ObjectStore, open_artifact, open_store

if TYPE_CHECKING:
    from unified_reward.judge.judge import Judge

PROBABILITIES = "probabilities"
RUN = "run:"
DEFAULT_MODEL = "shapes"  # the demo's run; with --server: the only model it has
SERVER_KEY = "UR_SERVER_KEY"  # environment: the API key of --server
UNDECIDED = {"tie": "neither is better", "unparsed": "unreadable"}


def judge(
    *, images: Sequence[Path], videos: Sequence[Path], caption: str, question: str, answers: Sequence[str], model: str,
    template: str, read: str, samples: int, temperature: float, server: str, home: str, as_json: bool,
    engine: str = EngineName.TRANSFORMERS, options: Sequence[str] = (), device: str = "cpu", precision: str = "",
) -> int:  # fmt: skip
    vllm = read_engine(engine, options, server)
    check_elsewhere(device, precision, server=server, vllm=vllm)
    way = _way(read, samples, temperature, server, vllm is not None)
    asked = read_request(images=images, videos=videos, caption=caption, question=question, answers=answers)
    media = asked.pixels.__getitem__
    if server:
        say(f"Asking {server} ...")
        name = "" if model == DEFAULT_MODEL else model
        asked_there = OpenAiEngine(server, model=name, api_key=os.environ.get(SERVER_KEY, ""))
        verdicts: Verdicts = SpokenJudge(asked_there, load_pack(template or "default"), media, way)
    elif vllm is not None:
        directory = judge_directory(model, Home.at(home))
        say(f"Asking {model} with vLLM ...")
        [verdicts] = vllm_judges(directory, template, media, [way or Spoken()], vllm)
    else:
        loaded = judge_here(model, Home.at(home), template, media, device, precision)
        verdicts = loaded if way is None else loaded.spoken(way)
    answer = ask(verdicts, asked) | {"judge": server or model, "read": read or ("text" if way else PROBABILITIES)}
    if as_json:
        print_json(answer)
    else:
        _show(answer)
    return 0


def judge_here(model: str, home: Home, template: str, media: MediaSource, device: str, precision: str) -> Judge:
    """A judge run by transformers in this process. Raises UserError before anything is read where `device` is not there."""
    from unified_reward.judge.judge import Judge  # brings torch
    from unified_reward.models.place import place

    where, dtype = place(device, precision)
    directory = judge_directory(model, home)
    say(f"Asking {model} ...")
    warnings.filterwarnings("ignore", category=FutureWarning)  # of libraries, for those who program with them
    return Judge.load(directory, media, pack=template, device=where, dtype=dtype)


def check_elsewhere(device: str, precision: str, *, server: str = "", vllm: Mapping[str, Any] | None = None) -> None:
    """--device and --precision are of this process's engine. Raises UserError where another one answers."""
    if not server and vllm is None:
        return
    fix = "Leave it out." if server else "Leave it out, or give --engine-option dtype=float32, say."
    for option, value, default in (("--device", device, "cpu"), ("--precision", precision, "")):
        if value != default:
            why = "a server" if server else "vLLM"
            raise UserError(field=option, value=value, why=f"{why} says itself where and how it computes", fix=fix)


def write_packs_of(file: Path, folder: Path) -> int:
    """`unified-reward pack`."""
    from unified_reward.judge.published import prompt_places, read_prompts, write_packs

    unknown = sorted(set(read_prompts(file)) - set(prompt_places()))
    for path in write_packs(file, folder):
        output().print(f"{path}  {', '.join(load_pack(str(path)).tasks)}", markup=False, soft_wrap=True)
    if unknown:
        say(f"left out, as their answers are not known: {', '.join(unknown)}")
    return 0


def read_engine(engine: str, options: Sequence[str], server: str = "") -> dict[str, Any] | None:
    """--engine and --engine-option: arguments of vLLM, None = transformers. Mistakes are told before any file is read."""
    if engine not in tuple(EngineName):
        raise UserError(
            field="--engine", value=engine, why="there is no such engine", fix=f"Use {' or '.join(EngineName)}."
        )
    if engine == EngineName.TRANSFORMERS:
        if options:
            raise UserError(
                field="--engine-option", value=options[0], why="they are options of vLLM", fix="Add --engine vllm."
            )
        return None
    if server:
        raise UserError(
            field="--engine", value=engine, why="--server has an engine of its own", fix="Leave one of them out."
        )
    from unified_reward.engines.vllm_engine import require_vllm

    require_vllm()
    try:
        return engine_options(options)
    except ValueError as error:
        raise UserError(field="--engine-option", value=" ".join(options), why=str(error),
                        fix="Write max_model_len=8192, say.") from error  # fmt: skip


def vllm_judges(
    directory: Path, template: str, media: MediaSource, ways: Sequence[Spoken], options: Mapping[str, Any]
) -> list[SpokenJudge]:
    """A judge run by vLLM, loaded once for all the ways to ask it."""
    from unified_reward.engines.vllm_engine import VllmEngine
    from unified_reward.judge.judge import pack_of  # brings torch

    pack, engine = pack_of(directory, template), VllmEngine(str(directory), **options)
    return [SpokenJudge(engine, pack, media, way) for way in ways]


def _way(read: str, samples: int, temperature: float, server: str, vllm: bool = False) -> Spoken | None:
    """How to read the verdicts; None = from probabilities."""
    if read not in ("", PROBABILITIES, "text", "paper"):
        raise UserError(field="--read", value=read, why="there is no such way",
                        fix="Use probabilities, text or paper.")  # fmt: skip
    if vllm and read == PROBABILITIES:
        raise UserError(field="--read", value=read, why="vLLM tells no log-probs of strings of our choice",
                        fix="Leave it out, or use --engine transformers.")  # fmt: skip
    if server and read == PROBABILITIES:
        raise UserError(field="--read", value=read, why="a server tells no log-probs of strings of our choice",
                        fix="Leave it out, or name a judge with --model instead of --server.")  # fmt: skip
    spoken = bool(server) or vllm or read in ("text", "paper")
    if samples > 1 and (not spoken or read == "paper"):
        raise UserError(field="--samples", value=samples, why="only answers read as text differ from sample to sample",
                        fix="Add --read text.")  # fmt: skip
    if samples > 1 and temperature == 0:
        raise UserError(field="--temperature", value=0, why="all samples would be the same", fix="Set it to 0.7, say.")
    if read == "paper":
        return PAPER
    return Spoken(samples=samples, temperature=temperature if samples > 1 else 0.0) if spoken else None


def judge_directory(model: str, home: Home) -> Path:
    """Files of a judge. model: a run's name (or run:NAME), a directory, store:PREFIX or builtin:NAME.

    store: and runs are looked for in $UR_STORE where it is set, else in what is kept here.
    """
    name = model.removeprefix(RUN)
    if name == model and (":" in model or Path(model).is_dir()):
        return model_directory(model, _store(home), home.work / "artifacts")
    if "/" in name or name in ("", ".", ".."):
        why = "there is no such directory" if name == model else "no run has such a name"
        raise UserError(field="--model", value=model, why=why,
                        fix="Name a run, or a directory of Hugging Face files.")  # fmt: skip
    in_store = _judge_in_store(name, home) if os.environ.get(STORE) else None
    return in_store or _judge_of(_run_here(name, home), home)


def _store(home: Home) -> ObjectStore:
    return open_store(home.named_store_url, create=not os.environ.get(STORE))


def _judge_in_store(run: str, home: Home) -> Path | None:
    """The judge that a run has in $UR_STORE now, None when it has none there."""
    store, stage = _store(home), Stage.REWARD_TRAIN.value
    key = read_pointer(store, run, stage)
    done = read_commit(store, stage, key) if key else None
    return open_artifact(store, done.outputs["judge"]).materialise(home.work / "artifacts") if done else None


def _run_here(name: str, home: Home) -> RunStatus:
    try:
        return read_status(home, name)
    except UserError as error:
        if not os.environ.get(STORE):
            raise
        raise UserError(
            field="--model", value=name, why=f"no run of this name has a judge in {home.named_store_url} or in {home.root}",
            fix="Name a run whose reward-train is done, or store:PREFIX.",
        ) from error  # fmt: skip


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
        if answer["contradictory"]:
            shown = "first" if answer["p_first_shown_first"] > 0.5 else "second"
            lines.append(
                f"    careful: the two orders contradict each other; either item is preferred when shown {shown}"
            )
        for place, text in ((0, answer["rationale"]), (1, answer["rationale_swapped"])):
            lines += [f"    reasons with {names[place]} shown first: {text.strip()}"] if text else []
    for name, item in zip(names, answer["items"], strict=True):
        if item["score"] is not None:
            low, high = answer["scale"]
            lines.append(f"{name}: {item['score']:.2f} on a scale from {low:g} to {high:g}")
            aspects = ", ".join(f"{label.rstrip(':')} {value:.2f}" for label, value in item["aspects"].items())
            lines += [f"    {aspects}"] if aspects else []
            lines += [f"    reasons: {item['rationale'].strip()}"] if item["rationale"] else []
    output().print("\n".join(lines), markup=False, soft_wrap=True)


def _probabilities(answer: dict[str, Any]) -> str:
    orders = answer["p_first_shown_first"], answer["p_first_shown_second"]
    if None in orders:
        return {"tie": "the two are the same", "unparsed": "no verdict in what it says"}.get(
            answer["verdict"], "one order"
        )
    return f"P(first) = {answer['p_first']:.3f} ({orders[0]:.3f} shown first, {orders[1]:.3f} shown second)"
