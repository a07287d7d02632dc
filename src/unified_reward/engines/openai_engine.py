"""The engine behind a URL: any server that speaks OpenAI's chat completions (vLLM, SGLang, transformers serve, our own).

Requests go out in parallel and are tried again when the server is busy or away. Temperature is always sent: a server
that is told none samples by the checkpoint's own defaults, as the published client does unawares.
"""

from __future__ import annotations

import http.client
import json
import random
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from unified_reward.engines.content import CONTROL_TOKENS, user_message
from unified_reward.engines.engine import Sampling, Token, Turn, Written
from unified_reward.errors import UserError

BUSY = (408, 429, 500, 502, 503, 504)
LONGEST_PAUSE = 10.0


class OpenAiEngine:
    """url: up to and with /v1. model: as the server calls it; "" = the one it serves. api_key: sent as bearer token.

    timeout: seconds for one answer. retries: further tries of one request, with growing random pauses, or as long as the
    server says.
    """

    control_tokens: tuple[str, ...] = CONTROL_TOKENS

    def __init__(self, url: str, *, model: str = "", api_key: str = "", parallel: int = 16, timeout: float = 300.0,
                 retries: int = 6) -> None:  # fmt: skip
        if not url.startswith(("http://", "https://")):
            raise UserError(field="server", value=url, why="it is no address", fix="Give http://HOST:PORT/v1.")
        self.url, self.api_key = url.rstrip("/"), api_key
        self.parallel, self.timeout, self.retries = parallel, timeout, retries
        self.model = model or self._only_model()

    def write(self, turns: Sequence[Turn], sampling: Sampling, seeds: Sequence[int] | None = None) -> list[Written]:
        """See `Engine`. Raises UserError when the server refuses a request, or cannot be reached after all tries."""
        messages: dict[int, dict[str, Any]] = {}
        for turn in turns:
            if id(turn) not in messages:
                messages[id(turn)] = user_message(turn)
        bodies = [
            self._body(messages[id(turn)], sampling, None if seeds is None else seeds[number])
            for number, turn in enumerate(turns)
        ]
        with ThreadPoolExecutor(self.parallel) as pool:
            return list(pool.map(self._complete, bodies))

    def _body(self, message: dict[str, Any], sampling: Sampling, seed: int | None) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model, "messages": [message], "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
        }  # fmt: skip
        if sampling.top_p < 1:
            body["top_p"] = sampling.top_p
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if sampling.alternatives:
            body |= {"logprobs": True, "top_logprobs": sampling.alternatives}
        if seed is not None and sampling.temperature > 0:
            body["seed"] = seed % (1 << 31)  # what all servers take
        return body

    def _complete(self, body: dict[str, Any]) -> Written:
        answer = self._ask("/chat/completions", body)
        try:
            choice = answer["choices"][0]
            text = choice["message"]["content"] or ""
            tokens = (choice.get("logprobs") or {}).get("content") or []
            told = tuple(
                Token(one["token"], {other["token"]: other["logprob"] for other in one["top_logprobs"]})
                for one in tokens
            )
        except (KeyError, IndexError, TypeError) as error:
            raise UserError(field="server", value=self.url, why=f"its answer is no chat completion ({error!r} is missing)",
                            fix="Give the address of an OpenAI-compatible server, with /v1.") from error  # fmt: skip
        return Written(text, choice.get("finish_reason") != "length", told)

    def _only_model(self) -> str:
        served = [one["id"] for one in self._ask("/models", None).get("data", [])]
        if len(served) != 1:
            raise UserError(field="server model", value=None, why=f"the server has {', '.join(served) or 'none'}",
                            fix="Say which one.")  # fmt: skip
        return str(served[0])

    def _ask(self, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        for attempt in range(self.retries + 1):
            try:
                return self._once(path, body)
            except urllib.error.HTTPError as error:
                said = _brief(error)
                if error.code not in BUSY or attempt == self.retries:
                    raise UserError(
                        field="server",
                        value=self.url,
                        why=f"it answered {error.code} ({said})",
                        fix=_way_out(error.code),
                    ) from error
                pause = _retry_after(error.headers.get("Retry-After"))
            except (OSError, http.client.HTTPException, ValueError) as error:
                if attempt == self.retries:
                    raise UserError(field="server", value=self.url, why=f"it cannot be reached ({error})",
                                    fix="Start it, or correct the address.") from error  # fmt: skip
                pause = None
            time.sleep(min(2**attempt / 4 + random.random() / 4, LONGEST_PAUSE) if pause is None else pause)
        raise AssertionError("the last try returns or raises")

    def _once(self, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers=headers)
        with urllib.request.urlopen(request, timeout=self.timeout) as reply:
            answer: dict[str, Any] = json.load(reply)
            return answer


def _retry_after(value: str | None) -> float | None:
    try:
        return min(float(value), 60.0) if value else None
    except ValueError:  # a date; rare, and our own pause will do
        return None


def _brief(error: urllib.error.HTTPError) -> str:
    return " ".join(error.read(2000).decode("utf-8", "replace").split())[:300]


def _way_out(code: int) -> str:
    if code in (401, 403):
        return "Give the server's API key."
    if code in BUSY:
        return "Try again when it has less to do, or ask it fewer at once."
    return "Correct what was sent: the server says what is wrong with it."
