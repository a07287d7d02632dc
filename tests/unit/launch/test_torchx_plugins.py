"""What TorchX still offers beside ours, and what it takes when no scheduler is named."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

import pytest
from torchx.cli.argparse_util import torchxconfig
from torchx.cli.main import get_sub_cmds
from torchx.runner import get_runner
from torchx.schedulers import DEFAULT_SCHEDULER_MODULES, get_scheduler_factories


def _parser(command: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    get_sub_cmds()[command].add_arguments(parser)
    return parser


@pytest.fixture(autouse=True)
def config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The config file TorchX reads, empty at first; TorchX keeps what it read and which options it saw per process."""
    file = tmp_path / ".torchxconfig"
    file.touch()
    monkeypatch.setenv("TORCHXCONFIG", str(file))
    monkeypatch.setattr(torchxconfig, "_subcmd_configs", {})
    monkeypatch.setattr(torchxconfig, "called_args", set())
    return file


def test_every_scheduler_of_torchx_is_still_there() -> None:
    assert set(get_scheduler_factories()) >= set(DEFAULT_SCHEDULER_MODULES)
    with get_runner() as runner:
        for name in ("local_cwd", "slurm"):
            assert runner.scheduler_run_opts(name) is not None


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_a_scheduler_without_its_library_is_told_apart_from_a_defect() -> None:
    with pytest.raises(ModuleNotFoundError, match="No module named 'ray'"):
        get_scheduler_factories()["ray"]("session")


@pytest.mark.parametrize("command", ["run", "list"])
def test_the_default_is_this_machine(command: str) -> None:
    assert _parser(command).parse_args([]).scheduler == "local_cwd"
    assert _parser(command).parse_args(["-s", "slurm"]).scheduler == "slurm"


def test_a_config_file_still_decides(config: Path) -> None:
    config.write_text("[cli:run]\nscheduler = slurm\n")
    assert _parser("run").parse_args([]).scheduler == "slurm"


def test_local_jobs_are_not_listed_but_no_traceback() -> None:
    arguments = _parser("list").parse_args([])
    with pytest.raises(SystemExit, match="local_cwd keeps no list of jobs"):
        get_sub_cmds()["list"].run(arguments)
