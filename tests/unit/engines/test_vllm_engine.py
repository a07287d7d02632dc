"""What is sent to vLLM and read from it, and where it can be chosen. It stands in here: no model, the documented interface."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from unified_reward import cli
from unified_reward.config import GenerateConfig, PolicyKind, Stage, StageSpec
from unified_reward.engines import Sampling, Token
from unified_reward.engines.vllm_engine import VllmEngine
from unified_reward.errors import UserError
from unified_reward.models.batching import Segment
from unified_reward.records import Modality, Prompt, Subject
from unified_reward.stages import generate
from unified_reward.stages.context import StageContext
from unified_reward.store import open_store

PICTURE = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
TURN = [Segment(image=PICTURE), Segment(" what"), Segment(" is it?"), Segment(video=np.stack([PICTURE, PICTURE + 1]))]


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(Path(__file__).with_name("stand_in")))
    yield importlib.import_module("vllm")
    del sys.modules["vllm"]


def test_a_turn_is_parts_in_their_order_and_pictures_keep_their_pixels(vllm: Any) -> None:
    engine = VllmEngine("dir", max_model_len=4096)
    assert [one.text for one in engine.write([TURN], Sampling())] == ["yes"]
    (llm,) = vllm.LLM.made
    ((parts, _),) = llm.asked
    assert [part["type"] for part in parts] == ["image_pil", "text", "image_pil", "image_pil"]
    assert parts[1]["text"] == " what is it?"
    for part, pixels in ((parts[0], PICTURE), (parts[2], PICTURE), (parts[3], PICTURE + 1)):
        assert np.array_equal(np.asarray(part["image_pil"]), pixels)
    assert llm.arguments["dtype"] == "bfloat16"
    assert llm.arguments["max_model_len"] == 4096
    assert engine.control_tokens == ("<|im_end|>", "<|image_pad|>")
    assert engine.write([], Sampling()) == []


def test_samples_bear_their_seeds_and_greedy_answers_none(vllm: Any) -> None:
    engine = VllmEngine("dir")
    engine.write([TURN, TURN], Sampling(9, 0.7, 0.9), [1, (1 << 63) - 1])
    engine.write([TURN], Sampling(9), [5])
    params = [params for _, params in vllm.LLM.made[0].asked]
    assert [(one.seed, one.temperature, one.top_p, one.max_tokens) for one in params] == [
        (1, 0.7, 0.9, 9), ((1 << 63) - 1, 0.7, 0.9, 9), (None, 0.0, 1.0, 9),
    ]  # fmt: skip


def test_a_stop_stands_at_the_end_and_a_cut_answer_is_not_finished(vllm: Any) -> None:
    vllm.LLM.says = lambda _: ["it", " is", " red", ".", " So", " what"]
    engine = VllmEngine("dir")
    (stopped,) = engine.write([TURN], Sampling(stop=(".",)))
    (cut,) = engine.write([TURN], Sampling(2))
    assert (stopped.text, stopped.finished, stopped.tokens) == ("it is red.", True, ())
    assert (cut.text, cut.finished) == ("it is", False)


def test_alternatives_are_told_for_each_token(vllm: Any) -> None:
    vllm.LLM.says = lambda _: ["a", " 2"]
    (written,) = VllmEngine("dir").write([TURN], Sampling(2, alternatives=20))
    assert written.tokens == (Token("a", {"a": -0.25, "a!": -1.5}), Token(" 2", {" 2": -0.25, " 2!": -1.5}))


@pytest.mark.parametrize(
    ("given", "place", "gpus", "seen"), [(None, 0, 1, "0"), (None, 3, 2, "6,7"), ("GPU-a,GPU-b", 1, 1, "GPU-b")]
)
def test_each_engine_has_a_process_with_its_own_gpus_and_nothing_of_torchrun(
    vllm: Any, monkeypatch: pytest.MonkeyPatch, given: str | None, place: int, gpus: int, seen: str
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_USE_AGENT_STORE"):
        monkeypatch.setenv(name, "1")
    if given:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    before = dict(os.environ)
    VllmEngine("dir", place=place, tensor_parallel_size=gpus)
    assert dict(os.environ) == before
    inside = vllm.LLM.made[0].environment
    assert inside["CUDA_VISIBLE_DEVICES"] == seen
    assert inside["VLLM_WORKER_MULTIPROC_METHOD"] == "spawn"
    assert {name for name in before if name not in inside} == {
        name
        for name in before
        if "RANK" in name or name.startswith(("MASTER_", "TORCHELASTIC_")) or name == "WORLD_SIZE"
    }
    assert vllm.LLM.made[0].arguments["tensor_parallel_size"] == gpus


def test_mistakes_are_one_line(vllm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        UserError, match=r"engine options is .*: vLLM refuses it \(.*unexpected keyword argument 'frob'\)"
    ):
        VllmEngine("dir", frob=1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(UserError, match="CUDA_VISIBLE_DEVICES is 0,1: engine 1 takes 2 GPUs after those before it"):
        VllmEngine("dir", place=1, tensor_parallel_size=2)
    assert not vllm.LLM.made


def context(tmp_path: Path, kind: PolicyKind, config: GenerateConfig) -> StageContext:
    spec = StageSpec(
        stage=Stage.GENERATE, run="r", store=tmp_path.as_uri(), key="00000000", config=config.model_dump(mode="json"),
        work_dir=str(tmp_path), policy="p", policy_kind=kind, policy_base="builtin:shapes/vlm_policy", inputs={},
    )  # fmt: skip
    dist: Any = SimpleNamespace(device=torch.device("cpu"), local_rank=2)
    track: Any = None
    return StageContext(spec, open_store(tmp_path.as_uri()), dist, track, tmp_path)


def test_generate_draws_candidates_with_it(vllm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    config = GenerateConfig(
        engine="vllm", candidates=2, tensor_parallel=2, engine_options=['limit_mm_per_prompt={"image": 3}']
    )
    prompt = Prompt(
        id="q", split="train", modality=Modality.IMAGE, subject=Subject.UNDERSTANDING, text="what?", media=["d"]
    )
    media: Any = {"d": PICTURE}.__getitem__
    drawn = [
        candidate
        for candidate, _ in generate._engine(context(tmp_path, PolicyKind.VLM, config), config, media)([prompt])
    ]
    assert [(one.id, one.text) for one in drawn] == [("q/p/0", "yes"), ("q/p/1", "yes")]
    (llm,) = vllm.LLM.made
    assert [params.seed for _, params in llm.asked] == [one.seed for one in drawn]
    assert llm.arguments["limit_mm_per_prompt"] == {"image": 3}
    assert llm.environment["CUDA_VISIBLE_DEVICES"] == "4,5"


def test_generate_refuses_before_it_reads_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = GenerateConfig(engine="vllm")
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match=r"engine is vllm: vLLM is not installed. Install it"):
        generate.run(context(tmp_path, PolicyKind.VLM, config))
    with pytest.raises(UserError, match=r"engine is vllm: policy p draws images, and vLLM writes text. Leave it out."):
        generate.run(context(tmp_path, PolicyKind.DIFFUSION, config))


def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["unified-reward", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out, captured.err


@pytest.fixture
def question(tmp_path: Path) -> list[str]:
    for name, shade in (("dark", 0), ("light", 200)):
        Image.fromarray(np.full((8, 8, 3), shade, np.uint8)).save(tmp_path / f"{name}.png")
    shown = [word for name in ("dark", "light") for word in ("--image", str(tmp_path / f"{name}.png"))]
    return ["judge", *shown, "--caption", "night", "--model", "builtin:shapes/vlm", "--home", str(tmp_path / "home")]


def says_the_darker(parts: list[dict[str, Any]]) -> list[str]:
    shades = [np.asarray(part["image_pil"]).mean() for part in parts if part["type"] == "image_pil"]
    return [" no", " .", f" image {1 + int(np.argmin(shades))}"] if len(shades) == 2 else [" .", " score", " 4"]


def test_a_judge_is_asked_with_it_and_read_from_text(
    vllm: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], question: list[str]
) -> None:
    vllm.LLM.says = says_the_darker
    words = (
        *question,
        "--template",
        "shapes",
        "--engine",
        "vllm",
        "--engine-option",
        "tensor_parallel_size=2",
        "--json",
    )
    code, out, err = command(monkeypatch, capsys, *words)
    assert code == 0, err
    answer = json.loads(out)
    assert (answer["verdict"], answer["read"], [item["score"] for item in answer["items"]]) == ("1", "text", [4.0, 4.0])
    (llm,) = vllm.LLM.made
    assert llm.arguments["tensor_parallel_size"] == 2


def test_a_benchmark_is_asked_with_it(
    vllm: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    vllm.LLM.says = says_the_darker
    words = ("eval", "genai-bench-image", "--model", "builtin:shapes/vlm", "--template", "shapes", "--items", "4")
    code, out, err = command(monkeypatch, capsys, *words, "--engine", "vllm", "--home", str(tmp_path), "--json")
    assert code == 0, err
    assert json.loads(out)["n"] == 4
    (llm,) = vllm.LLM.made
    pictures = [sum(part["type"] == "image_pil" for part in parts) for parts, _ in llm.asked]
    assert (pictures.count(2), pictures.count(1)) == (8, 8)  # both orders of each pair, and the score of each picture


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--engine", "sglang"], "--engine is sglang: there is no such engine. Use transformers or vllm."),
        (
            ["--engine", "vllm", "--read", "probabilities"],
            "--read is probabilities: vLLM tells no log-probs of strings",
        ),
        (["--engine", "vllm", "--server", "http://h/v1"], "--engine is vllm: --server has an engine of its own."),
        (["--engine", "vllm", "--engine-option", "x"], "--engine-option is x: 'x' is not of the form NAME=VALUE"),
        (["--engine", "vllm", "--engine-option", "x={1"], "--engine-option is x={1: the value of x is no JSON."),
        (["--engine-option", "x=1"], "--engine-option is x=1: they are options of vLLM. Add --engine vllm."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.usefixtures("vllm")
def test_a_mistake_of_the_command_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    question: list[str],
    words: list[str],
    message: str,
) -> None:
    code, out, err = command(monkeypatch, capsys, *question, *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_the_command_says_that_it_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], question: list[str]
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    code, _, err = command(monkeypatch, capsys, *question, "--engine", "vllm")
    assert (code, err.count("\n")) == (2, 1)
    assert "engine is vllm: vLLM is not installed. Install it" in err
