"""The command line with fake stages, no MLflow and a page of one word: what is tested is the executor around them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from unified_reward import cli
from unified_reward.launch import local as launch
from unified_reward.pipeline import local, report

FAKE = str(Path(__file__).with_name("fake_stage.py"))
stage_app = launch.stage_app


class NoCourier:
    def __init__(self, *_: Any, **__: Any) -> None: ...

    def start(self) -> NoCourier:
        return self

    def backlog(self) -> Any:
        return SimpleNamespace(pending=0, refused=0)

    close = backlog


def fake_app(*arguments: Any) -> Any:
    app = stage_app(*arguments)
    words = app.roles[0].args
    app.roles[0].args = [*words[: words.index("--") + 1], FAKE, words[-1]]
    return app


def publish(_status: Any, _commits: Any, _store: Any, directory: Path, _parent: Any) -> str:
    (directory / report.PAGE).write_text("page")
    return str(directory / report.PAGE)


if __name__ == "__main__":
    launch.stage_app = fake_app
    local.Courier = NoCourier  # type: ignore[assignment,misc]
    local.find_run_id = lambda *_, **__: "run-1"  # type: ignore[assignment]
    report.publish_report = publish
    sys.argv[0] = "unified-reward"
    cli.main()
