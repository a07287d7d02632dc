"""What a document names and is not there is told by its field, before anything runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from unified_reward.config import parse_document
from unified_reward.errors import UserError
from unified_reward.home import Home
from unified_reward.pipeline.local import check_named
from unified_reward.store import open_store

SHAPES = (Path(__file__).parents[3] / "jobs" / "examples" / "shapes.yaml").read_text()


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("spec.rewardTrain.base=/no/model", "spec.rewardTrain.base is /no/model: there is no such directory"),
        ("spec.policies.0.generate.engine=vllm", "spec.policies.0.generate.engine is vllm: vLLM is not installed"),
        ("spec.policies.1.base=builtin:none", "spec.policies.1.base is builtin:none: no such model ships"),
        ("spec.rewardTrain.template=shaps", r"spec.rewardTrain.template is shaps: .* Did you mean 'shapes'\?"),
        ("spec.rewardTrain.template=wrong.yaml", r"spec.rewardTrain.template \(wrong.yaml.*\) is "),
    ],
)
def test_it_is_told_by_its_field(override: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "vllm", None)
    Path("wrong.yaml").write_text("name: wrong\nversion: 1\ntasks: {image_pair: {}}\n")
    document = parse_document(SHAPES, name="shapes.yaml", overrides=[override])
    with pytest.raises(UserError, match=told):
        check_named(document, open_store("memory://"), Home.at(str(tmp_path / "home")))


def test_what_is_there_is_let_through(tmp_path: Path) -> None:
    check_named(parse_document(SHAPES, name="shapes.yaml"), open_store("memory://"), Home.at(str(tmp_path)))
