"""System metrics of a stage: the machine's load and the memory of the stage's whole process tree, every few seconds.

The names are those of MLflow's own monitor, so that its page shows them as system metrics. That monitor is not used
because it needs the MLflow client in every stage process (a second of CPU, 130 MB) and loses samples in an outage.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psutil

INTERVAL_S = 5.0
FIRST_AFTER_S = 1.0
PREFIX = "system/"
PROCESS_TREE_MEMORY = PREFIX + "process_tree_memory_megabytes"

Sample = dict[str, float]


def sample(network_before: tuple[int, int] = (0, 0)) -> Sample:
    """One reading. Percentages are of the whole machine, megabytes are 10^6 bytes.

    network_before: bytes received and sent that are not counted.
    """
    memory = psutil.virtual_memory()
    disk = psutil.disk_usage(os.sep)
    reading = {
        "cpu_utilization_percentage": psutil.cpu_percent(),
        "system_memory_usage_megabytes": memory.used / 1e6,
        "system_memory_usage_percentage": memory.used / memory.total * 100,
        "disk_usage_percentage": disk.percent,
        "disk_available_megabytes": disk.free / 1e6,
        **_gpus(),
    }
    received, sent = network_bytes()
    reading["network_receive_megabytes"] = (received - network_before[0]) / 1e6
    reading["network_transmit_megabytes"] = (sent - network_before[1]) / 1e6
    named = {PREFIX + name: round(value, 1) for name, value in reading.items()}
    return {**named, PROCESS_TREE_MEMORY: round(process_tree_bytes() / 1e6, 1)}


def network_bytes() -> tuple[int, int]:
    """Bytes received and sent by the machine since it started; (0, 0) where it has no network devices."""
    counters = psutil.net_io_counters()
    return (counters.bytes_recv, counters.bytes_sent) if counters else (0, 0)


def process_tree_bytes(pid: int | None = None) -> int:
    """Resident bytes of a process and all its children."""
    root = psutil.Process(pid)
    total = 0
    for process in [root, *root.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            total += process.memory_info().rss
    return total


@contextlib.contextmanager
def sampling(log: Callable[[Sample, int], None], first_step: int, interval_s: float = INTERVAL_S) -> Iterator[None]:
    """Call `log(sample, step)` from a thread until the block ends, and once at its end."""
    stop = threading.Event()
    before = network_bytes()
    psutil.cpu_percent()
    step = first_step

    def loop() -> None:
        nonlocal step
        wait = min(FIRST_AFTER_S, interval_s)
        while not stop.wait(wait):
            log(sample(before), step)
            step += 1
            wait = interval_s

    thread = threading.Thread(target=loop, name="system-metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        log(sample(before), step)


def _gpus() -> Sample:
    """Memory and load of each NVIDIA GPU; empty where NVML is not installed or finds none."""
    try:
        nvml: Any = importlib.import_module("pynvml")  # distribution nvidia-ml-py
    except ImportError:
        return {}
    readings: Sample = {}
    with contextlib.suppress(nvml.NVMLError):
        nvml.nvmlInit()
        for index in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
            readings[f"gpu_{index}_memory_usage_megabytes"] = memory.used / 1e6
            readings[f"gpu_{index}_memory_usage_percentage"] = memory.used / memory.total * 100
            readings[f"gpu_{index}_utilization_percentage"] = float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    return readings
