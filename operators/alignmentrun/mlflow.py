"""The run's page in MLflow, by its REST interface: made when the run starts, closed whatever becomes of it.

The stages' couriers find the parent by its key, as `unified_reward.tracking.delivery` does; tags and names are the same.
"""

from __future__ import annotations

import time
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


class UnavailableError(Exception):
    """MLflow does not answer, or refuses."""


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
            run_id = str(found[0]["info"]["run_id"])
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
            run_id = str(made["run"]["info"]["run_id"])
        url = f"{self.uri}/#/experiments/{experiment_id}/runs/{run_id}?{VIEW}"
        return Tracking(experiment_id=experiment_id, run_id=run_id, url=url, state="RUNNING")

    async def close(self, tracking: Tracking, state: str) -> Tracking:
        """Close the parent as `state`, and what is still open below it: KILLED, or as the parent where that was killed."""
        where = f"tags.`{PARENT_TAG}` = '{tracking.run_id}' and attributes.status = 'RUNNING'"
        for child in await self._search(tracking.experiment_id, where):
            await self._end(str(child["info"]["run_id"]), "FINISHED" if state == "FINISHED" else "KILLED")
        await self._end(tracking.run_id, state)
        return tracking.model_copy(update={"state": state})

    async def open_parents(self, experiment: str) -> list[tuple[str, Tracking]]:
        """Runs of resources that are not closed: (UID, run)."""
        experiment_id = await self._experiment(experiment)
        mine = f"attributes.status = 'RUNNING' and tags.`{INSTALLATION_TAG}` = '{self.installation}'"
        found = await self._search(experiment_id, mine)
        parents = []
        for run in found:
            tags = {tag["key"]: tag["value"] for tag in run["data"].get("tags", [])}
            if RUN_TAG in tags:
                parents.append(
                    (
                        tags[RUN_TAG],
                        Tracking(experiment_id=experiment_id, run_id=run["info"]["run_id"], state="RUNNING"),
                    )
                )
        return parents

    async def stop(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _experiment(self, name: str) -> str:
        if name not in self._experiments:
            try:
                found = await self._get("experiments/get-by-name", {"experiment_name": name})
                self._experiments[name] = str(found["experiment"]["experiment_id"])
            except UnavailableError as error:
                if "RESOURCE_DOES_NOT_EXIST" not in str(error):
                    raise
                made = await self._post("experiments/create", {"name": name, "tags": EXPERIMENT_TAGS})
                self._experiments[name] = str(made["experiment_id"])
        return self._experiments[name]

    async def _search(self, experiment_id: str, where: str) -> list[dict[str, Any]]:
        found = await self._post(
            "runs/search", {"experiment_ids": [experiment_id], "filter": where, "max_results": 1000}
        )
        return list(found.get("runs", []))

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
            async with self._session.request(verb, f"{self.uri}/api/2.0/mlflow/{path}", **what) as answer:
                text = await answer.text()
                if answer.status >= 300:
                    raise UnavailableError(f"MLflow at {self.uri} answers {answer.status}: {text[:300]}")
                return dict(await answer.json(content_type=None)) if text else {}
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            self._why = f"MLflow at {self.uri} does not answer: {type(error).__name__}"
            self.away_until = time.monotonic() + AWAY_SECONDS
            raise UnavailableError(self._why) from None


def _now() -> int:
    return time.time_ns() // 1_000_000
