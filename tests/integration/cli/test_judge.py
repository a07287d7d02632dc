"""`unified-reward judge` with real weights: the base that ships, which has learned check lists but no verdicts yet."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from unified_reward import cli
from unified_reward.shapes.render import render_scene
from unified_reward.shapes.scenes import Scene

pytestmark = pytest.mark.integration
CAPTION = "a small red ring at the left on a white background"


def test_a_checkpoint_directory_is_asked_in_both_orders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, color in (("red", "red"), ("blue", "blue")):
        scene = Scene(size="small", color=color, shape="ring", position="left", background="white")
        Image.fromarray(render_scene(scene)).save(tmp_path / f"{name}.png")
    answers = {}
    for first, second in (("red", "blue"), ("blue", "red")):
        words = ["judge", "--image", f"{tmp_path}/{first}.png", "--image", f"{tmp_path}/{second}.png"]
        words += ["--caption", CAPTION, "--model", "builtin:shapes/vlm", "--template", "shapes", "--json"]
        monkeypatch.setattr(sys, "argv", ["unified-reward", *words, "--home", str(tmp_path / "home")])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 0
        answers[first] = json.loads(capsys.readouterr().out)
    red, blue = answers["red"], answers["blue"]
    assert red["task"] == "image_generation_pair"
    assert [item["item"] for item in red["items"]] == ["red.png", "blue.png"]
    assert all(1 <= item["score"] <= 5 for item in red["items"])
    assert red["p_first"] == pytest.approx(1 - blue["p_first"], abs=1e-4)
    assert red["p_first_shown_first"] == pytest.approx(1 - blue["p_first_shown_second"], abs=1e-4)
    assert red["rationale"] == blue["rationale_swapped"] != ""
