"""How fast a run is and how much memory it holds."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

import torch


class Throughput:
    """Units (tokens, pairs) per second since the last reading."""

    def __init__(self) -> None:
        self._units = 0.0
        self._since = time.perf_counter()

    def add(self, units: float) -> None:
        self._units += units

    def read(self) -> float:
        """Units per second of wall time since the last call; starts anew."""
        now = time.perf_counter()
        rate = self._units / max(now - self._since, 1e-9)
        self._units, self._since = 0.0, now
        return rate


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory this process has held: on the GPU what tensors took, on the CPU resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        # getrusage's maximum survives exec, so it would report a larger parent's.
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
