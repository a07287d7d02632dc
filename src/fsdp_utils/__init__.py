"""Sharded training from outside the model: FSDP2, clipping, Muon, checkpoints, export. See docs/fsdp-utils.md.

Names are imported when first used, so that `import fsdp_utils` does not load torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fsdp_utils.checkpoint import Checkpointer, Restored
    from fsdp_utils.checkpoint_reader import CheckpointError
    from fsdp_utils.clip import clip_grad_norm
    from fsdp_utils.context import DistContext
    from fsdp_utils.export import export_huggingface, export_safetensors
    from fsdp_utils.init import DirectoryReader, InitError, Loaded, Reader, init_from_files
    from fsdp_utils.mesh import make_mesh
    from fsdp_utils.metrics import peak_memory_bytes
    from fsdp_utils.muon import Muon, split_params
    from fsdp_utils.precision import mixed_precision, parse_dtype
    from fsdp_utils.reduce import all_sum, reduce_metrics
    from fsdp_utils.sharding import (
        ShardingError,
        ShardingPlan,
        apply_fsdp,
        checkpoint_activations,
        compile_blocks,
        freeze,
        register_forward_methods,
        reshard,
    )
    from fsdp_utils.signals import EXIT_CODE, StopSignal
    from fsdp_utils.storage import LocalDirectory, Storage

__all__ = [
    "EXIT_CODE",
    "CheckpointError",
    "Checkpointer",
    "DirectoryReader",
    "DistContext",
    "InitError",
    "Loaded",
    "LocalDirectory",
    "Muon",
    "Reader",
    "Restored",
    "ShardingError",
    "ShardingPlan",
    "StopSignal",
    "Storage",
    "all_sum",
    "apply_fsdp",
    "checkpoint_activations",
    "clip_grad_norm",
    "compile_blocks",
    "export_huggingface",
    "export_safetensors",
    "freeze",
    "init_from_files",
    "make_mesh",
    "mixed_precision",
    "parse_dtype",
    "peak_memory_bytes",
    "reduce_metrics",
    "register_forward_methods",
    "reshard",
    "split_params",
]

_NAMES_OF = {
    "checkpoint": "Checkpointer Restored",
    "checkpoint_reader": "CheckpointError",
    "clip": "clip_grad_norm",
    "context": "DistContext",
    "export": "export_huggingface export_safetensors",
    "init": "DirectoryReader InitError Loaded Reader init_from_files",
    "mesh": "make_mesh",
    "metrics": "peak_memory_bytes",
    "muon": "Muon split_params",
    "precision": "mixed_precision parse_dtype",
    "reduce": "all_sum reduce_metrics",
    "sharding": "ShardingError ShardingPlan apply_fsdp checkpoint_activations compile_blocks freeze "
    "register_forward_methods reshard",
    "signals": "EXIT_CODE StopSignal",
    "storage": "LocalDirectory Storage",
}
_MODULE_OF = {name: module for module, names in _NAMES_OF.items() for name in names.split()}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'fsdp_utils' has no attribute {name!r}")
    return getattr(import_module(f"fsdp_utils.{_MODULE_OF[name]}"), name)
