"""The API server as the operator calls it, against one that answers over HTTP."""

from __future__ import annotations

import asyncio

from aiohttp import web

from operators.alignmentrun.api import EVENTS, JOBS, PODS, RUNS, Access, Api


async def _anything(request: web.Request) -> web.Response:
    return web.Response(text="progress 1/2 steps\n") if request.path.endswith("/log") else web.json_response({})


def test_calls_are_counted_by_kind_and_never_by_the_name_of_an_object() -> None:
    async def whole() -> Api:
        application = web.Application()
        application.add_routes([web.route("*", "/{path:.*}", _anything)])
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        api = Api(Access(f"http://127.0.0.1:{runner.addresses[0][1]}", None), "ns")
        for number in range(3):
            assert await api.log_tail(f"pod-{number}", 5) == "progress 1/2 steps\n"
            await api.get(JOBS, f"job-{number}")
            await api.get(PODS, f"pod-{number}")
            await api.merge(JOBS, f"job-{number}", {})
            await api.delete(RUNS, f"run-{number}", "uid")
            await api.apply(RUNS, {"metadata": {"name": f"run-{number}"}}, "status")
            await api.create(EVENTS, {})
        await api.close()
        await runner.cleanup()
        return api

    assert asyncio.run(whole()).calls == {
        ("GET", "pods/log", 200): 3,
        ("GET", "pytorchjobs", 200): 3,
        ("GET", "pods", 200): 3,
        ("PATCH", "pytorchjobs", 200): 3,
        ("DELETE", "alignmentruns", 200): 3,
        ("PATCH", "alignmentruns/status", 200): 3,
        ("POST", "events", 200): 3,
    }
