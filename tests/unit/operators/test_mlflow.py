"""MLflow as the operator meets it: also when it is something else, at an address that a user chose."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from operators.alignmentrun import mlflow as module
from operators.alignmentrun.mlflow import Mlflow, UnavailableError

SECRET = "hunter2 of the cloud's metadata"


@asynccontextmanager
async def server(answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[Mlflow]:
    application = web.Application()
    application.add_routes([web.route("*", "/{path:.*}", answer)])
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    mlflow = Mlflow(f"http://127.0.0.1:{runner.addresses[0][1]}", "here")
    try:
        yield mlflow
    finally:
        await mlflow.stop()
        await runner.cleanup()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda: web.Response(text=f"<html>{SECRET}</html>", content_type="text/html"), "not MLflow's REST API"),
        (lambda: web.Response(text=SECRET, status=500), "(status 500) is not MLflow's REST API"),
        (lambda: web.json_response([SECRET]), "not MLflow's REST API"),
        (lambda: web.json_response({"password": SECRET}), "not MLflow's REST API"),
        (lambda: web.json_response({"password": SECRET}, status=403), "(status 403) is not MLflow's REST API"),
        (lambda: web.json_response({"experiment": SECRET}), "not MLflow's REST API"),
        (lambda: web.json_response({"experiment": {"experiment_id": "1"}, "runs": [SECRET]}), "not MLflow's REST API"),
        (lambda: web.json_response({"experiment": {"experiment_id": SECRET * 20}}), "not MLflow's REST API"),
        (lambda: web.Response(body=b"x" * 5000), "does not answer: ClientPayloadError"),
        (lambda: web.Response(status=302, headers={"Location": "/elsewhere"}), "(status 302) is not MLflow's REST API"),
        (
            lambda: web.json_response({"error_code": "PERMISSION_DENIED", "message": "ask\nyour admin"}, status=403),
            "answers 403 PERMISSION_DENIED: ask your admin",
        ),
    ],
)  # fmt: skip
def test_what_is_not_mlflow_is_said_to_be_so_and_never_repeated(
    answer: Callable[[], web.StreamResponse], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_ANSWER", 4000, raising=False)

    async def whole() -> None:
        async def always(request: web.Request) -> web.StreamResponse:
            assert request.path != "/elsewhere"
            return answer()

        async with server(always) as mlflow:
            with pytest.raises(UnavailableError) as raised:
                await mlflow.open_parent("e", "key", "r", "uid")
            assert said in str(raised.value)
            assert SECRET not in str(raised.value)

    asyncio.run(whole())


@pytest.mark.parametrize("uri", ["http://a..b:5000", "sqlite:////home/mlflow.db", "http://[::1"])
def test_an_address_that_is_none_is_an_mlflow_that_does_not_answer(uri: str) -> None:
    async def whole() -> None:
        mlflow = Mlflow(uri, "here")
        with pytest.raises(UnavailableError, match="does not answer"):
            await mlflow.open_parent("e", "key", "r", "uid")
        await mlflow.stop()

    asyncio.run(whole())
