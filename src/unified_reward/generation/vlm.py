"""What a VLM policy answers: N sampled candidates for preference data, or one greedy answer for evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from unified_reward.engines import Engine, Sampling
from unified_reward.generation.seeds import candidate_seed
from unified_reward.models.batching import Encoded, Segment, chat, encode
from unified_reward.models.processing import VlmProcessor
from unified_reward.models.vlm import Vlm, generate_text
from unified_reward.records import Candidate, Prompt

MediaSource = Callable[[str], NDArray[np.uint8]]  # sha256 hex -> [H, W, 3] picture or [T, H, W, 3] clip


def prompt_segments(prompt: Prompt, media: MediaSource) -> list[Segment]:
    """The user's turn: the media, then the text."""
    shown = [media(digest) for digest in prompt.media]
    pictures = [Segment(image=pixels) if pixels.ndim == 3 else Segment(video=pixels) for pixels in shown]
    return [*pictures, Segment(" " + prompt.text.lstrip() if pictures else prompt.text)]


def encode_prompt(processor: VlmProcessor, prompt: Prompt, media: MediaSource) -> Encoded:
    """The prompt in the checkpoint's chat format, up to where the answer starts."""
    return encode(processor, chat(processor, prompt_segments(prompt, media)))


def sample_candidates(
    engine: Engine, prompts: Sequence[Prompt], media: MediaSource, *, candidates: int, temperature: float,
    max_new_tokens: int, seed: int, policy: str,
) -> list[Candidate]:  # fmt: skip
    """N answers per prompt, in the order of the prompts. The prompt is read once for its N candidates."""
    turns = [prompt_segments(prompt, media) for prompt in prompts]
    rows = [(prompt, turn, k) for prompt, turn in zip(prompts, turns, strict=True) for k in range(candidates)]
    seeds = [candidate_seed(seed, prompt.id, k) for prompt, _, k in rows]
    written = engine.write([turn for _, turn, _ in rows], Sampling(max_new_tokens, temperature), seeds)
    sampler = {"temperature": str(temperature), "max_new_tokens": str(max_new_tokens)}
    return [
        Candidate(
            id=f"{prompt.id}/{policy}/{k}", prompt_id=prompt.id, index=k, seed=drawn, policy=policy,
            text=one.text.strip(), sampler=sampler,
        )
        for (prompt, _, k), drawn, one in zip(rows, seeds, written, strict=True)
    ]  # fmt: skip


def greedy_answers(
    vlm: Vlm, prompts: Sequence[Prompt], media: MediaSource, *, max_new_tokens: int, batch: int
) -> list[str]:
    """The likeliest answer to each prompt."""
    encoded = [encode_prompt(vlm.processor, prompt, media) for prompt in prompts]
    return [text.strip() for text in generate_text(vlm, encoded, max_new_tokens=max_new_tokens, batch=batch)]
