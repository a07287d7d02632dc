"""The engine with vLLM in this process. Not run by us: it needs a GPU and vLLM, which is not among our dependencies.

Written against the documented interface of vLLM's offline inference, `LLM.chat` and `SamplingParams`. The same weights
behind `vllm serve` and `OpenAiEngine` need none of this file.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from unified_reward.engines.content import CONTROL_TOKENS, user_message
from unified_reward.engines.engine import Sampling, Token, Turn, Written
from unified_reward.errors import UserError


class VllmEngine:
    """options: arguments of `vllm.LLM`, such as tensor_parallel_size or limit_mm_per_prompt={"image": 32}."""

    control_tokens: tuple[str, ...] = CONTROL_TOKENS

    def __init__(self, model: str, **options: Any) -> None:
        try:
            self._vllm: Any = importlib.import_module("vllm")
        except ImportError as error:
            raise UserError(field="engine", value="vllm", why="vLLM is not installed",
                            fix="Install it, or start `vllm serve` and name its address.") from error  # fmt: skip
        self._llm = self._vllm.LLM(model=model, enable_prefix_caching=True, **options)

    def write(self, turns: Sequence[Turn], sampling: Sampling, seeds: Sequence[int] | None = None) -> list[Written]:
        """See `Engine`. vLLM batches and shares prefixes itself."""
        params = [
            self._vllm.SamplingParams(
                max_tokens=sampling.max_new_tokens, temperature=sampling.temperature, top_p=sampling.top_p,
                stop=list(sampling.stop) or None, include_stop_str_in_output=True,
                logprobs=sampling.alternatives or None, seed=None if seeds is None else seeds[number],
            )
            for number in range(len(turns))
        ]  # fmt: skip
        outputs = self._llm.chat([[user_message(turn)] for turn in turns], params, use_tqdm=False)
        return [_written(output.outputs[0]) for output in outputs]


def _written(completion: Any) -> Written:
    tokens = tuple(
        Token(at[chosen].decoded_token, {one.decoded_token: one.logprob for one in at.values()})
        for chosen, at in zip(completion.token_ids, completion.logprobs or [], strict=False)
    )
    return Written(completion.text, completion.finish_reason != "length", tokens)
