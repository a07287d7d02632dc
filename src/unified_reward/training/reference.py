"""Reference log-probs, computed once before DPO and kept by content, so that training holds one model only.

The key of a pair is the sha256 of the reference's weights, the prompt's tokens, positions and media, and the answers'
tokens; the value is one log-prob per answer token (float32, nats). Values are stored a batch at a time as parquet, under
a name made of the batch's keys: whatever was computed before, by any number of ranks, is found again.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fsdp_utils.context import DistContext
from fsdp_utils.sharding import reshard
from unified_reward.training.logprobs import forward_inputs
from unified_reward.training.packing import Tree, pack

ReferenceLogProbs = tuple[NDArray[np.float32], ...]  # one array per answer: [tokens], nats

_SCHEMA = pa.schema([("key", pa.string()), ("answer", pa.int32()), ("logprobs", pa.list_(pa.float32()))])


class Blobs(Protocol):
    """The part of an object store used here. All ranks must see the same one."""

    def head(self, key: str, /) -> object | None:
        """Something, or None when there is no such key."""

    def get(self, key: str, /) -> bytes:
        """The bytes stored under the key."""

    def put_if_absent(self, key: str, data: bytes, /) -> object:
        """Store the bytes, unless the key is there already."""


def reference_logprobs(
    scorer: nn.Module,
    trees: Sequence[Tree],
    *,
    weights_digest: str,
    pad_id: int,
    blobs: Blobs,
    prefix: str,
    dist: DistContext,
    batch: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> list[ReferenceLogProbs]:
    """Per-token log-probs of every tree's answers under `scorer` (a TokenScorer of the reference), in order.

    Every rank calls it and gets all; what is not stored yet is shared out by batches. The scorer may be sharded: ranks
    run the same number of forwards. prefix: where in the store the values stand. progress: (batches done, of).
    """
    # Trees of like length share a batch: less padding, and the plan depends on the data only.
    order = sorted(range(len(trees)), key=lambda i: (len(trees[i]), i))
    plan = [order[start : start + batch] for start in range(0, len(order), batch)]
    keys = [tree_key(tree, weights_digest) for tree in trees]
    names = [f"{prefix}/{_name([keys[i] for i in members])}.parquet" for members in plan]
    missing: list[int] = dist.broadcast_object([n for n, name in enumerate(names) if blobs.head(name) is None])
    training = scorer.training
    scorer.eval()
    for start in range(0, len(missing), dist.world_size):
        # The last round may have fewer batches than ranks: the rest repeat its last one, to keep collectives in step.
        mine = missing[min(start + dist.rank, len(missing) - 1)]
        values = _compute(scorer, [trees[i] for i in plan[mine]], pad_id, dist.device)
        if start + dist.rank < len(missing):
            blobs.put_if_absent(names[mine], _to_parquet([keys[i] for i in plan[mine]], values))
        if progress is not None:
            progress(min(start + dist.world_size, len(missing)), len(missing))
    reshard(scorer)
    scorer.train(training)
    dist.barrier()
    known: dict[str, ReferenceLogProbs] = {}
    for name in names:
        known.update(_from_parquet(blobs.get(name)))
    return [known[key] for key in keys]


def tree_key(tree: Tree, weights_digest: str) -> str:
    """sha256 hex of everything the tree's log-probs depend on."""
    digest = hashlib.sha256(weights_digest.encode())
    prompt = tree.prompt
    arrays = [np.asarray(prompt.input_ids, dtype=np.int64), prompt.positions.astype(np.int64)]
    arrays += [np.ascontiguousarray(p, dtype=np.float32) for p in (*prompt.image_patches, *prompt.video_patches)]
    arrays += [np.asarray(grid, dtype=np.int64) for grid in (*prompt.image_grids, *prompt.video_grids)]
    arrays += [np.asarray(answer, dtype=np.int64) for answer in tree.answers]
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


@torch.no_grad()
def _compute(scorer: nn.Module, trees: Sequence[Tree], pad_id: int, device: torch.device) -> list[ReferenceLogProbs]:
    batch = pack(trees, pad_id)
    logprobs: Tensor = scorer(forward_inputs(batch, device))[0].cpu()
    counts = torch.bincount(batch["owners"], minlength=sum(1 + len(tree.answers) for tree in trees))
    pieces = iter(torch.split(logprobs, counts.tolist()))
    values = []
    for tree in trees:
        next(pieces)  # the prompt's own targets
        values.append(tuple(next(pieces).numpy() for _ in tree.answers))
    return values


def _name(keys: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()


def _to_parquet(keys: Sequence[str], values: Sequence[ReferenceLogProbs]) -> bytes:
    rows = [
        {"key": key, "answer": number, "logprobs": logprobs.tolist()}
        for key, answers in zip(keys, values, strict=True)
        for number, logprobs in enumerate(answers)
    ]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), buffer)
    return buffer.getvalue()


def _from_parquet(data: bytes) -> dict[str, ReferenceLogProbs]:
    answers: dict[str, list[NDArray[np.float32]]] = {}
    for row in pq.read_table(io.BytesIO(data)).to_pylist():
        answers.setdefault(row["key"], []).append(np.asarray(row["logprobs"], dtype=np.float32))
    return {key: tuple(values) for key, values in answers.items()}
