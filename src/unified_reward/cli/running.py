"""`unified-reward run`: drive a document to its end, show it, and say what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unified_reward.cli.console import command, console, print_json, say
from unified_reward.cli.tables import show_summary
from unified_reward.cli.view import watching
from unified_reward.config import load_document
from unified_reward.errors import EXIT_USER_ERROR
from unified_reward.home import Home
from unified_reward.launch.causes import Cause
from unified_reward.pipeline.decide import RunState, State
from unified_reward.pipeline.local import run_document
from unified_reward.pipeline.status import RunStatus
from unified_reward.pipeline.summary import summarise

EXIT_CANCELLED = 130  # as a shell reports Ctrl-C


def run(file: Path, overrides: Sequence[str], home: str, *, as_json: bool) -> int:
    """Returns the exit code: 0 done, 2 something a person must mend, 130 cancelled, 1 anything else."""
    document = load_document(file, overrides)
    again = ["run", str(file), *(word for override in overrides for word in ("--set", override))]
    with watching() as show:
        status = run_document(document, Home.at(home), again=again, on_change=show)
    summary = summarise(status)
    if all(stage.reused for stage in status.stages.values()):
        say("Nothing to do: every stage's result is there, and nothing it depends on has changed.")
    if not as_json:
        show_summary(summary, console())
    _say_what_next(status, home)
    if as_json:
        print_json(summary)
    return _exit_code(status)


def _say_what_next(status: RunStatus, home: str) -> None:
    if status.message:
        say(f"note: {status.message}")
    again = command(*status.again, home=home)
    for node, stage in status.stages.items():
        if stage.state is State.FAILED:
            say(f"error: {node}: {stage.error}")
            say(f"  its log: {command('logs', status.name, node, home=home)}")
    if status.state is RunState.FAILED:
        say(f"Mended? Go on where it stopped with: {again}")
    elif status.state is RunState.CANCELLED:
        say(f"Stopped. Go on where it stopped with: {again}")
    else:
        say(f"Report: {status.report}")
        say(f"MLflow: {command('ui', status.name, home=home)}")


def _exit_code(status: RunStatus) -> int:
    if status.state is RunState.SUCCEEDED:
        return 0
    if status.state is RunState.CANCELLED:
        return EXIT_CANCELLED
    failed = [stage for stage in status.stages.values() if stage.state is State.FAILED]
    return EXIT_USER_ERROR if any(Cause.USER in stage.failures for stage in failed) else 1
