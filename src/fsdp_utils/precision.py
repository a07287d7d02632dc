"""Which number formats a sharded model computes and communicates in, by name."""

from __future__ import annotations

import torch
from torch.distributed.fsdp import MixedPrecisionPolicy

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def parse_dtype(name: str) -> torch.dtype:
    """The torch dtype of a configured name. Raises ValueError with the names there are."""
    if name not in DTYPES:
        raise ValueError(f"dtype is {name}: not a known number format. Use one of {', '.join(DTYPES)}.")
    return DTYPES[name]


def mixed_precision(compute: torch.dtype, *, cast_inputs: bool = True) -> MixedPrecisionPolicy:
    """Parameters are gathered and used in `compute`; gradients are summed, and optimizers work, in float32.

    The master parameters stay in the dtype they were made with (float32).
    cast_inputs: cast a unit's float inputs too: LayerNorms of a bfloat16 vision tower refuse float32 activations.
    """
    if compute == torch.float32:
        return MixedPrecisionPolicy()
    return MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32, cast_forward_inputs=cast_inputs)
