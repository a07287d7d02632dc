"""The engine in this process: Hugging Face weights, batches of like length, each distinct turn read once."""

from __future__ import annotations

from collections.abc import Sequence

from unified_reward.engines.engine import Sampling, Turn, Written
from unified_reward.models.batching import Encoded, chat, encode
from unified_reward.models.processing import VlmProcessor
from unified_reward.models.vlm import Vlm, generate_text


class TransformersEngine:
    """processor: turns media into patches; the model's own, or one that remembers. batch: rows at once."""

    def __init__(self, vlm: Vlm, *, batch: int = 128, processor: VlmProcessor | None = None) -> None:
        self.vlm, self.batch = vlm, batch
        self.processor = processor or vlm.processor
        self.control_tokens = tuple(vlm.processor.tokenizer.all_special_tokens)

    def write(self, turns: Sequence[Turn], sampling: Sampling, seeds: Sequence[int] | None = None) -> list[Written]:
        """See `Engine`. A sample depends on its seed alone, not on its batch. Alternatives and top_p are not offered."""
        if sampling.alternatives or sampling.top_p < 1:
            raise ValueError("this engine tells no alternatives and does not cut the distribution")
        known: dict[int, Encoded] = {}
        for turn in turns:
            if id(turn) not in known:
                known[id(turn)] = encode(self.processor, chat(self.processor, turn))
        texts = generate_text(
            self.vlm, [known[id(turn)] for turn in turns], max_new_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature, stop=sampling.stop, seeds=seeds, batch=self.batch,
        )  # fmt: skip
        return [Written(text, len(self.processor.text_ids(text)) < sampling.max_new_tokens) for text in texts]
