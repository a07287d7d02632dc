"""How the operator starts: what it does when the cluster, or what an admin wrote, is not as it should be."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import kopf
import pytest

from operators.alignmentrun import __main__ as module
from operators.alignmentrun.api import ApiError
from operators.alignmentrun.controller import Controller
from unified_reward.config import ClusterDefaults
from unified_reward.errors import UserError

from .fakes import FakeApi


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def activities(make_api: Callable[[], Any]) -> list[Callable[..., Awaitable[None]]]:
    """What kopf calls: to log in, to start, to clean up."""
    registry = kopf.OperatorRegistry()
    module._register(registry, partial(Controller, defaults=ClusterDefaults), make_api)
    return [handler.fn for handler in registry._activities.get_all_handlers()]  # type: ignore[misc]


class Unlisted(FakeApi):
    """An API server whose first lists fail."""

    def __init__(self, error: Exception, failures: int) -> None:
        super().__init__()
        self.error, self.left = error, failures

    async def pages(self, path: str, selector: str = "") -> Any:
        if self.left:
            self.left -= 1
            raise self.error
        async for page in super().pages(path, selector):
            yield page


@pytest.mark.parametrize("error", [ApiError(503, "etcd has no leader"), RuntimeError("a defect")])
def test_an_operator_that_could_not_list_becomes_ready_when_it_can(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("UR_PORT", str(port))
    monkeypatch.setattr(module, "FIRST_PAUSE_SECONDS", 0.01, raising=False)

    async def answers() -> dict[str, int]:
        async with aiohttp.ClientSession() as session:
            found = {}
            for page in ("healthz", "readyz", "metrics"):
                async with session.get(f"http://127.0.0.1:{port}/{page}") as answer:
                    found[page] = answer.status
            return found

    async def whole() -> None:
        _, start, stop = activities(lambda: Unlisted(error, 2))
        settings = kopf.OperatorSettings()
        for _ in range(3):  # as kopf does: until it does not raise
            try:
                await start(settings=settings)
                break
            except type(error):
                assert (await answers())["readyz"] == 503
        assert await answers() == {"healthz": 200, "readyz": 200, "metrics": 200}
        await stop()

    asyncio.run(whole())


def test_a_bad_edit_of_what_the_installation_offers_leaves_the_last_good_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "cluster.yaml"

    def write(text: str) -> None:
        file.unlink(missing_ok=True)
        file.write_text(text)
        os.utime(file, (write.moment, write.moment))  # type: ignore[attr-defined]
        write.moment += 1  # type: ignore[attr-defined]

    write.moment = 1_800_000_000  # type: ignore[attr-defined]
    write("trackingUri: http://good:5000\n")
    defaults = module.Defaults(str(file))
    for bad in ("trackingUrl: http://typo:5000\n", "trackingUri: [\n", "- a\n"):
        write(bad)
        for _ in range(3):
            assert defaults().tracking_uri == "http://good:5000"
        assert "the last good one is" in defaults.problem
    assert len(caplog.messages) == 3  # each once
    assert "trackingUrl" in caplog.messages[0]
    file.unlink()
    assert defaults().tracking_uri == "http://good:5000"
    assert "cannot be read" in defaults.problem
    write("trackingUri: http://better:5000\n")
    assert (defaults().tracking_uri, defaults.problem) == ("http://better:5000", "")
    with pytest.raises(UserError, match="cannot be read"):
        module.Defaults(str(tmp_path / "none.yaml"))
