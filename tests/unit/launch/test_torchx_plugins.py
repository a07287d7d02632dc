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


@pytest.mark.parametrize(
    ("said", "words", "told"),
    [
        ("[pytorchjob]\ngrace = soon\n", [], ".torchxconfig grace is soon: it is no whole number. Write digits only."),
        ("[pytorchjob]\nnode_selector = ssd\n", [], ".torchxconfig node_selector is ssd: it has no colon."),
        ("[pytorchjob]\nnamespace = Bad_NS\n", [], "-cfg namespace is Bad_NS: it is no name"),
        ("", ["--steps", "0"], "reward-train.steps is 0: Input should be greater than or equal to 1."),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    said: str,
    words: list[str],
    told: str,
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(config.parent / "none"))
    config.write_text(said)
    command, parser = get_sub_cmds()["run"], argparse.ArgumentParser()
    command.add_arguments(parser)
    with pytest.raises(SystemExit) as caught:
        command.run(parser.parse_args(["-s", "pytorchjob", "--dryrun", "ur.reward_train", *words]))
    assert caught.value.code == 2
    assert f"error: {told}" in capsys.readouterr().err


def test_a_component_that_there_is_not_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        get_sub_cmds()["run"].run(_parser("run").parse_args(["ur.reward_trian"]))
    assert caught.value.code == 2
    told = "error: component is ur.reward_trian: there is no such component. Did you mean ur.reward_train?\n"
    assert capsys.readouterr().err == told


@pytest.mark.parametrize("text", ["x\n", "[pytorchjob]\na = 1\na = 2\n", "[pytorchjob]\na = 5%\n"])
def test_a_config_file_that_cannot_be_read_is_one_line(
    config: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    config.write_text(text)
    with pytest.raises(SystemExit) as caught:
        _parser("run")
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: .torchxconfig is {config}: it cannot be read (")


def test_a_config_file_that_there_is_not_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCHXCONFIG", "/nowhere")
    with pytest.raises(SystemExit):
        _parser("run")
    assert capsys.readouterr().err == "error: TORCHXCONFIG is /nowhere: there is no such file. Name one, or unset it.\n"
