"""Probabilities of the verdict strings out of a written answer and the likeliest tokens told beside it.

A server gives no log-probs of strings of our choice, but the alternatives to each token it wrote. The verdict strings
differ from one character on; what stands at that place in each alternative tells which string it begins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from unified_reward.engines import Token


def string_logprobs(tokens: Sequence[Token], strings: Mapping[str, str], marker: str = "") -> dict[str, float]:
    """Log-prob (nats) of each verdict string at the place where one of them was written last, after the last marker.

    A string that no alternative begins has at most the least log-prob told; that bound stands for it. Empty where no
    string was written, or one alternative could begin two strings ("1" of "1" and "10"): then nothing can be weighed.
    """
    text = "".join(token.text for token in tokens)
    found = _last(text, strings, text.rfind(marker) + len(marker) if marker and marker in text else 0)
    if found is None:
        return {}
    start, _ = found
    telling = start + _common([string.strip() for string in strings.values()])
    at, token = _covering(tokens, telling)
    if token is None or not token.alternatives:
        return {}
    begins = {key: (text[:start] + string.strip())[at:] for key, string in strings.items()}
    weights: dict[str, list[float]] = {key: [] for key in strings}
    for words, logprob in token.alternatives.items():
        keys = [key for key, rest in begins.items() if _begins(words, rest, telling - at)]
        if len(keys) > 1:
            return {}
        if keys:
            weights[keys[0]].append(logprob)
    bound = min(token.alternatives.values())
    return {key: _sum(logprobs) if logprobs else bound for key, logprobs in weights.items()}


def _last(text: str, strings: Mapping[str, str], since: int) -> tuple[int, str] | None:
    """Where the string that ends last begins, and its key; of two that end there or overlap, the longer."""
    ends = []
    for key, string in strings.items():
        bare = string.strip()
        at = text.rfind(bare, since)
        if at >= 0:
            ends.append((at + len(bare), len(bare), at, key))
    if not ends:
        return None
    _, _, at, key = max(ends)
    return at, key


def _covering(tokens: Sequence[Token], place: int) -> tuple[int, Token | None]:
    """The token that holds the character at `place`, and where it begins."""
    at = 0
    for token in tokens:
        if at <= place < at + len(token.text):
            return at, token
        at += len(token.text)
    return at, None


def _common(strings: Sequence[str]) -> int:
    """How many characters all strings begin with."""
    columns = zip(*strings, strict=False)
    return next((place for place, column in enumerate(columns) if len(set(column)) > 1), min(map(len, strings)))


def _begins(words: str, rest: str, telling: int) -> bool:
    """Whether a token begins (or holds) what a string goes on with, up to and with the character that tells it."""
    return len(words) > telling and (rest.startswith(words) or words.startswith(rest))


def _sum(logprobs: Sequence[float]) -> float:
    top = max(logprobs)
    return top + math.log(math.fsum(math.exp(value - top) for value in logprobs))
