"""MLflow in memory, as far as the operator asks it: it pages, keeps what is deleted, and refuses as the real one does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

MISSING = "RESOURCE_DOES_NOT_EXIST"
AT_ONCE = 2  # entries of a page, whatever is asked for


class Pages:
    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.experiments: dict[str, dict[str, str]] = {}
        self.made = 0

    async def answer(self, request: web.Request) -> web.Response:
        call, body = request.match_info["call"], await request.json() if request.can_read_body else {}
        found = getattr(self, "_" + call.replace("/", "_").replace("-", "_"))({**request.query, **body})
        return found if isinstance(found, web.Response) else web.json_response(found)

    def delete_run(self, run_id: str) -> None:
        self.runs[run_id]["info"]["lifecycle_stage"] = "deleted"

    def delete_experiment(self, name: str, *, for_good: bool = False) -> None:
        """With its runs."""
        gone = self.experiments[name]["experiment_id"]
        self.experiments[name]["lifecycle_stage"] = "deleted"
        for run_id, run in list(self.runs.items()):
            if run["info"]["experiment_id"] == gone:
                self.delete_run(run_id)
                if for_good:
                    del self.runs[run_id]
        if for_good:
            del self.experiments[name]

    def states(self) -> dict[str, str]:
        names = {
            each["info"]["run_id"]: next(t["value"] for t in each["data"]["tags"] if t["key"] == "run")
            for each in self.runs.values()
        }
        return {names[run_id]: each["info"]["status"] for run_id, each in self.runs.items()}

    # --- calls

    def _experiments_get_by_name(self, query: dict[str, Any]) -> Any:
        found = self.experiments.get(query["experiment_name"])
        return {"experiment": found} if found else _refusal(MISSING, 404)

    def _experiments_create(self, query: dict[str, Any]) -> Any:
        if query["name"] in self.experiments:
            return _refusal("RESOURCE_ALREADY_EXISTS", 400)
        self.made += 1
        one = {"experiment_id": str(self.made), "name": query["name"], "lifecycle_stage": "active"}
        self.experiments[query["name"]] = one
        return {"experiment_id": one["experiment_id"]}

    def _experiments_restore(self, query: dict[str, Any]) -> Any:
        self._experiment(query["experiment_id"])["lifecycle_stage"] = "active"
        return {}

    def _experiments_search(self, query: dict[str, Any]) -> Any:
        return _page("experiments", [each for each in self.experiments.values() if _active(each)], query)

    def _runs_create(self, query: dict[str, Any]) -> Any:
        experiment = self._experiment(query["experiment_id"])
        if not experiment or not _active(experiment):
            return _refusal("INVALID_PARAMETER_VALUE" if experiment else MISSING, 400)
        self.made += 1
        info = {"run_id": f"run-{self.made}", "status": "RUNNING", "lifecycle_stage": "active"}
        info["experiment_id"] = query["experiment_id"]
        self.runs[info["run_id"]] = {"info": info, "data": {"tags": query["tags"]}}
        return {"run": self.runs[info["run_id"]]}

    def _runs_get(self, query: dict[str, Any]) -> Any:
        return {"run": self.runs[query["run_id"]]} if query["run_id"] in self.runs else _refusal(MISSING, 404)

    def _runs_update(self, query: dict[str, Any]) -> Any:
        if query["run_id"] not in self.runs:
            return _refusal(MISSING, 404)
        info = self.runs[query["run_id"]]["info"]
        if not _active(info):
            return _refusal("INVALID_PARAMETER_VALUE", 400)
        info["status"] = query["status"]
        return {}

    def _runs_search(self, query: dict[str, Any]) -> Any:
        wanted = {part.split("'")[1] for part in query["filter"].split(" and ")} - {"RUNNING"}
        found = [
            each for each in self.runs.values()
            if wanted <= {tag["value"] for tag in each["data"]["tags"]} and _active(each["info"])
            and each["info"]["experiment_id"] in query["experiment_ids"]
            and ("RUNNING" not in query["filter"] or each["info"]["status"] == "RUNNING")
        ]  # fmt: skip
        return _page("runs", found, query)

    def _experiment(self, experiment_id: str) -> dict[str, str]:
        return next((each for each in self.experiments.values() if each["experiment_id"] == experiment_id), {})


@asynccontextmanager
async def serving(pages: Pages, port: int = 0) -> AsyncIterator[int]:
    application = web.Application()
    application.add_routes([web.route("*", "/api/2.0/mlflow/{call:.*}", pages.answer)])
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def _active(one: dict[str, str]) -> bool:
    return one["lifecycle_stage"] == "active"


def _page(what: str, found: list[Any], query: dict[str, Any]) -> dict[str, Any]:
    start = int(query.get("page_token", 0))
    rest = {"next_page_token": str(start + AT_ONCE)} if start + AT_ONCE < len(found) else {}
    return {what: found[start : start + AT_ONCE], **rest}


def _refusal(code: str, status: int) -> web.Response:
    return web.json_response({"error_code": code, "message": "it cannot be"}, status=status)
