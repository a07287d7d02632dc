"""The routes. Bad input is a 4xx that names field, value and way out; a full queue is a 429 with Retry-After."""

from __future__ import annotations

import asyncio
import hmac
import math
import random
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse

from unified_reward.engines import Sampling
from unified_reward.errors import UserError
from unified_reward.judge import Pack
from unified_reward.judge.render import broken_up
from unified_reward.models.batching import Segment
from unified_reward.records import Mode
from unified_reward.serving.batcher import Batcher, Busy, Closing
from unified_reward.serving.media import MediaGate
from unified_reward.serving.metrics import Metrics
from unified_reward.serving.page import docs_page
from unified_reward.serving.schema import (
    Chat,
    Comparison,
    Comparisons,
    Fault,
    Item,
    Judged,
    Refused,
    Score,
    Scores,
    chat_answer,
)
from unified_reward.serving.work import CHAT, COMPARE, SCORE, Question, Talk

SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
CHAT_TOKENS = 512
REFUSALS: dict[int | str, dict[str, Any]] = {
    code: {"model": Refused, "description": why}
    for code, why in {
        400: "The body is no JSON", 401: "The bearer token is missing or wrong", 411: "The length of the body is not told",
        413: "The body is too long", 422: "A field is wrong: error.param says which",
        429: "The queue is full: wait Retry-After seconds", 503: "The server is ending: ask another replica",
    }.items()
}  # fmt: skip


@dataclass(frozen=True)
class Service:
    """What the routes stand on. token: bearer token that clients must send, "" = none. max_body: bytes of a request."""

    name: str
    pack: Pack
    batcher: Batcher
    media: MediaGate
    metrics: Metrics
    control_tokens: Sequence[str]
    token: str = ""
    max_body: int = 256 * 1024 * 1024


def make_app(service: Service) -> FastAPI:
    """The ASGI application. Its shutdown finishes what is queued."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(service.batcher.close)

    app = FastAPI(title="Unified Reward judge", version="1", lifespan=lifespan, docs_url=None, redoc_url=None,
                  dependencies=[Depends(_checked(service))])  # fmt: skip
    service.metrics.gauge("queue_items", "Items that wait", lambda: service.batcher.waiting)
    _handle_errors(app)
    _watch(app, service)
    _health_routes(app, service)
    _judge_routes(app, service)
    _chat_routes(app, service)
    return app


def _judge_routes(app: FastAPI, service: Service) -> None:
    @app.post("/v1/score", response_model_exclude_none=False, responses=REFUSALS)
    async def score(asked: Judged, request: Request) -> Scores:
        """How good each item is: the expected score on the template's scale."""
        questions = await run_in_threadpool(_questions, asked.items, Mode.POINT, service)
        verdicts = await _result(request, service, SCORE, questions)
        return Scores(model=service.name, scores=[
            Score(score=one.score, scale=service.pack.point(question.query.task).range, aspects=one.aspects,
                  rationale=one.rationale if asked.details else None, logprobs=one.logprobs if asked.details else None)
            for one, question in zip(verdicts, questions, strict=True)
        ])  # fmt: skip

    @app.post("/v1/compare", responses=REFUSALS)
    async def compare(asked: Judged, request: Request) -> Comparisons:
        """Which of two is better, asked in both orders."""
        questions = await run_in_threadpool(_questions, asked.items, Mode.PAIR, service)
        verdicts = await _result(request, service, COMPARE, questions)
        return Comparisons(model=service.name, comparisons=[
            Comparison(verdict=one.choice.value, p_first=one.p_first, p_first_shown_first=one.p_first_shown_first,
                       p_first_shown_second=one.p_first_shown_second, contradictory=one.contradictory,
                       rationale=one.rationale if asked.details else None,
                       rationale_swapped=one.rationale_swapped if asked.details else None,
                       logprobs=one.logprobs if asked.details else None)
            for one in verdicts
        ])  # fmt: skip


