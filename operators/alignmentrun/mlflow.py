"""The run's page in MLflow, by its REST interface: made when the run starts, closed whatever becomes of it.

The stages' couriers find the parent by its key, as `unified_reward.tracking.delivery` does; tags and names are the same.
The address may be a user's, and anything may answer there: of an answer that is not MLflow's, nothing is told.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from unified_reward.names import KEY_TAG, PARENT_TAG
from unified_reward.pipeline.resource import Tracking

RUN_TAG = "unified_reward.alignment_run"  # UID of the resource
INSTALLATION_TAG = "unified_reward.installation"  # several may share a server, and each sweeps its own runs only
EXPERIMENT_TAGS = [{"key": "mlflow.experimentKind", "value": "custom_model_development"}]
TIMEOUT_SECONDS = 10.0
VIEW = "workflowType=machine_learning"
AWAY_SECONDS = 20.0
LONGEST_ANSWER, LONGEST_REFUSAL = 32 * 1024**2, 300  # bytes, characters
CODE = re.compile(r"[A-Z_]{1,64}")  # of an error, as MLflow has them
IDENTIFIER = re.compile(r"[\w.-]{1,64}")


class UnavailableError(Exception):
    """MLflow does not answer, or refuses. code: its word for a refusal, "" = none."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Page:
    """A run, as MLflow has it."""

    run_id: str
    tags: Mapping[str, str]

    @classmethod
    def read(cls, run: Any) -> Page:
        """Raises KeyError, TypeError and ValueError."""
        return cls(
            _identifier(run["info"]["run_id"]), {tag["key"]: tag["value"] for tag in run["data"].get("tags", [])}
        )


class Mlflow:
    """One server. away_until: monotonic seconds before which it is not asked again, since it did not answer.

    installation: who this is, among those that share the server.
    """

    def __init__(self, uri: str, installation: str) -> None:
        self.uri, self.installation = uri.rstrip("/"), installation
        self.away_until, self._why = 0.0, ""
        self._session: aiohttp.ClientSession | None = None
        self._experiments: dict[str, str] = {}

    async def open_parent(self, experiment: str, key: str, name: str, uid: str) -> Tracking:
        """The run of this key, RUNNING: the one that is there, or a new one."""
        experiment_id = await self._experiment(experiment)
        found = await self._search(experiment_id, f"tags.`{KEY_TAG}` = '{key}'")
        if found:
            run_id = found[0].run_id
            await self._post("runs/update", {"run_id": run_id, "status": "RUNNING"})
        else:
            tags = {
                KEY_TAG: key,
                RUN_TAG: uid,
                INSTALLATION_TAG: self.installation,
                "run": name,
                "mlflow.source.name": "unified-reward",
                "mlflow.user": "operator",
            }
            made = await self._post("runs/create", {
                "experiment_id": experiment_id, "run_name": name, "start_time": _now(),
                "tags": [{"key": tag, "value": value} for tag, value in tags.items()],
            })  # fmt: skip
            run_id = self._id(made, "run", "info", "run_id")
        url = f"{self.uri}/#/experiments/{experiment_id}/runs/{run_id}?{VIEW}"
        return Tracking(experiment_id=experiment_id, run_id=run_id, url=url, state="RUNNING")

    async def close(self, tracking: Tracking, state: str) -> Tracking:
        """Close the parent as `state`, and what is still open below it: KILLED, or as the parent where that was killed."""
        where = f"tags.`{PARENT_TAG}` = '{tracking.run_id}' and attributes.status = 'RUNNING'"
        for child in await self._search(tracking.experiment_id, where):
            await self._end(child.run_id, "FINISHED" if state == "FINISHED" else "KILLED")
        await self._end(tracking.run_id, state)
        return tracking.model_copy(update={"state": state})

    async def open_parents(self, experiment: str) -> list[tuple[str, Tracking]]:
        """Runs of resources that are not closed: (UID, run)."""
        experiment_id = await self._experiment(experiment)
        mine = f"attributes.status = 'RUNNING' and tags.`{INSTALLATION_TAG}` = '{self.installation}'"
        return [
            (page.tags[RUN_TAG], Tracking(experiment_id=experiment_id, run_id=page.run_id, state="RUNNING"))
            for page in await self._search(experiment_id, mine)
            if RUN_TAG in page.tags
        ]

    async def stop(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _experiment(self, name: str) -> str:
        if name not in self._experiments:
            try:
                found = await self._get("experiments/get-by-name", {"experiment_name": name})
                self._experiments[name] = self._id(found, "experiment", "experiment_id")
            except UnavailableError as error:
                if error.code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                made = await self._post("experiments/create", {"name": name, "tags": EXPERIMENT_TAGS})
                self._experiments[name] = self._id(made, "experiment_id")
        return self._experiments[name]

    async def _search(self, experiment_id: str, where: str) -> list[Page]:
        found = await self._post(
            "runs/search", {"experiment_ids": [experiment_id], "filter": where, "max_results": 1000}
        )
        try:
            return [Page.read(run) for run in found.get("runs", [])]
        except (KeyError, TypeError, ValueError, AttributeError):
            raise self._is_another(200) from None

    async def _end(self, run_id: str, state: str) -> None:
        await self._post("runs/update", {"run_id": run_id, "status": state, "end_time": _now()})

    async def _get(self, path: str, query: dict[str, str]) -> dict[str, Any]:
        return await self._call("GET", path, params=query)

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return await self._call("POST", path, json=body)

    async def _call(self, verb: str, path: str, **what: Any) -> dict[str, Any]:
        if time.monotonic() < self.away_until:
            raise UnavailableError(self._why)
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS, connect=3))
        try:
            url = f"{self.uri}/api/2.0/mlflow/{path}"
            async with self._session.request(verb, url, allow_redirects=False, **what) as answer:
                return self._read(answer.status, await _body(answer))
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            self._why = f"MLflow at {self.uri} does not answer: {type(error).__name__}"
            self.away_until = time.monotonic() + AWAY_SECONDS
            raise UnavailableError(self._why) from None

    def _read(self, status: int, body: bytes) -> dict[str, Any]:
        try:
            found = json.loads(body) if body else {}
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise self._is_another(status)
        if status < 300:
            return found
        code = str(found.get("error_code"))
        if not CODE.fullmatch(code):
            raise self._is_another(status)
        said = " ".join(str(found.get("message", "")).split())[:LONGEST_REFUSAL]
        raise UnavailableError(f"MLflow at {self.uri} answers {status} {code}: {said}", code)

    def _id(self, answer: Any, *path: str) -> str:
        try:
            for key in path:
                answer = answer[key]
            return _identifier(answer)
        except (KeyError, TypeError, ValueError):
            raise self._is_another(200) from None

    def _is_another(self, status: int) -> UnavailableError:
        return UnavailableError(f"what answers at {self.uri} (status {status}) is not MLflow's REST API")


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for piece in answer.content.iter_chunked(64 * 1024):
        body += piece
        if len(body) > LONGEST_ANSWER:
            raise aiohttp.ClientPayloadError("it is too long")
    return bytes(body)


def _identifier(found: Any) -> str:
    if not IDENTIFIER.fullmatch(str(found)):
        raise ValueError("no identifier")
    return str(found)


def _now() -> int:
    return time.time_ns() // 1_000_000
