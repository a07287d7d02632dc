"""What a person is told of a run: one JSON file, `runs/NAME/status.json`, rewritten whole whenever something changes."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from unified_reward.errors import UserError
from unified_reward.home import Home
from unified_reward.launch.causes import Cause
from unified_reward.pipeline.decide import RunState, State

FILE = "status.json"


@dataclass
class StageStatus:
    """One stage (or one policy's stage) of a run.

    reused: its result was there already. why: one line for a person (what changed, why it waits, why it failed).
    started, ended: seconds since the epoch; seconds: of the attempt that made the result, also when it is reused.
    failures: causes of attempts that ended without a result. log: directory of the last attempt's files.
    needs: nodes whose outputs it reads.
    identity: what the key was made of, to say later what changed.
    progress: how far it is, as a job elsewhere told it; on this machine that is in a file beside the log.
    """

    stage: str
    policy: str = ""
    state: State = State.WAITING
    reused: bool = False
    key: str = ""
    attempt: int = 0
    started: float = 0.0
    ended: float = 0.0
    seconds: float = 0.0
    why: str = ""
    error: str = ""
    failures: list[Cause] = field(default_factory=list)
    log: str = ""
    needs: list[str] = field(default_factory=list)
    identity: dict[str, Any] = field(default_factory=dict)
    progress: str = ""


@dataclass
class Cost:
    """Over everything this run's processes did: wall and CPU seconds, and the peak of their memory added up, in bytes."""

    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_rss_bytes: int = 0


@dataclass
class RunStatus:
    """document: the AlignmentRun as checked; again: the words after
    `unified-reward` that go on with it. executor: process id of who drives it, 0 when
    nobody does. message: what a person should know beside the stages (tracking not delivered, a defect)."""

    name: str
    state: RunState = RunState.RUNNING
    store: str = ""
    stages: dict[str, StageStatus] = field(default_factory=dict)
    cost: Cost = field(default_factory=Cost)
    started: float = 0.0
    ended: float = 0.0
    executor: int = 0
    tracking_uri: str = ""
    experiment: str = ""
    parent_run_id: str = ""
    report: str = ""
    message: str = ""
    again: list[str] = field(default_factory=list)
    document: dict[str, Any] = field(default_factory=dict)

    def save(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        temporary = directory / f".{FILE}.{os.getpid()}"
        temporary.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")
        temporary.replace(directory / FILE)


def stage_directory(run_directory: Path, node: str) -> Path:
    """Where the attempts of a stage (`score/vlm`) keep their files."""
    return run_directory / "stages" / node.replace("/", ".")


def read_status(home: Home, name: str) -> RunStatus:
    """The last status of a run. Raises UserError when there is no such run."""
    path = home.run(name) / FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = sorted(p.parent.name for p in (home.root / "runs").glob(f"*/{FILE}"))
        fix = f"Runs here: {', '.join(known)}." if known else "Start one: unified-reward run jobs/examples/shapes.yaml."
        raise UserError(field="run", value=name, why=f"there is no such run in {home.root}", fix=fix) from None
    values["state"] = RunState(values["state"])
    values["cost"] = Cost(**values["cost"])
    values["stages"] = {key: _stage(stage) for key, stage in values["stages"].items()}
    return RunStatus(**_known(RunStatus, values))


def _stage(values: dict[str, Any]) -> StageStatus:
    values["state"] = State(values["state"])
    values["failures"] = [Cause(cause) for cause in values["failures"]]
    return StageStatus(**_known(StageStatus, values))


def _known(kind: type[RunStatus | StageStatus], values: dict[str, Any]) -> dict[str, Any]:
    """What this version knows of a status that another one may have written."""
    names = {each.name for each in fields(kind)}
    return {name: value for name, value in values.items() if name in names}
