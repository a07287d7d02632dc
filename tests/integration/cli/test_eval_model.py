"""`unified-reward eval --model`: the shipped base as a judge, asked real pictures and the shapes version of a protocol."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from unified_reward.cli import main
from unified_reward.cli.console import console, output

pytestmark = pytest.mark.integration
JUDGE = ("--model", "builtin:shapes/vlm", "--template", "shapes")
REAL = Path(__file__).parents[4] / "shared" / "data" / "imagereward"


def called(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    console.cache_clear()
    output.cache_clear()
    monkeypatch.setattr(sys, "argv", ["unified-reward", "eval", *words])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


def test_a_judge_is_asked_and_its_answers_score_alike_from_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("hpdv3", *JUDGE, "--items", "24", "--home", str(tmp_path), "--out", str(tmp_path / "said.jsonl"), "--json")
    assert called(monkeypatch, *words) == 0
    asked = json.loads(capsys.readouterr().out)
    assert (asked["n"], asked["unparsed"]) == (24, 0)
    assert asked["metrics"]["scores"]["Overall"]["without_ties"] > 0.6  # untrained it is right on .73 to .93
    assert "shapes world" in asked["notes"][-1]
    assert called(monkeypatch, "hpdv3", "--verdicts", str(tmp_path / "said.jsonl"), "--json") == 0
    read = json.loads(capsys.readouterr().out)
    assert {name: read[name] for name in ("accuracy", "n", "groups")} == {
        name: asked[name] for name in ("accuracy", "n", "groups")
    }


def test_sampled_votes_need_a_temperature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("vl-rewardbench", *JUDGE, "--items", "4", "--votes", "3", "--home", str(tmp_path))
    assert called(monkeypatch, *words) == 2
    assert "votes without it are one and the same" in capsys.readouterr().err
    assert called(monkeypatch, *words, "--temperature", "0.7", "--json") == 0
    assert "3" in json.loads(capsys.readouterr().out)["metrics"]["votes"]


def test_real_pictures_of_a_published_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """That they are read and asked about; a judge of 32 x 32 shapes has nothing to say of paintings."""
    if not REAL.is_dir():
        pytest.skip("ImageReward's four pictures are not here (shared/data/imagereward)")
    row = {"id": "x", "prompt": "a painting of an ocean with clouds and birds", "ranking": [1, 2, 3, 4],
           "generations": [f"{number}.webp" for number in range(1, 5)]}  # fmt: skip
    (tmp_path / "test.json").write_text(json.dumps([row]))
    words = ("imagereward", *JUDGE, "--data", str(tmp_path / "test.json"), "--home", str(tmp_path), "--json")
    assert called(monkeypatch, *words) == 2
    assert "--media is" in capsys.readouterr().err
    assert called(monkeypatch, *words, "--media", str(REAL)) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["n"], found["unparsed"]) == (6, 0)
