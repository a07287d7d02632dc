"""How the process of a stage ends: what is said of a memory that is exhausted, and what keeps its traceback."""

from __future__ import annotations

import errno
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from unified_reward.errors import UserError
from unified_reward.stages import __main__ as stage_process
from unified_reward.stages.__main__ import OUT_OF_MEMORY
from unified_reward.store.errors import KeysRefused, Unreachable


def _too_much_of_the_host() -> None:
    torch.empty(1 << 60, dtype=torch.uint8)


def _too_much_of_a_device() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nSee documentation")


def _behind_another_error() -> None:
    try:
        raise MemoryError
    except MemoryError as error:
        raise ValueError("a batch could not be made") from error


def _no_process() -> None:
    raise OSError(errno.ENOMEM, "Cannot allocate memory")


def _end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, work: Callable[[], None]) -> tuple[int, str]:
    def execute(*_: Any, **__: Any) -> None:
        work()

    line = tmp_path / "error.txt"
    monkeypatch.setenv("UR_ERROR_FILE", str(line))
    monkeypatch.setattr(stage_process, "_spec", lambda _: None)
    monkeypatch.setattr(stage_process, "execute", execute)
    return stage_process.main([]), line.read_text()


@pytest.mark.parametrize(
    ("work", "told"),
    [
        (_too_much_of_the_host, "can't allocate memory: you tried to allocate"),
        (_too_much_of_a_device, "memory is exhausted (CUDA out of memory. Tried to allocate 20.00 MiB): lower the batch"),
        (_behind_another_error, "memory is exhausted: lower the batch"),
        (_no_process, "Cannot allocate memory"),
    ],
)  # fmt: skip
def test_exhausted_memory_is_one_line_wherever_it_was(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    work: Callable[[], None],
    told: str,
) -> None:
    code, line = _end(monkeypatch, tmp_path, work)
    assert code == OUT_OF_MEMORY
    assert told in line
    assert capfd.readouterr().err == f"error: {line}\n"


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes differ"), OSError(errno.ENOSPC, "No space left"), ValueError("x")]
)
def test_any_other_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error)):
        _end(monkeypatch, tmp_path, fail)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError(field="spec.steps", value=0, why="it is too few", fix="Use more."), 2),
        (Unreachable(field="store", value="s3://b", why="no answer came", fix="Check it."), 75),
        (KeysRefused(field="store", value="s3://b", why="it does not know these keys", fix="Check them."), 75),
    ],
)
def test_a_store_that_is_away_is_told_from_a_mistake(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: UserError, code: int
) -> None:
    def fail() -> None:
        raise pickle.loads(pickle.dumps(error))  # as it comes from another process

    assert _end(monkeypatch, tmp_path, fail) == (code, str(error))
