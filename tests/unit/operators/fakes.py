"""An API server in memory, with what the operator relies on: versions, owners, conflicts, preconditions; and its outages."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from operators.alignmentrun.api import EVENTS, JOBS, PODS, RUNS, Access, ApiError


class FakeApi:
    """Stands for `Api`. refuse: called with verb, path and body before a write; what it raises, the write raises."""

    def __init__(self) -> None:
        self.namespace, self.access = "ns", Access("https://nowhere", None, cluster="here")
        self.objects: dict[str, dict[str, dict[str, Any]]] = {RUNS: {}, JOBS: {}, PODS: {}, EVENTS: {}}
        self.version = 100
        self.wrote: list[str] = []
        self.calls: Counter[tuple[str, str, int]] = Counter()
        self.logs: dict[str, str] = {}
        self.refuse: Callable[[str, str, Mapping[str, Any]], None] = lambda *_: None

    def put(self, path: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """As somebody else would write it; not a call of the operator's."""
        found = json.loads(json.dumps(manifest))
        self.version += 1
        known = self.objects[path].get(found["metadata"]["name"], {"metadata": {}})
        found["metadata"].setdefault("uid", known["metadata"].get("uid", f"uid-{self.version}"))
        found["metadata"].setdefault("creationTimestamp", "2027-01-15T08:00:00Z")
        found["metadata"]["resourceVersion"] = str(self.version)
        self.objects[path][found["metadata"]["name"]] = found
        return copy.deepcopy(found)

    @property
    def writes(self) -> int:
        return len(self.wrote)

    def of(self, path: str) -> list[dict[str, Any]]:
        return list(self.objects[path].values())

    async def pages(self, path: str, selector: str = "") -> AsyncIterator[tuple[list[dict[str, Any]], str]]:  # noqa: ARG002
        everything, version = self.of(path), str(self.version)
        for start in range(0, max(1, len(everything)), 2):
            yield copy.deepcopy(everything[start : start + 2]), version

    async def get(self, path: str, name: str) -> dict[str, Any]:
        return copy.deepcopy(self._found(path, name))

    async def create(self, path: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
        self.refuse("create", path, manifest)
        if manifest["metadata"]["name"] in self.objects[path]:
            raise ApiError(409, "there is one of this name")
        self._count("create", path, manifest["metadata"]["name"])
        return self.put(path, manifest)

    async def apply(self, path: str, manifest: Mapping[str, Any], subresource: str = "") -> dict[str, Any]:
        self.refuse("apply", path, manifest)
        there = self._found(path, manifest["metadata"]["name"])
        if there["metadata"]["uid"] != manifest["metadata"]["uid"]:
            raise ApiError(409, "another of this name")
        self._count("apply", path, manifest["metadata"]["name"])
        return self.put(path, {**there, subresource: manifest[subresource]})

    async def merge(self, path: str, name: str, change: Mapping[str, Any]) -> dict[str, Any]:
        self.refuse("merge", path, change)
        self._count("merge", path, name)
        return self.put(path, merged(self._found(path, name), change))

    async def delete(self, path: str, name: str, uid: str) -> None:
        self.refuse("delete", path, {"name": name})
        if self.objects[path].get(name, {"metadata": {}})["metadata"].get("uid") == uid:
            self._count("delete", path, name)
            del self.objects[path][name]

    async def log_tail(self, pod: str, lines: int) -> str:  # noqa: ARG002
        return self.logs.get(pod, "")

    async def close(self) -> None:
        pass

    def _found(self, path: str, name: str) -> dict[str, Any]:
        if name not in self.objects[path]:
            raise ApiError(404, f"{name} not found")
        return self.objects[path][name]

    def _count(self, verb: str, path: str, name: str) -> None:
        self.wrote.append(f"{verb} {path.rpartition('/')[2]} {name}")


def merged(below: Any, above: Any) -> Any:
    """JSON merge patch."""
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    kept = {key: value for key, value in below.items() if above.get(key, value) is not None}
    return kept | {key: merged(below.get(key), value) for key, value in above.items() if value is not None}
