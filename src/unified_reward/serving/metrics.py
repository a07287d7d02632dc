"""Counters, gauges and histograms in Prometheus' text format, kept in this process."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping

Labels = tuple[tuple[str, str], ...]


class Metrics:
    """name -> help text is given where a value is first written; all methods may be called from any thread."""

    def __init__(self, prefix: str = "unified_reward_") -> None:
        self._prefix, self._lock = prefix, threading.Lock()
        self._help: dict[str, tuple[str, str]] = {}
        self._counters: dict[tuple[str, Labels], float] = defaultdict(float)
        self._gauges: dict[str, Callable[[], float]] = {}
        self._buckets: dict[str, tuple[float, ...]] = {}
        self._histograms: dict[tuple[str, Labels], list[float]] = {}

    def count(self, name: str, help_: str, amount: float = 1.0, **labels: str) -> None:
        with self._lock:
            self._help[name] = ("counter", help_)
            self._counters[name, _labels(labels)] += amount

    def gauge(self, name: str, help_: str, value: Callable[[], float]) -> None:
        """value: read when the page is."""
        self._help[name] = ("gauge", help_)
        self._gauges[name] = value

    def observe(self, name: str, help_: str, value: float, buckets: tuple[float, ...], **labels: str) -> None:
        with self._lock:
            self._help[name] = ("histogram", help_)
            self._buckets[name] = buckets
            row = self._histograms.setdefault((name, _labels(labels)), [0.0] * (len(buckets) + 2))
            for place, bound in enumerate(buckets):
                row[place] += value <= bound
            row[-2] += 1
            row[-1] += value

    def page(self) -> str:
        with self._lock:
            lines: list[str] = []
            for name, (kind, help_) in self._help.items():
                full = self._prefix + name
                lines += [f"# HELP {full} {help_}", f"# TYPE {full} {kind}"]
                if kind == "gauge":
                    lines.append(f"{full} {self._gauges[name]():g}")
                lines += [f"{full}{_shown(at)} {v:.10g}" for (n, at), v in self._counters.items() if n == name]
                for (own, labels), row in self._histograms.items():
                    if own == name:
                        lines += _histogram(full, labels, self._buckets[name], row)
            return "\n".join(lines) + "\n"


def _histogram(name: str, labels: Labels, buckets: tuple[float, ...], row: list[float]) -> list[str]:
    bounds = [f"{bound:g}" for bound in buckets] + ["+Inf"]
    lines = [f"{name}_bucket{_shown((*labels, ('le', bound)))} {row[i]:g}" for i, bound in enumerate(bounds)]
    return [*lines, f"{name}_sum{_shown(labels)} {row[-1]:.10g}", f"{name}_count{_shown(labels)} {row[-2]:g}"]


def _labels(labels: Mapping[str, str]) -> Labels:
    return tuple(sorted(labels.items()))


def _shown(labels: Labels) -> str:
    escaped = [(k, v.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")) for k, v in labels]
    return "{" + ",".join(f'{k}="{v}"' for k, v in escaped) + "}" if labels else ""
