"""`judge`, `eval` and `serve` load a judge where and in the numbers that they are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from unified_reward.cli.evaluating import ModelRequest, _judges
from unified_reward.cli.judging import check_elsewhere, judge_here
from unified_reward.errors import UserError
from unified_reward.home import Home
from unified_reward.judge import Pack
from unified_reward.judge.judge import PACK_FILE, Judge
from unified_reward.models.vlm import Vlm, save_vlm
from unified_reward.serving.server import ServeOptions, make_service
from unified_reward.stages.benchmark import MediaFolder

DTYPES = [("", torch.float32), ("float32", torch.float32), ("bfloat16", torch.bfloat16)]


@pytest.fixture
def saved(vlm: Vlm, pack: Pack, tmp_path: Path) -> Path:
    save_vlm(vlm, tmp_path / "judge")
    (tmp_path / "judge" / PACK_FILE).write_text(pack.to_yaml())
    return tmp_path / "judge"


@pytest.mark.parametrize(("precision", "dtype"), DTYPES)
def test_the_three_commands_load_in_the_precision_that_is_named(
    saved: Path, precision: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, media = Home(saved.parent), MediaFolder(saved)
    assert judge_here(str(saved), home, "", media, "cpu", precision).vlm.model.dtype == dtype

    asked = ModelRequest(str(saved), 1, 0.0, "", str(home.root), None, precision=precision)
    (judge,) = _judges(asked, 0, home, media)
    assert isinstance(judge, Judge)
    assert judge.vlm.model.dtype == dtype

    loaded: list[Judge] = []
    load = Judge.load
    monkeypatch.setattr(Judge, "load", lambda *words, **named: loaded.append(load(*words, **named)) or loaded[-1])
    make_service(saved, ServeOptions("judge", precision=precision)).batcher.close()
    assert loaded[0].vlm.model.dtype == dtype


def test_a_device_that_is_not_there_is_told_before_a_judge_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--device is cuda:99: torch cannot use it"):
        judge_here("no-such-run", Home(tmp_path), "", MediaFolder(tmp_path), "cuda:99", "")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"device": "cuda", "precision": "", "server": "http://x/v1"}, "--device is cuda: a server says itself"),
        ({"device": "cpu", "precision": "float32", "vllm": {}}, "--precision is float32: vLLM says itself"),
    ],
)
def test_another_engine_is_not_told_where_to_compute(given: dict[str, Any], why: str) -> None:
    with pytest.raises(UserError, match=why):
        check_elsewhere(**given)
    check_elsewhere("cuda", "bfloat16")
