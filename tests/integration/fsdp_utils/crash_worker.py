"""Run by test_crash: commits step 1, then dies by SIGKILL at a named point of saving step 2."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn

from fsdp_utils.checkpoint import Checkpointer
from fsdp_utils.context import DistContext
from fsdp_utils.storage import LocalDirectory


class DiesStoring(LocalDirectory):
    """Dies before a file of step 2 that ends with `last` appears under its name."""

    def __init__(self, root: Path, last: str) -> None:
        super().__init__(root)
        self.last = last

    def put_file(self, local: Path, key: str) -> None:
        if key.startswith("step-000002") and key.endswith(self.last):
            os.kill(os.getpid(), signal.SIGKILL)
        super().put_file(local, key)


def main() -> None:
    root, last = Path(sys.argv[1]), sys.argv[2]
    context = DistContext.init("cpu")
    torch.manual_seed(0)
    model = nn.Linear(4, 4)
    checkpoints = Checkpointer(
        DiesStoring(root, last), context, staging=root / ".staging", asynchronous=last == "COMMIT"
    )
    for step in (1, 2):
        with torch.no_grad():
            model.weight.fill_(step)
        checkpoints.save(step, model, [], {})
    checkpoints.wait()


if __name__ == "__main__":
    main()