def _chat_routes(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": service.name, "object": "model", "owned_by": "unified-reward"}]}

    @app.post("/v1/chat/completions", responses=REFUSALS)
    async def chat(asked: Chat, request: Request) -> dict[str, Any]:
        """OpenAI's chat completion: what the judge writes to any text and pictures."""
        if asked.model not in ("", service.name):
            raise UserError(field="model", value=asked.model, why="this server has no such model",
                            fix=f"Use {service.name}, or leave it out.")  # fmt: skip
        turn = await run_in_threadpool(_turn, asked, service)
        stop = (asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop or ())
        room = asked.max_completion_tokens or asked.max_tokens or CHAT_TOKENS
        sampling = Sampling(room, asked.temperature, stop=tuple(text for text in stop if text))
        seed = random.getrandbits(62) if asked.seed is None else asked.seed % (1 << 62)
        talks = [Talk(turn, sampling, seed + k) for k in range(asked.n if asked.temperature > 0 else 1)]
        written = await _result(request, service, CHAT, talks)
        texts = [(one.text, one.finished) for one in written] * (asked.n // len(written))
        return chat_answer(service.name, texts, int(time.time()), f"chatcmpl-{secrets.token_hex(12)}")


def _health_routes(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> PlainTextResponse:
        return PlainTextResponse("ok\n")

    @app.get("/readyz", include_in_schema=False)
    async def readyz() -> PlainTextResponse:
        ready = service.batcher.alive
        return PlainTextResponse("ready\n" if ready else "not taking requests\n", 200 if ready else 503)

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(service.metrics.page(), media_type="text/plain; version=0.0.4")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(docs_page(app.openapi(), service.name))


def _questions(items: Sequence[Item], mode: Mode, service: Service) -> list[Question]:
    """Decode and check all items of a request: one fault refuses it whole."""
    if len(items) > service.batcher.capacity:
        raise UserError(field="items", value=len(items), why=f"one request holds at most {service.batcher.capacity}",
                        fix="Send several requests.")  # fmt: skip
    questions = []
    for number, item in enumerate(items):
        where, kind = f"items[{number}]", item.modality()
        item.query(mode, tuple(item.media()), where)  # what can be told without decoding comes first
        read = [
            service.media.read(one, f"{where}.{kind}s[{place}]", video=bool(item.videos))
            for place, one in enumerate(item.media())
        ]
        query = item.query(mode, tuple(digest for digest, _ in read), where)
        if query.task not in service.pack.tasks:
            raise UserError(field=where, value=query.task, why="this judge's templates have no such task",
                            fix=f"It has {', '.join(service.pack.tasks)}.")  # fmt: skip
        questions.append(Question(query, dict(read)))
    return questions


def _turn(asked: Chat, service: Service) -> list[Segment]:
    turn = []
    for place, part in enumerate(asked.parts()):
        where = f"messages[0].content[{place}]"
        url = part.image_url if part.type == "image_url" else part.video_url
        if part.type == "text":
            turn.append(Segment(broken_up(part.text, service.control_tokens)))
        elif url is None:
            raise UserError(
                field=f"{where}.{part.type}", value=None, why="the part has no medium", fix='Give {"url": ...}.'
            )
        else:
            _, pixels = service.media.read(url.url, f"{where}.{part.type}.url")
            turn.append(Segment(image=pixels) if pixels.ndim == 3 else Segment(video=pixels))
    return turn


async def _result(request: Request, service: Service, kind: str, items: Sequence[Any]) -> list[Any]:
    """Queue the items and wait; when the client goes away before they are begun, they leave the queue."""
    job = service.batcher.submit(kind, items)
    future = asyncio.wrap_future(job.future)
    while True:
        done, _ = await asyncio.wait([future], timeout=0.5)
        if done:
            service.metrics.count("items_total", "Items judged", len(items), kind=kind)
            return future.result()
        if await request.is_disconnected():
            service.batcher.cancel(job)
            service.metrics.count("abandoned_total", "Requests whose client went away")
            raise asyncio.CancelledError


def _checked(service: Service) -> Callable[[Request], Awaitable[None]]:
    """The bearer token, where one is asked for, before anything is decoded. Probes need none."""

    async def check(request: Request) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if service.token and request.url.path.startswith("/v1/") and not hmac.compare_digest(
            given.encode(), service.token.encode()
        ):  # fmt: skip
            raise PermissionError

    return check


def _watch(app: FastAPI, service: Service) -> None:
    flying: set[object] = set()
    service.metrics.gauge("requests_in_flight", "Requests of /v1 being answered", lambda: len(flying))

    @app.middleware("http")
    async def watch(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        length = request.headers.get("content-length", "")
        started, path = time.monotonic(), request.url.path
        if request.method == "POST" and not length.isdigit():
            response: Response = _fault(411, "content-length", None, "the length of the body is not told", "Send it.")
        elif length.isdigit() and int(length) > service.max_body:
            response = _fault(413, "content-length", length, f"a request has at most {service.max_body} bytes",
                              "Send fewer or smaller media at once.")  # fmt: skip
        else:
            mark = object()
            if path.startswith("/v1/"):
                flying.add(mark)
            try:
                response = await answer(request)
            finally:
                flying.discard(mark)
        known = path if path in KNOWN else "other"
        service.metrics.count("requests_total", "Requests answered", path=known, code=str(response.status_code))
        if path.startswith("/v1/"):
            service.metrics.observe(
                "request_seconds", "Time to answer", time.monotonic() - started, SECONDS, path=known
            )
        return response


KNOWN = ("/v1/score", "/v1/compare", "/v1/chat/completions", "/v1/models", "/healthz", "/readyz", "/metrics", "/docs")


def _handle_errors(app: FastAPI) -> None:
    @app.exception_handler(UserError)
    async def user(_: Request, error: UserError) -> JSONResponse:
        return _fault(422, error.field, error.value, error.why, error.fix)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"] if part != "body") or "body"
        code = 400 if first["type"] == "json_invalid" else 422
        value = None if first["type"] in ("missing", "json_invalid") else str(first.get("input"))[:80]
        return _fault(code, path, value, first["msg"][0].lower() + first["msg"][1:], "See /docs for what is asked.")

    @app.exception_handler(Busy)
    async def busy(_: Request, error: Busy) -> JSONResponse:
        seconds = math.ceil(error.retry_after)
        response = _fault(429, "request", None, "the queue is full", f"Try again in {seconds} s, or add replicas.")
        response.headers["Retry-After"] = str(seconds)
        return response

    @app.exception_handler(Closing)
    async def closing(_: Request, __: Closing) -> JSONResponse:
        return _fault(503, "request", None, "the server is ending", "Ask another replica.")

    @app.exception_handler(PermissionError)
    async def forbidden(_: Request, __: PermissionError) -> JSONResponse:
        return _fault(
            401, "authorization", None, "the bearer token is missing or wrong", "Send Authorization: Bearer ..."
        )


def _fault(code: int, field: str, value: object, why: str, fix: str) -> JSONResponse:
    """OpenAI's shape of an error, with ours beside it."""
    message = str(UserError(field=field, value=value, why=why, fix=fix))
    shown = None if value is None else str(value)[:200]
    kind = "server_error" if code >= 500 else "rate_limit_error" if code == 429 else "invalid_request_error"
    fault = Fault(message=message, type=kind, param=field, code=code, value=shown, why=why, fix=fix)
    return JSONResponse(Refused(error=fault).model_dump(), code)
