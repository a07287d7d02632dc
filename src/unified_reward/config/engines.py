"""Which engine writes a policy's or a judge's answers, and its options as one writes them: NAME=VALUE."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from typing import Any


class EngineName(StrEnum):
    """transformers: in this process. vllm: vLLM, where it is installed."""

    TRANSFORMERS = "transformers"
    VLLM = "vllm"


def engine_options(words: Sequence[str]) -> dict[str, Any]:
    """`max_model_len=8192` as {"max_model_len": 8192}: values are JSON, any other word is itself.

    Raises ValueError that says what is wrong with a word.
    """
    options: dict[str, Any] = {}
    for word in words:
        name, equals, value = (part.strip() for part in word.partition("="))
        if not equals or not name.isidentifier():
            raise ValueError(f"{word!r} is not of the form NAME=VALUE, with a name of Python")
        if name == "model" or name in options:
            raise ValueError(f"{name} is given already")
        options[name] = _value(name, value)
    gpus = options.get("tensor_parallel_size", 1)
    if type(gpus) is not int or gpus < 1:
        raise ValueError(f"tensor_parallel_size is {gpus}, which is no number of GPUs")
    return options


def _value(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        if text[:1] in ("{", "[", '"'):
            raise ValueError(f"the value of {name} is no JSON") from None
        return text
