"""What our entry points put right in TorchX 0.7, once one of them exists.

Schedulers are then sorted by name, and the first is the default: aws_batch. Here `torchx run` and `torchx list` take
`local_cwd` unless told otherwise. And `torchx runopts` ends at the first scheduler whose module cannot be imported, which
is Ray's where Ray is not installed.
"""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from typing import Any

from torchx.cli.cmd_list import CmdList
from torchx.cli.cmd_run import CmdRun
from torchx.runner import config

DEFAULT = "local_cwd"


class List(CmdList):  # type: ignore[misc]  # TorchX is untyped here
    def add_arguments(self, subparser: argparse.ArgumentParser) -> None:
        super().add_arguments(subparser)
        subparser.set_defaults(scheduler=DEFAULT)

    def run(self, args: argparse.Namespace) -> None:
        if args.scheduler.startswith("local_"):
            sys.exit(
                f"{args.scheduler} keeps no list of jobs. Name another scheduler with -s; runs: unified-reward status"
            )
        super().run(args)


class Run(CmdRun):  # type: ignore[misc]
    def add_arguments(self, subparser: argparse.ArgumentParser) -> None:
        super().add_arguments(subparser)
        if config.get_config(prefix="cli", name="run", key="scheduler") is None:  # no .torchxconfig says otherwise
            subparser.set_defaults(scheduler=DEFAULT)


def ray_scheduler(session_name: str, **parameters: Any) -> Any:
    """TorchX's Ray scheduler. Raises ModuleNotFoundError, which TorchX tells in a line, where Ray is not installed."""
    if find_spec("ray") is None:
        raise ModuleNotFoundError("No module named 'ray'")
    from torchx.schedulers.ray_scheduler import create_scheduler

    return create_scheduler(session_name, **parameters)
