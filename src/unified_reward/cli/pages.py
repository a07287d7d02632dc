"""`unified-reward ui`: serve the MLflow pages of the runs on this machine."""

from __future__ import annotations

import os
import socket
from typing import NoReturn

from unified_reward.cli.console import command, say
from unified_reward.errors import UserError
from unified_reward.home import Home
from unified_reward.pipeline.status import RunStatus, read_status
from unified_reward.tracking import Target, embedded_uri, prepare, run_url, runs_url, ui_command

HOST = "127.0.0.1"
DEFAULT_PORT = 5000
TRIES = 50


def ui(name: str, home: str, port: int) -> int:
    """Serves until Ctrl-C; replaces this process. name: the run to link to, "" for all. port: 0 = the first free one."""
    place = Home.at(home)
    found = read_status(place, name) if name else None
    target = _target(place, found)
    if target.uri.startswith("http"):
        say(f"MLflow is served at {target.uri}")
        return 0
    if not found and not place.tracking_directory.exists():
        raise UserError(field="--home", value=place.root, why="no run has been tracked there",
                        fix=f"Start one: {command('run', 'jobs/examples/shapes.yaml', home=home)}.")  # fmt: skip
    chosen = check_port(port) if port else free_port()
    say("Reading the runs ...")
    experiment = prepare(target)
    base = f"http://{HOST}:{chosen}"
    page = (
        run_url(base, experiment, found.parent_run_id) if found and found.parent_run_id else runs_url(base, experiment)
    )
    say(f"MLflow opens in some seconds at\n\n    {page}\n\nCtrl-C ends it.")
    return _become(ui_command(target.uri, host=HOST, port=chosen))


def check_port(port: int) -> int:
    """`port`. Raises UserError when something else listens there."""
    if not _is_free(port):
        raise UserError(field="--port", value=port, why="another program is using it",
                        fix=f"Use --port {free_port()}, or leave it out.")  # fmt: skip
    return port


def free_port() -> int:
    """The first free port from 5000 on. Raises UserError when there is none nearby."""
    for port in range(DEFAULT_PORT, DEFAULT_PORT + TRIES):
        if _is_free(port):
            return port
    raise UserError(field="--port", value=DEFAULT_PORT, why=f"the {TRIES} ports from there on are in use",
                    fix="Name a free one with --port.")  # fmt: skip


def _become(words: list[str]) -> NoReturn:
    os.execvp(words[0], words)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _target(place: Home, found: RunStatus | None) -> Target:
    if found is None:
        return Target(embedded_uri(place.tracking_directory), "unified-reward")
    return Target(found.tracking_uri, found.experiment)
