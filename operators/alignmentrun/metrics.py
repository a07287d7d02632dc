"""/metrics, in Prometheus' text format. No name of a run is a label: there may be thousands."""

from __future__ import annotations

import resource
from collections import Counter

from operators.alignmentrun.controller import Controller
from unified_reward.pipeline.resource import Phase

PREFIX = "unified_reward"


def exposition(controller: Controller, now: float) -> str:
    phases = Counter(
        (run.get("status") or {}).get("phase", Phase.PENDING.value) for run in controller.cache.runs.values()
    )
    stages = Counter(
        record.get("state", "Waiting")
        for run in controller.cache.runs.values()
        for record in (run.get("status") or {}).get("stages", [])
    )
    lines: list[str] = []

    def add(name: str, kind: str, about: str, values: dict[str, float]) -> None:
        lines.extend([f"# HELP {PREFIX}_{name} {about}", f"# TYPE {PREFIX}_{name} {kind}"])
        lines.extend(f"{PREFIX}_{name}{labels} {value:g}" for labels, value in values.items())

    add("runs", "gauge", "AlignmentRuns by phase.", {f'{{phase="{phase}"}}': phases.get(phase, 0) for phase in Phase})
    add(
        "stages",
        "gauge",
        "Stages by state.",
        {f'{{state="{state}"}}': count for state, count in sorted(stages.items())},
    )
    add("reconciliations_total", "counter", "Reconciliations that ended well.", {"": controller.queue.done})
    add(
        "reconcile_errors_total",
        "counter",
        "Reconciliations that did not, by the API server's answer.",
        {f'{{reason="{reason}"}}': count for reason, count in sorted(controller.queue.failures.items())},
    )
    for name, about, values in (
        (
            "reconcile_seconds",
            "From an event to the end of its reconciliation, the last 10,000.",
            controller.queue.latencies,
        ),
        (
            "next_job_seconds",
            "From a job's success to the next one being made, the last 10,000.",
            controller.child_latencies,
        ),
    ):
        waits = sorted(values)
        quantiles = {
            f'{{quantile="{share}"}}': waits[min(len(waits) - 1, int(share * len(waits)))]
            for share in (0.5, 0.9, 0.99)
            if waits
        }
        add(name, "summary", about, quantiles)
    add("workqueue_depth", "gauge", "Runs that wait to be looked at.", {"": controller.queue.depth})
    add(
        "api_requests_total",
        "counter",
        "Calls of the API server.",
        {
            f'{{verb="{verb}",resource="{what}",code="{code}"}}': count
            for (verb, what, code), count in sorted(controller.api.calls.items())
        },
    )
    add("api_writes_total", "counter", "Calls that wrote.", {"": controller.api.writes})
    add("last_event_age_seconds", "gauge", "Since a watch last told anything.", {"": now - controller.last_seen})
    add(
        "resident_memory_peak_bytes",
        "gauge",
        "Peak of the operator's memory.",
        {"": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024},
    )
    return "\n".join(lines) + "\n"
