"""Pure: whether a job that is there is what would be submitted under its name, and what differs when it is not.

A digest of the manifest rides along as an annotation: what a server, a webhook or a queue adds to the job does not touch it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from unified_reward.launch.job_status import annotation
from unified_reward.launch.pytorchjob import PREFIX, Manifest

SUBMITTED = f"{PREFIX}/submitted"
DIGITS = 16
MOVED = ("spec", "runPolicy", "suspend")  # by a queue and by who cancels
POD = "spec.pytorchReplicaSpecs.Worker."
LONGEST = 80


def marked(manifest: Manifest) -> Manifest:
    """The manifest with its digest."""
    metadata = manifest["metadata"]
    annotations = {**(metadata.get("annotations") or {}), SUBMITTED: _digest(manifest)}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def difference(there: Mapping[str, Any], asked: Manifest) -> str:
    """What differs, as a clause; "" when nothing does. there: as the cluster has it. asked: with its digest."""
    digest = annotation(there, SUBMITTED)
    if digest == annotation(asked, SUBMITTED):
        return ""
    found = list(_differences(there, asked, ()))
    if not found:
        return "it has something that is not asked for now" if digest else ""
    more = f" (and {', '.join(path for path, _, _ in found[1:4])})" if len(found) > 1 else ""
    path, old, new = found[0]
    return f"{path} is {_shown(old)} there and {_shown(new)} here{more}"


def _digest(manifest: Manifest) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:DIGITS]


def _differences(there: Any, asked: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any, Any]]:
    """(path, there, asked) of what is asked for and is not so there. What is only there may be a server's default."""
    if path == MOVED or path[-1:] == (SUBMITTED,):
        return
    if isinstance(asked, dict) and isinstance(there, dict):
        for key, value in asked.items():
            yield from _differences(there.get(key), value, (*path, key))
    elif _by_name(asked) and _by_name(there):
        yield from _differences(_by_name(there), _by_name(asked), path)
    elif there != asked:
        yield ".".join(path).removeprefix(POD).removeprefix("template.spec."), there, asked


def _by_name(value: Any) -> dict[str, Any]:
    """A list of named things by their names; {} for anything else."""
    named = isinstance(value, list) and all(isinstance(one, dict) and "name" in one for one in value)
    return {one["name"]: one for one in value} if named else {}


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
