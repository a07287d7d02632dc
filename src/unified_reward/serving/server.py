"""Load a judge, listen, and end without losing a request: SIGTERM closes the door and finishes what is queued."""

from __future__ import annotations

import signal
import socket
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from unified_reward.data.media import MediaLimits
from unified_reward.errors import UserError
from unified_reward.judge.judge import Judge
from unified_reward.models.place import place
from unified_reward.serving.app import SECONDS, SIZES, Service, make_app
from unified_reward.serving.batcher import Batcher
from unified_reward.serving.media import MediaGate
from unified_reward.serving.metrics import Metrics
from unified_reward.serving.work import Shown, Worker


@dataclass(frozen=True)
class ServeOptions:
    """precision: float32, bfloat16, or "" for what suits the device.

    batch: items of one batch. queue: items that may wait. gather: seconds an idle server waits for company.
    """

    name: str
    host: str = "127.0.0.1"
    port: int = 8000
    template: str = ""
    device: str = "cpu"
    precision: str = ""
    batch: int = 128
    queue: int = 2048
    gather: float = 0.005
    token: str = ""
    fetch: tuple[str, ...] = ()
    max_pixels: int = 16_000_000
    max_bytes: int = 32 * 1024 * 1024


def make_service(directory: Path, options: ServeOptions) -> Service:
    shown, metrics = Shown(), Metrics()
    device, dtype = place(options.device, options.precision)
    judge = Judge.load(directory, shown, pack=options.template, batch=options.batch, device=device, dtype=dtype)

    def observe(kind: str, items: int, seconds: float) -> None:
        metrics.observe("batch_items", "Items of a batch", items, SIZES, kind=kind)
        metrics.observe("batch_seconds", "Time of a batch", seconds, SECONDS, kind=kind)

    batcher = Batcher(Worker(judge, shown), max_items=options.batch, capacity=options.queue, gather=options.gather,
                      observe=observe)  # fmt: skip
    limits = MediaLimits(max_pixels=options.max_pixels, max_bytes=options.max_bytes)
    return Service(
        options.name, judge.pack, batcher, MediaGate(limits, options.fetch), metrics, judge.engine.control_tokens,
        token=options.token,
    )  # fmt: skip


def serve(directory: Path, options: ServeOptions) -> None:
    """Until SIGTERM or SIGINT. Raises UserError before the model is loaded: device, addresses, a port that is taken."""
    _check(options)
    listening = _listen(options.host, options.port)
    app = make_app(make_service(directory, options))
    config = uvicorn.Config(app, log_level="info", access_log=False, timeout_graceful_shutdown=None)
    server = uvicorn.Server(config)
    listening.listen(config.backlog)  # from here on clients that connect are kept until they are answered
    print(f"listening on http://{options.host}:{listening.getsockname()[1]}", flush=True)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # uvicorn's own, and after its end the usual one
    server.run(sockets=[listening])


def _check(options: ServeOptions) -> None:
    place(options.device, options.precision)
    for prefix in options.fetch:
        if not prefix.startswith(("http://", "https://")):
            raise UserError(field="--fetch", value=prefix, why="only addresses of http and https are fetched",
                            fix="Write for example --fetch https://HOST/pictures/.")  # fmt: skip


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
    except OSError as error:
        raise UserError(field="--port", value=f"{host}:{port}", why=f"it cannot be listened on ({error.strerror})",
                        fix="Choose another one; 0 is any that is free.") from error  # fmt: skip
    return listening
