"""The engine with vLLM in this process. Not run by us: it needs a GPU and vLLM, which is not among our dependencies.

Written against the documented interface of vLLM's offline inference (`LLM.chat`, `SamplingParams`, `RequestOutput`). The
same weights behind `vllm serve` and `OpenAiEngine` need none of this file.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from unified_reward.engines.content import as_pil, user_message
from unified_reward.engines.engine import Sampling, Token, Turn, Written
from unified_reward.errors import UserError

VISIBLE = "CUDA_VISIBLE_DEVICES"
TORCHRUN = (
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK", "ROLE_NAME",
    "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
)  # fmt: skip
# The engine's own process, started afresh: CUDA may be in use here already, and then it cannot be forked. It tells no one.
OWN_PROCESS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "1", "VLLM_WORKER_MULTIPROC_METHOD": "spawn", "VLLM_NO_USAGE_STATS": "1",
}  # fmt: skip


def require_vllm() -> None:
    """Raises UserError where vLLM is not installed. Imports nothing."""
    if importlib.util.find_spec("vllm") is None:
        raise UserError(field="engine", value="vllm", why="vLLM is not installed",
                        fix="Install it (docs/judge.md, Engines), or use transformers.")  # fmt: skip


class VllmEngine:
    """model: directory of Hugging Face files. options: arguments of `vllm.LLM`, such as max_model_len.

    tensor_parallel_size: GPUs that it takes; place: of this engine among those of this machine, which take their GPUs
    one after the other. Raises UserError where vLLM is not installed or refuses an option.
    """

    def __init__(self, model: str, *, place: int = 0, tensor_parallel_size: int = 1, **options: Any) -> None:
        require_vllm()
        # bfloat16: what our own engine computes in on a GPU; vLLM's own choice would go by how the file is stored.
        arguments = {"dtype": "bfloat16", "enable_prefix_caching": True} | options
        with _own_process(place, tensor_parallel_size):
            self._vllm: Any = importlib.import_module("vllm")
            try:
                self._llm = self._vllm.LLM(model=model, tensor_parallel_size=tensor_parallel_size, **arguments)
            except (TypeError, ValueError) as error:
                why = f"vLLM refuses it ({' '.join(str(error).split())[:300]})"
                raise UserError(field="engine options", value=options or None, why=why,
                                fix="Correct the options, or the model.") from error  # fmt: skip
        self.control_tokens: tuple[str, ...] = tuple(self._llm.get_tokenizer().all_special_tokens)

    def write(self, turns: Sequence[Turn], sampling: Sampling, seeds: Sequence[int] | None = None) -> list[Written]:
        """See `Engine`. vLLM batches and shares prefixes itself; a seed's sample may differ from batch to batch."""
        if not turns:
            return []
        messages = {id(turn): user_message(turn, as_pil) for turn in turns}
        outputs = self._llm.chat(
            [[messages[id(turn)]] for turn in turns],
            [self._params(sampling, None if seeds is None else seeds[number]) for number in range(len(turns))],
            use_tqdm=False,
        )
        return [_written(output.outputs[0]) for output in outputs]

    def _params(self, sampling: Sampling, seed: int | None) -> Any:
        return self._vllm.SamplingParams(
            max_tokens=sampling.max_new_tokens, temperature=sampling.temperature, top_p=sampling.top_p,
            stop=list(sampling.stop) or None, include_stop_str_in_output=True,
            logprobs=sampling.alternatives or None, seed=seed if sampling.temperature > 0 else None,
        )  # fmt: skip


def _written(completion: Any) -> Written:
    tokens = tuple(
        Token(_text(at[chosen]), {_text(one): one.logprob for one in at.values()})
        for chosen, at in zip(completion.token_ids, completion.logprobs or [], strict=False)
    )
    return Written(completion.text, completion.finish_reason == "stop", tokens)


def _text(logprob: Any) -> str:
    return logprob.decoded_token or ""


@contextmanager
def _own_process(place: int, gpus: int) -> Iterator[None]:
    """The environment that an engine's process starts in: it sees its GPUs alone, and nothing of torchrun.

    With torchrun's variables its process group would look for the store of our launcher, and wait for ever.
    """
    kept = dict(os.environ)
    visible = [device for device in kept.get(VISIBLE, "").split(",") if device]
    devices = visible or [str(device) for device in range((place + 1) * gpus)]
    own = devices[place * gpus : (place + 1) * gpus]
    if len(own) < gpus:
        raise UserError(field=VISIBLE, value=kept[VISIBLE], why=f"engine {place} takes {gpus} GPUs after those before it",
                        fix="Give each engine its GPUs, or start fewer.")  # fmt: skip
    for name in kept:
        if name in TORCHRUN or name.startswith("TORCHELASTIC_"):
            del os.environ[name]
    os.environ.update(OWN_PROCESS, **{VISIBLE: ",".join(own)})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)
