"""Run by test_two_ranks in two processes: many checks in one start. Each rank writes what it measured to a JSON file.

Phases: two ranks, then rank 0 alone in a group of one, then two ranks again.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tiny_model import SummedLoss, decoder_units, row, tiny_config, tiny_model
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.optim import AdamW, Optimizer
from transformers import Qwen2_5_VLForConditionalGeneration

from fsdp_utils.checkpoint import Checkpointer
from fsdp_utils.checkpoint_reader import CheckpointError
from fsdp_utils.clip import clip_grad_norm
from fsdp_utils.context import DistContext
from fsdp_utils.export import export_huggingface
from fsdp_utils.init import DirectoryReader, init_from_files
from fsdp_utils.mesh import make_mesh
from fsdp_utils.muon import Muon, split_params
from fsdp_utils.precision import mixed_precision
from fsdp_utils.reduce import all_sum, reduce_metrics
from fsdp_utils.sharding import ShardingPlan, apply_fsdp, checkpoint_activations, freeze, register_forward_methods
from fsdp_utils.signals import StopSignal
from fsdp_utils.storage import LocalDirectory

Rows = list[dict[str, Tensor]]
PICTURES = [row(seed, picture=True) for seed in (1, 2)]
TEXTS = [row(seed, picture=False) for seed in (3, 4)]
MIXED = [PICTURES, TEXTS]  # rank 0 sees pictures, rank 1 none
EVEN = [[PICTURES[0], TEXTS[0]], [PICTURES[1], TEXTS[1]]]
TOKENS = 11  # targets in a row


def full(tensor: Tensor) -> Tensor:
    return (tensor.detach().full_tensor() if isinstance(tensor, DTensor) else tensor.detach()).clone()


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {name: full(p.grad) for name, p in module.named_parameters() if p.grad is not None}


def max_difference(left: dict[str, Tensor], right: dict[str, Tensor]) -> float:
    return max(float((left[name] - right[name]).abs().max()) for name in left.keys() | right.keys())


def sharded(
    context: DistContext, *, tied: bool = False, replicate: int = 1, remat: bool = False, **options: Any
) -> SummedLoss:
    root = SummedLoss(tiny_model(tied=tied))
    if remat:
        checkpoint_activations(root.model.model.language_model.layers)
    mesh = make_mesh("cpu", context.world_size, replicate)
    apply_fsdp(root, ShardingPlan(mesh, decoder_units(root.model, tied=tied), **options))
    return root


def backward(root: nn.Module, rows: Rows, context: DistContext) -> None:
    """Loss per global target token, so that sums over ranks are the gradient of the mean over all rows."""
    (root(rows) / all_sum(TOKENS * len(rows), context)).backward()


def reference_gradients(split: list[Rows], *, tied: bool = False) -> dict[str, Tensor]:
    root = SummedLoss(tiny_model(tied=tied))
    rows = [one for part in split for one in part]
    (root(rows) / (TOKENS * len(rows))).backward()
    return gradients(root)


def optimizers(root: nn.Module) -> list[Optimizer]:
    matrices, rest = split_params(root)
    return [Muon(matrices.values(), lr=1e-2, weight_decay=0.01), AdamW(rest.values(), lr=1e-2, weight_decay=0.01)]


def train_step(root: nn.Module, steppers: list[Optimizer], context: DistContext) -> float:
    backward(root, MIXED[context.rank] if context.world_size == 2 else PICTURES + TEXTS, context)
    norm = clip_grad_norm(root.parameters(), 1.0)
    for stepper in steppers:
        stepper.step()
        stepper.zero_grad()
    return float(norm)


def state(root: nn.Module, steppers: list[Optimizer]) -> dict[str, Tensor]:
    """Every parameter and every optimizer state, whole."""
    found = {name: full(p) for name, p in root.named_parameters()}
    for name, parameter in root.named_parameters():
        for stepper in steppers:
            for key, value in stepper.state.get(parameter, {}).items():
                found[f"{name}:{key}"] = full(value)
    return found


def check_gradients(context: DistContext, folder: Path) -> dict[str, Any]:
    del folder
    found: dict[str, Any] = {}
    cases: dict[str, tuple[list[Rows], dict[str, Any]]] = {
        "even": (EVEN, {}),
        "mixed": (MIXED, {}),
        "tied": (EVEN, {"tied": True}),
        "hsdp": (EVEN, {"replicate": 2}),
        "remat": (EVEN, {"remat": True}),
        "offload": (EVEN, {"cpu_offload": True}),
        "kept": (EVEN, {"reshard_after_forward": False}),
    }
    for name, (split, options) in cases.items():
        root = sharded(context, **options)
        backward(root, split[context.rank], context)
        found[name] = max_difference(gradients(root), reference_gradients(split, tied=options.get("tied", False)))
    return found


def check_clip(context: DistContext, folder: Path) -> dict[str, Any]:
    del folder
    root = sharded(context)
    backward(root, MIXED[context.rank], context)
    plain = SummedLoss(tiny_model())
    backward_rows = [one for part in MIXED for one in part]
    (plain(backward_rows) / (TOKENS * len(backward_rows))).backward()
    norm, expected = clip_grad_norm(root.parameters(), 0.05), nn.utils.clip_grad_norm_(plain.parameters(), 0.05)
    return {
        "norm": float(norm),
        "expected": float(expected),
        "difference": max_difference(gradients(root), gradients(plain)),
    }


def check_muon(context: DistContext, folder: Path) -> dict[str, Any]:
    del folder
    mesh, generator = make_mesh("cpu", context.world_size), torch.Generator().manual_seed(0)
    shapes = [(8, 8), (8, 8), (33, 7), (1, 5), (6, 40)]  # rows that do not divide, and fewer rows than ranks
    starts = [torch.randn(shape, generator=generator) for shape in shapes]
    plain = [nn.Parameter(start.clone()) for start in starts]
    split = [nn.Parameter(distribute_tensor(start.clone(), mesh, [Shard(0)])) for start in starts]
    theirs = torch.optim.Muon(plain, lr=0.02, momentum=0.95, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    ours = Muon(split, lr=0.02, momentum=0.95, weight_decay=0.1)
    for _ in range(5):
        for left, right in zip(plain, split, strict=True):
            left.grad = torch.randn(left.shape, generator=generator)
            right.grad = distribute_tensor(left.grad.clone(), mesh, [Shard(0)])
        theirs.step()
        ours.step()
    moved = max(float((a - b.detach()).abs().max()) for a, b in zip(starts, plain, strict=True))
    difference = max(float((full(b) - full(a)).abs().max()) for a, b in zip(plain, split, strict=True))
    return {"difference": difference, "moved": moved}


def check_precision(context: DistContext, folder: Path) -> dict[str, Any]:
    del folder
    root = SummedLoss(tiny_model())
    frozen = freeze(root, lambda name: ".visual." in name)
    plan = ShardingPlan(
        make_mesh("cpu", context.world_size), decoder_units(root.model), mixed_precision(torch.bfloat16)
    )
    apply_fsdp(root, plan)
    backward(root, EVEN[context.rank], context)
    found = gradients(root)
    exact = reference_gradients(EVEN)
    error = max(float((found[n] - exact[n]).norm() / exact[n].norm().clamp(min=1e-3)) for n in found)
    return {
        "frozen": len(frozen),
        "frozen_with_gradient": [n for n in found if ".visual." in n],
        "dtypes": sorted({str(gradient.dtype) for gradient in found.values()}),
        "relative_error": error,
    }


def check_init(context: DistContext, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for tied in (False, True):
        source = folder / f"pretrained-{tied}"
        if context.is_main:
            tiny_model(tied=tied, seed=5).save_pretrained(source, max_shard_size=60_000)
        context.barrier()
        plain = Qwen2_5_VLForConditionalGeneration.from_pretrained(source)
        with torch.device("meta"):
            model = Qwen2_5_VLForConditionalGeneration(tiny_config(tied=tied))
        root = SummedLoss(model)
        apply_fsdp(root, ShardingPlan(make_mesh("cpu", context.world_size), decoder_units(model, tied=tied)))
        loaded = init_from_files(root, DirectoryReader(source), context.device, model=model)
        with torch.no_grad():
            loss, expected = float(root(PICTURES + TEXTS)), float(SummedLoss(plain)(PICTURES + TEXTS))
        weights = max_difference(
            {n: full(p) for n, p in root.named_parameters()}, dict(SummedLoss(plain).named_parameters())
        )
        size = sum(p.numel() * 4 for p in plain.parameters())
        buffers = max_difference(dict(model.named_buffers()), dict(plain.named_buffers()))
        found[str(tied)] = {
            "weights": weights, "buffers": buffers, "loss": loss - expected, "share_read": loaded.bytes_read / size,
        }  # fmt: skip
    return found


def check_export(context: DistContext, folder: Path) -> dict[str, Any]:
    root = sharded(context)
    train_step(root, optimizers(root), context)
    with torch.no_grad():
        root(PICTURES)  # leaves the root's group gathered: export must still write shards' values
    export_huggingface(root.model, folder / "export", context, max_file_bytes=60_000)
    whole = {name: full(p) for name, p in root.model.named_parameters()}
    if not context.is_main:
        return {}
    again = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder / "export")
    tiny_model().save_pretrained(folder / "theirs", max_shard_size=60_000)
    ours, theirs = (json.loads((folder / n / "model.safetensors.index.json").read_text()) for n in ("export", "theirs"))
    return {
        "difference": max_difference(whole, {n: p.detach() for n, p in again.named_parameters()}),
        "files": len(list((folder / "export").glob("*.safetensors"))),
        "same_names": ours["weight_map"].keys() == theirs["weight_map"].keys(),
        "same_total": ours["metadata"]["total_size"] == theirs["metadata"]["total_size"],
    }


def check_generate(context: DistContext, folder: Path) -> dict[str, Any]:
    del folder
    plain, model = tiny_model(), tiny_model()
    apply_fsdp(model, ShardingPlan(make_mesh("cpu", context.world_size), decoder_units(model)))
    register_forward_methods(model, ["generate"])
    inputs = {key: TEXTS[0][key] for key in ("input_ids", "attention_mask")}
    options = {"max_new_tokens": 5, "do_sample": False}
    return {"equal": torch.equal(model.generate(**inputs, **options), plain.generate(**inputs, **options))}


def check_sums(context: DistContext, folder: Path) -> dict[str, Any]:
    del folder
    mine = {"loss": (torch.tensor(2.0 + context.rank), 2.0)} | ({"pictures": (3.0, 1.0)} if context.is_main else {})
    stop = StopSignal()
    before = stop.agreed(context)
    if not context.is_main:
        os.kill(os.getpid(), signal.SIGTERM)
    after = stop.agreed(context)
    stop.close()
    return {"metrics": reduce_metrics(mine, context), "before": before, "after": after}


class OneRankFails(LocalDirectory):
    """A full disk on rank 1."""

    def put_file(self, local: Path, key: str) -> None:
        if "__1_" in key:
            raise OSError(28, "No space left on device")
        super().put_file(local, key)


def check_failed_store(context: DistContext, folder: Path) -> dict[str, Any]:
    root, where = sharded(context), folder / "failing"
    checkpoints = Checkpointer(OneRankFails(where), context, staging=where / ".staging")
    try:
        checkpoints.save(1, root, [], {})
    except CheckpointError as error:
        message = str(error)
    else:
        message = ""
    good = Checkpointer.local(where, context)
    before = good.steps()
    good.save(1, root, [], {})
    return {"message": message, "before": before, "after": good.steps()}


def phase_save(context: DistContext, folder: Path) -> dict[str, Any]:
    """Save by two ranks, synchronously and not; then go on, to compare with a resumed run."""
    root = sharded(context)
    steppers = optimizers(root)
    checkpoints = Checkpointer.local(folder / "run", context, keep=3, asynchronous=True)
    train_step(root, steppers, context)
    checkpoints.save(1, root, steppers, {"consumed": 4})
    train_step(root, steppers, context)  # while step 1 is being written
    checkpoints.save(2, root, steppers, {"consumed": 8})
    saved = state(root, steppers)
    checkpoints.close()
    norm = train_step(root, steppers, context)
    after = state(root, steppers)
    if context.is_main:
        torch.save({"saved": saved, "after": after}, folder / "expected.pt")
    return {"steps": checkpoints.steps(), "norm": norm}


def phase_alone(context: DistContext, folder: Path) -> dict[str, Any]:
    """One rank loads what two saved, without sharding, and saves it again."""
    root = SummedLoss(tiny_model(seed=9))
    steppers = optimizers(root)
    checkpoints = Checkpointer.local(folder / "run", context, keep=3)
    restored = checkpoints.load(root, steppers)
    assert restored is not None
    expected = torch.load(folder / "expected.pt")
    difference = max_difference(state(root, steppers), expected["saved"])
    checkpoints.save(3, root, steppers, restored.extra)
    norm = train_step(root, steppers, context)
    return {"step": restored.step, "extra": restored.extra, "difference": difference, "norm": norm}


def phase_again(context: DistContext, folder: Path) -> dict[str, Any]:
    """Two ranks load what one saved; a further step gives what the uninterrupted run gave."""
    root = sharded(context)
    steppers = optimizers(root)
    restored = Checkpointer.local(folder / "run", context, keep=3).load(root, steppers)
    assert restored is not None
    expected = torch.load(folder / "expected.pt")
    difference = max_difference(state(root, steppers), expected["saved"])
    norm = train_step(root, steppers, context)
    return {
        "step": restored.step, "difference": difference, "norm": norm,
        "after": max_difference(state(root, steppers), expected["after"]),
    }  # fmt: skip


CHECKS: list[Callable[[DistContext, Path], dict[str, Any]]] = [
    check_gradients, check_clip, check_muon, check_precision, check_init, check_export, check_generate, check_sums,
    check_failed_store, phase_save,
]  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    folder, ports = Path(sys.argv[1]), sys.argv[2:]
    rank, found = int(os.environ["RANK"]), {}
    os.environ["MASTER_PORT"] = ports[0]
    context = DistContext.init("cpu", timeout_s=120)
    for check in CHECKS:
        found[check.__name__] = check(context, folder)
    context.close()
    if rank == 0:
        group = {name: os.environ.pop(name) for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")}
        context = DistContext.init("cpu")
        found["phase_alone"] = phase_alone(context, folder)
        context.close()
        os.environ.update(group)
    os.environ["MASTER_PORT"] = ports[1]
    context = DistContext.init("cpu", timeout_s=120)
    found["phase_again"] = phase_again(context, folder)
    context.close()
    (folder / f"rank{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
