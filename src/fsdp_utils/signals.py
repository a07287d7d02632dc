"""A polite end: SIGTERM sets a flag, the loop reads it between steps, saves, and exits with 143."""

from __future__ import annotations

import signal
from types import FrameType

import torch
import torch.distributed as dist

from fsdp_utils.context import DistContext

EXIT_CODE = 128 + signal.SIGTERM  # 143: what a shell reports for a process that SIGTERM ended


class StopSignal:
    """Catches SIGTERM from its making until close(). Must be made in the main thread."""

    def __init__(self) -> None:
        self.requested = False
        self._previous = signal.signal(signal.SIGTERM, self._request)

    def _request(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.requested = True

    def agreed(self, context: DistContext) -> bool:
        """Whether any rank was asked to stop: the same answer on every rank, so that all leave at the same step."""
        if context.world_size == 1:
            return self.requested
        flag = torch.tensor([int(self.requested)], device=context.device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag.item())

    def close(self) -> None:
        """Give SIGTERM back to whoever had it."""
        signal.signal(signal.SIGTERM, self._previous)
