"""Memory and CPU of this process and everything below it, sampled while a run goes on."""

from __future__ import annotations

import contextlib
import threading
from typing import Self

import psutil

INTERVAL_S = 0.5


class Usage:
    """peak_rss_bytes: largest sum of resident memory seen (shared pages count once per process). cpu_seconds: user and
    system time of every process seen, each as last seen before it ended."""

    def __init__(self) -> None:
        self.peak_rss_bytes = 0
        self._cpu: dict[tuple[int, float], float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="usage", daemon=True)

    @property
    def cpu_seconds(self) -> float:
        return sum(self._cpu.values())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.sample()

    def sample(self) -> None:
        own = psutil.Process()
        total = 0
        for process in [own, *own.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied), process.oneshot():
                total += process.memory_info().rss
                times = process.cpu_times()
                self._cpu[process.pid, process.create_time()] = times.user + times.system
        self.peak_rss_bytes = max(self.peak_rss_bytes, total)

    def _loop(self) -> None:
        while not self._stop.wait(INTERVAL_S):
            self.sample()
