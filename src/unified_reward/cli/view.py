"""A run while it goes on: a live table on a terminal, else one line for each thing that happens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.live import Live
from rich.table import Table
from rich.text import Text

from unified_reward import progress
from unified_reward.cli.console import console, duration, say
from unified_reward.pipeline.decide import State
from unified_reward.pipeline.local import OnChange
from unified_reward.pipeline.status import RunStatus, StageStatus

REDRAW_SECONDS = 0.5
PLAIN_SECONDS = 15.0
STYLES = {
    State.WAITING: "dim",
    State.RUNNING: "bold",
    State.DONE: "green",
    State.FAILED: "red",
    State.CANCELLED: "yellow",
}
URGENCY = (State.RUNNING, State.FAILED, State.WAITING, State.CANCELLED, State.DONE)


@contextmanager
def watching(quiet: bool = False) -> Iterator[OnChange]:
    """A function to be called with the run's status as often as one likes; it shows what is new."""
    if quiet:
        yield lambda _: None
    elif console().is_terminal:
        with Live(console=console(), auto_refresh=False, transient=True) as live:
            table = _Table(live)
            yield table
        if table.status is not None:
            console().print(stage_table(table.status))
    else:
        yield _Lines()


class _Table:
    def __init__(self, live: Live) -> None:
        self.live, self.last = live, 0.0
        self.status: RunStatus | None = None

    def __call__(self, status: RunStatus) -> None:
        self.status = status
        if time.monotonic() - self.last > REDRAW_SECONDS:
            self.last = time.monotonic()
            self.draw()

    def draw(self) -> None:
        if self.status is not None:
            room = max(3, self.live.console.height - 2)
            self.live.update(stage_table(self.status, room), refresh=True)


class _Lines:
    """Progress of a stage is told at most every PLAIN_SECONDS."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[State, int]] = {}
        self.told: dict[str, float] = {}

    def __call__(self, status: RunStatus) -> None:
        for node, stage in status.stages.items():
            now, new = time.monotonic(), (stage.state, stage.attempt)
            if self.known.get(node, (State.WAITING, 0)) != new:
                self.known[node], self.told[node] = new, now
                say(
                    " ".join(
                        filter(None, (f"{node}:", state_word(stage), seconds_of(stage), stage.why and f"({stage.why})"))
                    )
                )
            elif stage.state is State.RUNNING and now - self.told[node] > PLAIN_SECONDS and progress_of(stage):
                self.told[node] = now
                say(f"{node}: {progress_of(stage)}")


def stage_table(status: RunStatus, room: int | None = None) -> Table:
    """A row for each stage; where there is no room for all, those that run, then those that wait, then the others."""
    table = Table(box=None, pad_edge=False)
    for title, justify in (
        ("stage", "left"),
        ("state", "left"),
        ("progress", "left"),
        ("time", "right"),
        ("why", "left"),
    ):
        table.add_column(title, justify=justify, no_wrap=title != "why")  # type: ignore[arg-type]
    shown = sorted(status.stages, key=lambda node: URGENCY.index(status.stages[node].state))[:room]
    for node in (node for node in status.stages if node in shown):
        stage = status.stages[node]
        cells = (node, state_word(stage), progress_of(stage), seconds_of(stage), reason(stage, status.stages))
        table.add_row(*(Text(cell) for cell in cells), style=STYLES[stage.state])
    return table


def state_word(stage: StageStatus) -> str:
    return "reused" if stage.reused else stage.state.value.lower()


def progress_of(stage: StageStatus) -> str:
    """`120/200 steps, 40 s left`, "" when the stage has said nothing or does not run."""
    if stage.state is not State.RUNNING or stage.progress or not stage.log:
        return stage.progress if stage.state is State.RUNNING else ""
    found = progress.read(Path(stage.log) / "progress.json")
    if found is None:
        return "starting"
    eta = found.eta_seconds(time.time())
    left = f", {duration(eta)} left" if eta is not None and found.done < found.total else ""
    note = f" ({found.note})" if found.note and found.note != stage.policy else ""
    return f"{found.done:,}/{found.total:,} {found.unit}{note}{left}"


def seconds_of(stage: StageStatus) -> str:
    if stage.state is State.RUNNING:
        return duration(time.time() - stage.started)
    return duration(stage.seconds) if stage.seconds else ""


def reason(stage: StageStatus, stages: dict[str, StageStatus]) -> str:
    """Why the stage is as it is; for one that waits, what for."""
    if stage.state is not State.WAITING:
        return stage.why
    if stage.failures:
        return f"tries again after: {stage.failures[-1].value}: {stage.error}"
    open_needs = [need for need in stage.needs if stages[need].state is not State.DONE]
    failed = [need for need in open_needs if stages[need].state is State.FAILED]
    if failed:
        return f"needs {failed[0]}, which failed"
    return f"after {', '.join(open_needs)}" if open_needs else stage.why or "waits for a free core"
