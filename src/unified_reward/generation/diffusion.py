"""What an image policy draws: N candidates per caption as PNG, each from a seed of its own."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

from PIL import Image

from unified_reward.generation.seeds import candidate_seed
from unified_reward.models.diffusion_policy import ImagePolicy, Pixels
from unified_reward.models.diffusion_sampler import DiffusionSampler, draw_images
from unified_reward.records import Candidate, Prompt


def candidates(
    policy: ImagePolicy, prompts: Sequence[Prompt], n: int, sampler: DiffusionSampler, *, seed: int, name: str
) -> Iterator[tuple[Candidate, bytes]]:
    """n images per prompt, in the order of the prompts, each as (Candidate, PNG bytes).

    seed: of the run; a candidate's own seed is made of it, the prompt's id and the index. name: of the policy.
    `media` of the candidate is left "": the store that takes the bytes names them.
    """
    rows = [(prompt, index, candidate_seed(seed, prompt.id, index)) for prompt in prompts for index in range(n)]
    described = sampler.described()
    images = (image for batch in _draw(policy, rows, sampler) for image in batch)
    for (prompt, index, own), image in zip(rows, images, strict=True):
        yield Candidate(
            id=f"{prompt.id}/{name}/{index}", prompt_id=prompt.id, index=index, seed=own, policy=name,
            sampler=described,
        ), png(image)  # fmt: skip


def draw_for_prompts(
    policy: ImagePolicy, prompts: Sequence[Prompt], each: int, sampler: DiffusionSampler, *, seed: int
) -> list[Pixels]:
    """`each` images per prompt, in the order of the prompts: uint8 [H, W, 3]."""
    rows = [(prompt, index, candidate_seed(seed, prompt.id, index)) for prompt in prompts for index in range(each)]
    return [image for batch in _draw(policy, rows, sampler) for image in batch]


def png(image: Pixels) -> bytes:
    """Lossless PNG of uint8 [H, W, 3]."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def _draw(policy: ImagePolicy, rows: Sequence[tuple[Prompt, int, int]], sampler: DiffusionSampler) -> Iterator[Pixels]:
    return draw_images(policy, [prompt.text for prompt, _, _ in rows], [own for _, _, own in rows], sampler)
