"""Diffusion-DPO under FSDP2: two gloo ranks compute what one process computes, and can draw images in between."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

WORKER = Path(__file__).with_name("two_rank_worker.py")


def run(ranks: int, out: Path) -> dict[str, torch.Tensor | dict[str, torch.Tensor]]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    done = subprocess.run(
        [*command, str(WORKER), str(out)], capture_output=True, text=True, timeout=240,
        env=os.environ | {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(out, weights_only=True)


@pytest.mark.integration
@pytest.mark.slow
def test_two_ranks_equal_one(tmp_path: Path) -> None:
    one, two = run(1, tmp_path / "one.pt"), run(2, tmp_path / "two.pt")
    torch.testing.assert_close(two["total"], one["total"], rtol=1e-4, atol=1e-5)
    assert two["gradients"].keys() == one["gradients"].keys()
    assert sum(float(g.norm()) for g in one["gradients"].values()) > 0
    for name, gradient in one["gradients"].items():
        assert float((two["gradients"][name] - gradient).norm()) <= 2e-4 * float(gradient.norm()), name
    assert int((one["images"].int() - two["images"].int()).abs().max()) <= 1
