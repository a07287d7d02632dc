"""SIGKILL in the middle of a save: the checkpoint before it stays usable, and the run goes on from there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from fsdp_utils.checkpoint import Checkpointer
from fsdp_utils.context import DistContext

pytestmark = pytest.mark.integration
WORKER = Path(__file__).with_name("crash_worker.py")
POINTS = {"metadata": ".metadata", "tensors": ".distcp", "commit": "COMMIT"}


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Directory left by a process that died at each point; the processes run side by side."""
    folder = tmp_path_factory.mktemp("crash")
    started = {
        point: subprocess.Popen(
            [sys.executable, str(WORKER), str(folder / point), last], env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        for point, last in POINTS.items()
    }
    codes = {point: process.wait(timeout=120) for point, process in started.items()}
    assert set(codes.values()) == {-signal.SIGKILL}, codes
    return {point: folder / point for point in POINTS}


@pytest.fixture
def context() -> Iterator[DistContext]:
    made = DistContext.init("cpu")
    yield made
    made.close()


@pytest.mark.parametrize("point", list(POINTS))
def test_the_step_before_is_loaded_and_saving_goes_on(
    crashed: dict[str, Path], point: str, context: DistContext
) -> None:
    root = crashed[point]
    assert list((root / ".staging").iterdir())  # the dead process left its workspace
    checkpoints = Checkpointer.local(root, context)
    assert not list((root / ".staging").iterdir())

    model = nn.Linear(4, 4)
    restored = checkpoints.load(model)
    assert restored is not None
    assert restored.step == 1
    assert torch.equal(model.weight, torch.full((4, 4), 1.0))

    with torch.no_grad():
        model.weight.fill_(2)
    checkpoints.save(2, model, [], {})
    checkpoints.save(3, model, [], {})
    assert checkpoints.latest() == 3
    assert checkpoints.steps() == [2, 3]
    assert {path.name for path in root.iterdir()} == {".staging", "step-000002", "step-000003"}
