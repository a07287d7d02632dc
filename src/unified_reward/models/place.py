"""Where a model that is not trained computes, and in which numbers."""

from __future__ import annotations

import torch

from unified_reward.config.stages import Precision
from unified_reward.errors import UserError


def inference_dtype(device: torch.device | str) -> torch.dtype:
    """What models that are not trained compute in: bfloat16 on a GPU, float32 on a CPU."""
    return torch.bfloat16 if torch.device(device).type == "cuda" else torch.float32


def place(device: str, precision: str = "") -> tuple[torch.device, torch.dtype]:
    """What --device and --precision name; "" = `inference_dtype`. Raises UserError, before any weights are read."""
    if precision and precision not in tuple(Precision):
        raise UserError(field="--precision", value=precision, why="there are no such numbers to compute in",
                        fix=f"Use {' or '.join(Precision)}.")  # fmt: skip
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without this kind
        raise UserError(field="--device", value=device, why=f"torch cannot use it ({str(error).splitlines()[0]})",
                        fix="Use cpu, or cuda where there is a GPU and torch is its CUDA build.") from error  # fmt: skip
    dtypes = {Precision.FLOAT32.value: torch.float32, Precision.BFLOAT16.value: torch.bfloat16}
    return torch.device(device), dtypes[precision] if precision else inference_dtype(device)
