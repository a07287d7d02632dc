"""`unified-reward serve`: the judge of a run, or of a directory, as a service."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from dataclasses import replace
from pathlib import Path

from unified_reward.cli.console import say
from unified_reward.cli.judging import RUN, judge_directory
from unified_reward.home import Home
from unified_reward.serving.server import ServeOptions, serve

TOKEN = "UR_SERVE_TOKEN"  # environment: bearer token that clients must send


def serve_judge(model: str, home: str, options: ServeOptions) -> int:
    # Process 1 of a container ignores what it has no handler for, and loading may take minutes; the server has its own.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    directory = judge_directory(model, Home.at(home))
    warnings.filterwarnings("ignore", category=FutureWarning)  # of libraries, for those who program with them
    name = options.name or (Path(model).name if Path(model).is_dir() else model.removeprefix(RUN))
    say(f"Loading {model} ...")
    serve(directory, replace(options, name=name, token=os.environ.get(TOKEN, "")))
    return 0
