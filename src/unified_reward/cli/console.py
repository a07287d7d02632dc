"""Where words go: messages and progress to standard error, one JSON object to standard output."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


PLAIN_WIDTH = 160  # of a log file


@lru_cache(maxsize=1)
def console() -> Console:
    """Standard error; plain text when it is no terminal."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else PLAIN_WIDTH)


@lru_cache(maxsize=1)
def output() -> Console:
    """Standard output, for what a person asked to see."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)


def say(text: str = "") -> None:
    """A line as it is: nothing in it is taken for markup."""
    console().print(text, markup=False, soft_wrap=True)


def print_json(values: Any) -> None:
    print(json.dumps(values, indent=1))


def command(*words: str, home: str = "") -> str:
    """A command line of ours that can be copied into a shell."""
    return " ".join([_own_name(), shlex.join([*words, *(["--home", home] if home else [])])])


def duration(seconds: float) -> str:
    """48 s, 3 min 05 s, 2 h 10 min."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _own_name() -> str:
    """How this person can call the program: by its name where the shell finds it, else by where it stands."""
    if shutil.which("unified-reward"):
        return "unified-reward"
    program = Path(sys.argv[0])
    if program.name != "unified-reward":  # python -m unified_reward.cli
        return f"{shlex.quote(sys.executable)} -m unified_reward.cli"
    return os.path.relpath(program)
