"""`status`, `logs`, `cancel`, `summary`, `report`: what a person asks about a run."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from unified_reward.cli.console import command, output, print_json, say
from unified_reward.cli.tables import show_summary
from unified_reward.cli.view import stage_table
from unified_reward.errors import UserError
from unified_reward.home import Home
from unified_reward.launch.local import log_file
from unified_reward.pipeline.decide import RunState, State
from unified_reward.pipeline.lock import driver_of
from unified_reward.pipeline.status import FILE, RunStatus, read_status, stage_directory
from unified_reward.pipeline.summary import summarise

CANCEL_SECONDS = 60.0
POLL_SECONDS = 0.3


def status(name: str, home: str, *, as_json: bool) -> int:
    place = Home.at(home)
    if not name:
        return _all_runs(place, home, as_json=as_json)
    found = read_status(place, name)
    driver = driver_of(place.run(name))
    state = _state(found, driver)
    if as_json:
        print_json({**asdict(found), "state": state, "executor": driver})
        return 0
    output().print(f"{name}: {state}" + (f" (process {driver})" if driver else ""), markup=False)
    output().print(stage_table(found))
    if found.message:
        say(f"note: {found.message}")
    if state == "Interrupted":
        say(f"Nobody is running it. Go on with: {command(*found.again, home=home)}")
    return 0


def summary(name: str, home: str, *, as_json: bool) -> int:
    found = read_status(Home.at(home), name)
    values = summarise(found)
    if as_json:
        print_json(values)
        return 0
    show_summary(values, output())
    if found.report:
        output().print(f"Report: {found.report}", markup=False, soft_wrap=True)
    return 0


def report(name: str, home: str) -> int:
    """Print the path of the run's page."""
    found = read_status(Home.at(home), name)
    if not found.report or not Path(found.report).is_file():
        raise UserError(field="report", value=None, why=f"{name} has no page; a run writes it when all stages are done",
                        fix=f"Go on with: {command(*found.again, home=home)}.")  # fmt: skip
    print(found.report)
    return 0


def cancel(name: str, home: str) -> int:
    place = Home.at(home)
    read_status(place, name)
    driver = driver_of(place.run(name))
    if not driver:
        say(f"{name} is not running.")
        return 0
    os.kill(driver, signal.SIGTERM)
    deadline = time.monotonic() + CANCEL_SECONDS
    while driver_of(place.run(name)) == driver:
        if time.monotonic() > deadline:
            raise UserError(field="run", value=name, why=f"process {driver} has not ended {CANCEL_SECONDS:.0f} s after SIGTERM",
                            fix=f"Its stages may be saving; end it with: kill -9 {driver}.")  # fmt: skip
        time.sleep(POLL_SECONDS)
    say(f"{name} was stopped. Go on with: {command(*read_status(place, name).again, home=home)}")
    return 0


def logs(name: str, stage: str, home: str, *, follow: bool) -> int:
    place = Home.at(home)
    nodes = _nodes(read_status(place, name), stage)
    found = {node: path for node in nodes if (path := _last_log(place, name, node)) is not None}
    if not found and not follow:
        fix = "Its results were made by another run." if stage else "Wait until a stage has started, or use -f."
        raise UserError(field="logs", value=stage or name, why="this run has written none", fix=fix)
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        for line in _followed(place, name, nodes) if follow else _written(found):
            sys.stdout.write(line)
            sys.stdout.flush()
    return 0


def _all_runs(place: Home, home: str, *, as_json: bool) -> int:
    names = sorted(path.parent.name for path in (place.root / "runs").glob(f"*/{FILE}"))
    states = {name: _state(read_status(place, name), driver_of(place.run(name))) for name in names}
    if as_json:
        print_json(states)
    elif states:
        for name, state in states.items():
            output().print(f"{name}: {state}", markup=False)
    else:
        say(f"No runs in {place.root}. Start one: {command('run', 'jobs/examples/shapes.yaml', home=home)}")
    return 0


def _state(found: RunStatus, driver: int) -> str:
    """As written, but for a run whose executor was killed: nobody could write that."""
    return "Interrupted" if found.state is RunState.RUNNING and not driver else found.state.value


def _nodes(found: RunStatus, stage: str) -> list[str]:
    nodes = [node for node in found.stages if not stage or node == stage or node.startswith(f"{stage}/")]
    if not nodes:
        raise UserError(field="stage", value=stage, why=f"{found.name} has no such stage",
                        fix=f"Stages: {', '.join(found.stages)}.")  # fmt: skip
    return nodes


def _last_log(place: Home, name: str, node: str) -> Path | None:
    """The log of the stage's last attempt."""
    attempts = stage_directory(place.run(name), node).glob("attempt-*")
    newest = sorted(attempts, key=lambda path: int(path.name.partition("-")[2]))[-1:]
    return log_file(newest[0]) if newest else None


def _written(found: dict[str, Path]) -> Iterator[str]:
    for node, path in found.items():
        for line in path.read_text(errors="replace").splitlines():
            yield f"{node}: {line}\n" if len(found) > 1 else f"{line}\n"


def _followed(place: Home, name: str, nodes: list[str]) -> Iterator[str]:
    """Lines as they are written, until the stages have ended or nobody runs them."""
    read: dict[Path, int] = {}
    while True:
        found = read_status(place, name)
        over = not driver_of(place.run(name)) or all(
            found.stages[node].state not in (State.WAITING, State.RUNNING) for node in nodes
        )
        for node in nodes:
            path = _last_log(place, name, node)
            if path is not None:
                for line in _new_lines(path, read, whole=over):
                    yield f"{node}: {line}" if len(nodes) > 1 else line
        if over:
            return
        time.sleep(POLL_SECONDS)


def _new_lines(path: Path, read: dict[Path, int], *, whole: bool) -> Iterator[str]:
    """Complete lines after those that were read; with `whole`, the last one even if it is not complete."""
    with path.open("rb") as stream:
        stream.seek(read.get(path, 0))
        for line in stream:
            if not line.endswith(b"\n") and not whole:
                return
            read[path] = read.get(path, 0) + len(line)
            yield line.decode(errors="replace").rstrip("\r\n") + "\n"
