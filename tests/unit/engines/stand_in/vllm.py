"""A stand-in for vLLM: the documented interface of its offline inference (LLM.chat, SamplingParams, RequestOutput).

What is sent is checked for names and types, and answers are those a test scripts; there is no model. Sources: the pages
"Multimodal Inputs", "Generative Models" and the class references of vLLM's documentation.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar

from PIL import Image

ENGINE_ARGUMENTS = {"max_model_len", "gpu_memory_utilization", "limit_mm_per_prompt", "enable_prefix_caching", "seed"}


@dataclass
class SamplingParams:
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: str | list[str] | None = None
    max_tokens: int | None = 16
    logprobs: int | None = None
    include_stop_str_in_output: bool = False

    def __post_init__(self) -> None:
        assert isinstance(self.temperature, float)
        assert self.temperature >= 0
        assert 0 < self.top_p <= 1
        assert self.seed is None or (type(self.seed) is int and -(1 << 63) <= self.seed < 1 << 64)
        assert self.stop is None or all(isinstance(word, str) and word for word in self.stop)
        assert self.max_tokens is not None
        assert self.max_tokens >= 1
        assert self.logprobs is None or 0 <= self.logprobs <= 20  # max_logprobs


@dataclass
class Logprob:
    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


@dataclass
class CompletionOutput:
    index: int
    text: str
    token_ids: Sequence[int]
    logprobs: list[dict[int, Logprob]] | None
    finish_reason: str | None


@dataclass
class RequestOutput:
    outputs: list[CompletionOutput] = field(default_factory=list)


class LLM:
    """says: what is written to the content of a user's message, as tokens. All instances are kept in `made`."""

    says: ClassVar[Callable[[list[dict[str, Any]]], Sequence[str]]] = staticmethod(lambda _: ["yes"])
    made: ClassVar[list[LLM]] = []

    def __init__(self, model: str, *, tensor_parallel_size: int = 1, dtype: str = "auto", **kwargs: Any) -> None:
        assert isinstance(model, str)
        assert isinstance(tensor_parallel_size, int)
        if unknown := sorted(set(kwargs) - ENGINE_ARGUMENTS):
            raise TypeError(f"EngineArgs.__init__() got an unexpected keyword argument '{unknown[0]}'")
        self.arguments = {"model": model, "tensor_parallel_size": tensor_parallel_size, "dtype": dtype} | kwargs
        self.environment = dict(os.environ)
        self.asked: list[tuple[list[dict[str, Any]], SamplingParams]] = []
        LLM.made.append(self)

    def get_tokenizer(self) -> Any:
        return SimpleNamespace(all_special_tokens=["<|im_end|>", "<|image_pad|>"])

    def chat(
        self,
        messages: list[list[dict[str, Any]]],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        use_tqdm: bool = True,
    ) -> list[RequestOutput]:
        assert isinstance(use_tqdm, bool)
        assert isinstance(sampling_params, list)
        assert len(sampling_params) == len(messages)
        outputs = []
        for conversation, params in zip(messages, sampling_params, strict=True):
            (message,) = conversation
            assert message.keys() == {"role", "content"}
            assert message["role"] == "user"
            for part in message["content"]:
                check_part(part)
            self.asked.append((message["content"], params))
            outputs.append(RequestOutput([complete(LLM.says(message["content"]), params)]))
        return outputs


def check_part(part: dict[str, Any]) -> None:
    kind = part["type"]
    assert part.keys() == {"type", kind}
    assert isinstance(part[kind], {"text": str, "image_pil": Image.Image}[kind])


def complete(tokens: Sequence[str], params: SamplingParams) -> CompletionOutput:
    """Tokens until the end (an end token of its own, without text), a stop string, or the limit."""
    text, written, reason = "", [], "length"
    for token in [*tokens, "<|im_end|>"][: params.max_tokens]:
        written.append(token)
        if token == "<|im_end|>":
            reason = "stop"
            break
        text += token
        if found := next((stop for stop in params.stop or [] if stop in text), None):
            text = text[: text.index(found) + (len(found) if params.include_stop_str_in_output else 0)]
            reason = "stop"
            break
    logprobs = None
    if params.logprobs:  # the chosen token, and other likely ones beside it
        logprobs = [{7: Logprob(-0.25, 1, token), 8: Logprob(-1.5, 2, f"{token}!")} for token in written]
    return CompletionOutput(0, text, [7] * len(written), logprobs, reason)
