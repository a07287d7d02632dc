"""What our entry points put right in TorchX 0.7, once one of them exists, and the verbs of its command line over ours.

Schedulers are then sorted by name, and the first is the default: aws_batch. Here `torchx run` and `torchx list` take
`local_cwd` unless told otherwise. And `torchx runopts` ends at the first scheduler whose module cannot be imported, which
is Ray's where Ray is not installed. What a person can mend is told in one line with exit code 2, as by `unified-reward`.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import sys
import threading
from importlib.util import find_spec
from typing import Any

from torchx.cli.cmd_base import SubCommand
from torchx.cli.cmd_cancel import CmdCancel
from torchx.cli.cmd_describe import CmdDescribe
from torchx.cli.cmd_list import CmdList
from torchx.cli.cmd_log import CmdLog, _prefix_line, validate
from torchx.cli.cmd_run import CmdRun
from torchx.cli.cmd_status import CmdStatus
from torchx.runner import config
from torchx.specs.api import MalformedAppHandleException, parse_app_handle
from torchx.specs.finder import get_components

from unified_reward.errors import EXIT_USER_ERROR, UserError
from unified_reward.launch import config_files

DEFAULT = "local_cwd"
OURS = "pytorchjob"
COMPONENTS = "ur."
REQUEST = "\n=== SCHEDULER REQUEST ===\n"


class Run(CmdRun):  # type: ignore[misc]  # TorchX is untyped here
    def add_arguments(self, subparser: argparse.ArgumentParser) -> None:
        with one_line():
            config_files.texts()  # whatever the verb, TorchX reads them now
        super().add_arguments(subparser)
        if config.get_config(prefix="cli", name="run", key="scheduler") is None:  # no .torchxconfig says otherwise
            subparser.set_defaults(scheduler=DEFAULT)

    def run(self, args: argparse.Namespace) -> None:
        with one_line():
            _require_known(args.component_name_and_args)
            if args.scheduler == OURS and args.dryrun:
                _dry_run(super().run, args)
            else:
                super().run(args)


class List(CmdList):  # type: ignore[misc]
    def add_arguments(self, subparser: argparse.ArgumentParser) -> None:
        super().add_arguments(subparser)
        subparser.set_defaults(scheduler=DEFAULT)

    def run(self, args: argparse.Namespace) -> None:
        if args.scheduler.startswith("local_"):
            sys.exit(
                f"{args.scheduler} keeps no list of jobs. Name another scheduler with -s; runs: unified-reward status"
            )
        with one_line():
            super().run(args)


class Status(CmdStatus):  # type: ignore[misc]
    def run(self, args: argparse.Namespace) -> None:
        with one_line():
            super().run(args)


class Describe(CmdDescribe):  # type: ignore[misc]
    def run(self, args: argparse.Namespace) -> None:
        with one_line():
            super().run(args)


class Cancel(CmdCancel):  # type: ignore[misc]
    def run(self, args: argparse.Namespace) -> None:
        with one_line():
            super().run(args)


class Log(CmdLog):  # type: ignore[misc]
    def add_arguments(self, subparser: argparse.ArgumentParser) -> None:
        super().add_arguments(subparser)
        subparser.add_argument("-f", "--follow", dest="tail", action="store_true", help="the same as --tail")

    def run(self, args: argparse.Namespace) -> None:
        with one_line():
            if args.identifier.startswith(f"{OURS}://"):
                validate(args.identifier)
                _print_logs(args)
            else:
                super().run(args)


class Delete(SubCommand):  # type: ignore[misc]
    """TorchX 0.7 has no verb for it."""

    def add_arguments(self, subparser: argparse.ArgumentParser) -> None:
        subparser.add_argument("app_handle", help=f"of a job of the scheduler {OURS}; its archived log stays")

    def run(self, args: argparse.Namespace) -> None:
        with one_line():
            scheduler, _, app_id = parse_app_handle(args.app_handle)
            if scheduler != OURS:
                raise UserError(field="app_handle", value=args.app_handle, why=f"{scheduler} cannot delete",
                                fix="Use torchx cancel.")  # fmt: skip
            if not _ours().delete(app_id):
                raise UserError(field="app_handle", value=args.app_handle, why="there is no such app",
                                fix=f"torchx list -s {OURS} shows what there is.")  # fmt: skip


@contextlib.contextmanager
def one_line() -> Any:
    """End with the line of a UserError instead of a traceback, whichever thread it comes from."""
    threading.excepthook = _quiet_thread
    try:
        yield
    except UserError as error:
        sys.stdout.flush()
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    except MalformedAppHandleException as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    except BrokenPipeError:  # `torchx log ... | head`
        sys.stderr.close()
        sys.exit(0)


def ray_scheduler(session_name: str, **parameters: Any) -> Any:
    """TorchX's Ray scheduler. Raises ModuleNotFoundError, which TorchX tells in a line, where Ray is not installed."""
    if find_spec("ray") is None:
        raise ModuleNotFoundError("No module named 'ray'")
    from torchx.schedulers.ray_scheduler import create_scheduler

    return create_scheduler(session_name, **parameters)


def _require_known(words: list[str]) -> None:
    """TorchX tells in three lines that it has no such component. Raises UserError where it would be one of ours."""
    name = next((word for word in words if not word.startswith("-")), "")
    if not name.startswith(COMPONENTS):
        return
    known = [each for each in get_components() if each.startswith(COMPONENTS)]
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(known)}."
        raise UserError(field="component", value=name, why="there is no such component", fix=hint)


def _dry_run(run: Any, args: argparse.Namespace) -> None:
    """The manifest alone on standard output, so that it can go to `kubectl apply -f -`; the AppDef on standard error."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        run(args)
    application, _, request = text.getvalue().partition(REQUEST)
    print(application.strip("\n"), file=sys.stderr)
    print(request, end="")


def _print_logs(args: argparse.Namespace) -> None:
    """As TorchX does it, and also of a job that is gone: TorchX waits for that for ever."""
    _, app_id, *rest = args.identifier.partition("://")[2].split("/")
    scheduler = _ours()
    if len(rest) == 2:
        role, replicas = rest[0], [int(number) for number in rest[1].split(",") if number]
    else:
        role, replicas = scheduler.replicas(app_id, *rest)
    failures: list[BaseException] = []

    def follow(replica: int) -> None:
        try:
            for line in scheduler.log_iter(
                app_id, role, replica, args.regex, should_tail=args.tail, streams=args.streams
            ):
                sys.stdout.write(_prefix_line(f"{role}/{replica} ", line))
                sys.stdout.flush()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=follow, args=(replica,), daemon=True) for replica in replicas]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def _ours() -> Any:
    from unified_reward.launch.scheduler import create_scheduler

    return create_scheduler("torchx")


def _quiet_thread(arguments: Any) -> None:
    if not issubclass(arguments.exc_type, (UserError, BrokenPipeError)):
        threading.__excepthook__(arguments)
