"""The run's page in MLflow, by its REST interface: made when the run starts, closed whatever becomes of it.

The stages' couriers find the parent by its key, as `unified_reward.tracking.delivery` does; tags and names are the same.
The address may be a user's, and anything may answer there: of an answer that is not MLflow's, nothing is told.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp

from unified_reward.names import KEY_TAG, PARENT_TAG
from unified_reward.pipeline.resource import Tracking

RUN_TAG = "unified_reward.alignment_run"  # UID of the resource
INSTALLATION_TAG = "unified_reward.installation"  # several may share a server, and each sweeps its own runs only
EXPERIMENT_TAGS = [{"key": "mlflow.experimentKind", "value": "custom_model_development"}]
TIMEOUT_SECONDS = 10.0
VIEW = "workflowType=machine_learning"
AWAY_SECONDS = 20.0
PAGE, MOST_PAGES, EXPERIMENTS_AT_ONCE = 500, 200, 100
MISSING = "RESOURCE_DOES_NOT_EXIST"
LONGEST_ANSWER, LONGEST_REFUSAL = 32 * 1024**2, 300  # bytes, characters
CODE = re.compile(r"[A-Z_]{1,64}")  # of an error, as MLflow has them
IDENTIFIER = re.compile(r"[\w.-]{1,64}")

T = TypeVar("T")


class UnavailableError(Exception):
    """MLflow does not answer, or refuses. code: its word for a refusal, "" = none."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Page:
    """A run, as MLflow has it."""

    run_id: str
    experiment_id: str
    tags: Mapping[str, str]

    @classmethod
    def read(cls, run: Any) -> Page:
        """Raises KeyError, TypeError and ValueError."""
        info, tags = run["info"], run["data"].get("tags", [])
        identifiers = _identifier(info["run_id"]), _identifier(info["experiment_id"])
        return cls(*identifiers, {str(tag["key"]): str(tag["value"]) for tag in tags})


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
        """The run of this key, RUNNING: the one that is there, or a new one. A deleted experiment is restored, as the
        stages' couriers do it; a deleted run is not."""
        try:
            return await self._opened(experiment, key, name, uid)
        except UnavailableError as error:
            if not error.code:
                raise
            self._experiments.pop(experiment, None)  # it may have been deleted since its id was asked for
            return await self._opened(experiment, key, name, uid)

    async def close(self, tracking: Tracking, state: str) -> Tracking:
        """Close the parent as `state`, and what is still open below it: KILLED, or FINISHED as the parent. What somebody has
        deleted counts as closed."""
        where = f"tags.`{PARENT_TAG}` = '{tracking.run_id}' and attributes.status = 'RUNNING'"
        for child in await self._search([tracking.experiment_id], where):
            await self._end(child.run_id, "FINISHED" if state == "FINISHED" else "KILLED")
        await self._end(tracking.run_id, state)
        return tracking.model_copy(update={"state": state})

    async def open_parents(self) -> list[tuple[str, Tracking]]:
        """Runs of this installation's resources that are not closed, in all experiments: (UID, run)."""
        mine = f"attributes.status = 'RUNNING' and tags.`{INSTALLATION_TAG}` = '{self.installation}'"
        experiments = await self._all("experiments/search", {}, "experiments", _experiment_id)
        pages: list[Page] = []
        for start in range(0, len(experiments), EXPERIMENTS_AT_ONCE):
            pages += await self._search(experiments[start : start + EXPERIMENTS_AT_ONCE], mine)
        return [
            (page.tags[RUN_TAG], Tracking(experiment_id=page.experiment_id, run_id=page.run_id, state="RUNNING"))
            for page in pages
            if RUN_TAG in page.tags
        ]

    async def stop(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _opened(self, experiment: str, key: str, name: str, uid: str) -> Tracking:
        experiment_id = await self._experiment(experiment)
        found = await self._search([experiment_id], f"tags.`{KEY_TAG}` = '{key}'")
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

    async def _experiment(self, name: str) -> str:
        if name not in self._experiments:
            self._experiments[name] = await self._found_or_made(name)
        return self._experiments[name]

    async def _found_or_made(self, name: str) -> str:
        try:
            found = await self._get("experiments/get-by-name", {"experiment_name": name})
        except UnavailableError as error:
            if error.code != MISSING:
                raise
            made = await self._post("experiments/create", {"name": name, "tags": EXPERIMENT_TAGS})
            return self._id(made, "experiment_id")
        experiment_id = self._id(found, "experiment", "experiment_id")
        if found["experiment"].get("lifecycle_stage") == "deleted":
            await self._post("experiments/restore", {"experiment_id": experiment_id})
        return experiment_id

    async def _search(self, experiments: Sequence[str], where: str) -> list[Page]:
        query = {"experiment_ids": experiments, "filter": where}
        return await self._all("runs/search", query, "runs", Page.read)

    async def _all(self, path: str, query: Mapping[str, Any], what: str, read: Callable[[Any], T]) -> list[T]:
        """Page by page. Bounded, whoever answers."""
        found: list[T] = []
        token: dict[str, Any] = {}
        for _ in range(MOST_PAGES):
            page = await self._post(path, {**query, "max_results": PAGE, **token})
            try:
                found += [read(each) for each in page.get(what, [])]
            except (KeyError, TypeError, ValueError, AttributeError):
                raise self._is_another(200) from None
            if not page.get("next_page_token"):
                return found
            token = {"page_token": page["next_page_token"]}
        raise UnavailableError(f"MLflow at {self.uri} tells of more than {MOST_PAGES * PAGE} {what}")

    async def _end(self, run_id: str, state: str) -> None:
        try:
            await self._post("runs/update", {"run_id": run_id, "status": state, "end_time": _now()})
        except UnavailableError as error:
            if not error.code or not await self._is_deleted(run_id):
                raise

    async def _is_deleted(self, run_id: str) -> bool:
        try:
            found = await self._get("runs/get", {"run_id": run_id})
        except UnavailableError as error:
            if error.code != MISSING:
                raise
            return True
        return self._id(found, "run", "info", "lifecycle_stage") == "deleted"

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


def _experiment_id(experiment: Any) -> str:
    return _identifier(experiment["experiment_id"])


def _identifier(found: Any) -> str:
    if not IDENTIFIER.fullmatch(str(found)):
        raise ValueError("no identifier")
    return str(found)


def _now() -> int:
    return time.time_ns() // 1_000_000
