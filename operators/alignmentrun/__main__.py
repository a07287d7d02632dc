"""`python -m operators.alignmentrun`: kopf lists, watches and authenticates; everything else is ours.

UR_NAMESPACE: the namespace it serves. UR_CLUSTER_CONFIG: the file that says what this installation offers. UR_PORT: of
/healthz, /readyz and /metrics. One instance only: two would both act on every run.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import kopf
from aiohttp import web

from operators.alignmentrun.api import PAGE, Access, Api, ApiError
from operators.alignmentrun.controller import SELECTOR, Controller
from operators.alignmentrun.metrics import exposition
from unified_reward.config import ClusterDefaults, read_defaults
from unified_reward.errors import EXIT_USER_ERROR, UserError

logger = logging.getLogger("operator")

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 30.0


class Defaults:
    """The installation's file, read again when it has changed. problem: why what it says now is not used, and the last that
    was good is; "" = it is used."""

    def __init__(self, path: str) -> None:
        """Raises UserError when the file cannot be used now: then nothing is known of the installation."""
        self._path, self._stamp = Path(path) if path else None, -1.0
        self._known, self.problem = ClusterDefaults(), ""
        self._read()

    def __call__(self) -> ClusterDefaults:
        try:
            self._read()
        except UserError as error:
            self.problem = f"the installation's configuration is not used, the last good one is: {error}"
            logger.error(self.problem)
        return self._known

    def _read(self) -> None:
        if self._path is None:
            return
        try:
            stamp = self._path.stat().st_mtime
            if stamp == self._stamp:
                return
            text = self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = f"it cannot be read: {type(error).__name__}"
            raise UserError(
                field="UR_CLUSTER_CONFIG", value=self._path, why=why, fix="Mount the installation's cluster.yaml there."
            ) from None
        self._stamp = stamp
        self._known, self.problem = read_defaults(text), ""


def main() -> int:
    _log_as_json()
    namespace = os.environ.get("UR_NAMESPACE", "")
    try:
        if not namespace:
            raise UserError(field="UR_NAMESPACE", value=None, why="an operator serves one namespace", fix="Set it.")
        defaults = Defaults(os.environ.get("UR_CLUSTER_CONFIG", ""))
        access = Access.find()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    registry = kopf.OperatorRegistry()
    make_controller = partial(Controller, defaults=defaults, problem=lambda: defaults.problem)
    _register(registry, make_controller, partial(Api, access, namespace))
    kopf.run(registry=registry, namespaces=[namespace], standalone=True)
    return 0


def _register(registry: kopf.OperatorRegistry, make_controller: Any, make_api: Any) -> None:
    state: dict[str, Any] = {}

    @kopf.on.login(registry=registry)
    def login(**what: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**what) or kopf.login_with_kubeconfig(**what)

    @kopf.on.startup(registry=registry)
    async def start(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.posting.enabled = False
        settings.scanning.disabled = True
        settings.networking.request_timeout = 30
        settings.networking.connect_timeout = 5
        settings.watching.server_timeout = 600
        settings.watching.chunk_size = PAGE
        settings.watching.label_selectors["kubeflow.org", "v1", "pytorchjobs"] = SELECTOR
        settings.watching.label_selectors["", "v1", "pods"] = SELECTOR
        # A limit would let an object wait for another's worker to idle; each only hands over to our own queue.
        settings.queueing.idle_timeout = 0.5
        if "pages" not in state:  # kopf calls again what has failed
            state["controller"] = make_controller(make_api())
            state["pages"] = await _serve(state["controller"], int(os.environ.get("UR_PORT", "8080")))
        await _started(state["controller"])

    @kopf.on.cleanup(registry=registry)
    async def stop(**_: Any) -> None:
        if "pages" in state:
            await state["controller"].stop()
            await state["pages"].cleanup()

    @kopf.on.event("unifiedreward.dev", "v1alpha1", "alignmentruns", registry=registry)
    async def run(event: Any, **_: Any) -> None:
        state["controller"].saw_run(event["type"], event["object"])

    @kopf.on.event("kubeflow.org", "v1", "pytorchjobs", registry=registry)
    async def job(event: Any, **_: Any) -> None:
        state["controller"].saw_job(event["type"], event["object"])

    @kopf.on.event("", "v1", "pods", registry=registry)
    async def pod(event: Any, **_: Any) -> None:
        state["controller"].saw_pod(event["type"], event["object"])


async def _started(controller: Controller) -> None:
    """When the API server has told what there is; until then the operator is alive and not ready."""
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            return await controller.start()
        except ApiError as error:
            logger.warning("what there is cannot be listed: %s; tried again in %g s", error, pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


async def _serve(controller: Controller, port: int) -> web.AppRunner:
    """Probes and metrics. Healthy: the event loop answers. Ready: the cache is full."""

    async def health(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def ready(_: web.Request) -> web.Response:
        return (
            web.Response(text="ready\n")
            if controller.ready
            else web.Response(status=503, text="the cache is being filled\n")
        )

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(text=exposition(controller, time.time()))

    pages = web.Application()
    pages.add_routes([web.get("/healthz", health), web.get("/readyz", ready), web.get("/metrics", metrics)])
    runner = web.AppRunner(pages, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", port).start()
    return runner


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        values = {
            "time": self.formatTime(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        values |= {"run": record.run} if hasattr(record, "run") else {}
        if record.exc_info:
            values["trace"] = self.formatException(record.exc_info)
        return json.dumps(values, ensure_ascii=False)


def _log_as_json() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("kopf").setLevel(logging.WARNING)


if __name__ == "__main__":
    sys.exit(main())
