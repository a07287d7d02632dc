"""Saving, loading and drawing: an image depends on its caption and its seed alone."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unified_reward.errors import UserError
from unified_reward.generation.diffusion import candidates
from unified_reward.models.diffusion import ImagePolicy, load_image_policy, save_image_policy
from unified_reward.models.diffusion_sampler import DiffusionSampler, draw_images
from unified_reward.records import Modality, Prompt, Subject

RING, SQUARE = "a red ring on a white background", "a blue square on a white background"


def draw(policy: ImagePolicy, texts: list[str], seeds: list[int], **sampler: float) -> np.ndarray:
    return np.concatenate(list(draw_images(policy, texts, seeds, DiffusionSampler(**{"steps": 3, **sampler}))))


def test_a_saved_policy_predicts_the_same(policy: ImagePolicy, tmp_path: Path) -> None:
    save_image_policy(policy, tmp_path)
    loaded = load_image_policy(tmp_path)
    noisy, times = torch.randn(2, *policy.shape), torch.tensor([10.0, 900.0])
    with torch.no_grad():
        expected = policy.predict(noisy, times, policy.encode_prompt([RING, SQUARE]))
        found = loaded.predict(noisy, times, loaded.encode_prompt([RING, SQUARE]))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert loaded.scheduler.config.timestep_spacing == "trailing"
    assert {p.name for p in tmp_path.iterdir()} == {
        "model_index.json",
        "scheduler",
        "text_encoder",
        "tokenizer",
        "transformer",
    }


def test_bfloat16_storage_halves_the_files_and_loads_as_float32(policy: ImagePolicy, tmp_path: Path) -> None:
    save_image_policy(policy, tmp_path / "full")
    save_image_policy(policy, tmp_path / "half", dtype=torch.bfloat16)
    size = {name: sum(p.stat().st_size for p in (tmp_path / name).rglob("*.safetensors")) for name in ("full", "half")}
    assert size["half"] < 0.6 * size["full"]
    assert next(load_image_policy(tmp_path / "half").denoiser.parameters()).dtype is torch.float32
    assert next(policy.denoiser.parameters()).dtype is torch.float32


def test_a_directory_that_is_no_policy_is_refused(policy: ImagePolicy, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model_index\.json cannot be read"):
        load_image_policy(tmp_path)
    save_image_policy(policy, tmp_path)
    weights = tmp_path / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UserError, match="does not load"):
        load_image_policy(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    (tmp_path / "model_index.json").write_text(json.dumps(index | {"transformer": ["diffusers", "Unheard"]}))
    with pytest.raises(UserError, match=r"model\.transformer is Unheard"):
        load_image_policy(tmp_path)


def test_prompts_differ_by_every_word_and_pool_the_end(policy: ImagePolicy) -> None:
    with torch.no_grad():
        rows = policy.encode_prompt([RING, SQUARE, "", RING])
    torch.testing.assert_close(rows.pooled[0], rows.pooled[3])
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert float((rows.pooled[a] - rows.pooled[b]).norm()) > 1e-3


def test_pictures_survive_encoding(policy: ImagePolicy) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(policy.decode_images(policy.to_latents(policy.to_pixels(images))), images)
    with pytest.raises(ValueError, match=r"\(8, 4, 3\)"):
        policy.to_pixels(images[:, :, :4])


def test_an_image_can_be_drawn_again_by_itself(policy: ImagePolicy) -> None:
    texts, seeds = [RING, SQUARE, RING, SQUARE, RING], [11, 12, 13, 11, 14]
    together = draw(policy, texts, seeds, batch=2)
    assert together.shape == (5, 8, 8, 3)
    for i in range(5):
        alone = draw(policy, [texts[i]], [seeds[i]])
        assert int(np.abs(alone[0].astype(int) - together[i]).max()) <= 1  # rounding of matrix products
    assert int(np.abs(together[0].astype(int) - together[2]).max()) > 8


def test_guidance_of_one_is_off_and_more_moves_away_from_no_prompt(policy: ImagePolicy) -> None:
    plain, strong = draw(policy, [RING], [1]), draw(policy, [RING], [1], guidance=5.0)
    near = draw(policy, [RING], [1], guidance=1.0 + 1e-6)
    assert int(np.abs(plain.astype(int) - near).max()) <= 1
    assert int(np.abs(plain.astype(int) - strong).max()) > 1


def test_candidates_are_png_with_a_seed_that_draws_them_again(policy: ImagePolicy) -> None:
    prompts = [
        Prompt(id=f"p{i}", split="train", modality=Modality.IMAGE, subject=Subject.GENERATION, text=text)
        for i, text in enumerate((RING, SQUARE))
    ]
    made = list(candidates(policy, prompts, 4, DiffusionSampler(steps=3, batch=3), seed=5, name="base"))
    assert [c.id for c, _ in made] == [f"{p}/base/{k}" for p in ("p0", "p1") for k in range(4)]
    assert len({c.seed for c, _ in made}) == 8
    candidate, data = made[6]
    assert (candidate.prompt_id, candidate.index, candidate.media) == ("p1", 2, "")
    assert candidate.sampler == {"steps": "3", "guidance": "1.0"}
    shown = np.asarray(Image.open(io.BytesIO(data)))
    assert int(np.abs(draw(policy, [SQUARE], [candidate.seed])[0].astype(int) - shown).max()) <= 1
    other = list(candidates(policy, prompts[1:], 4, DiffusionSampler(steps=3), seed=5, name="base"))
    assert [c.seed for c, _ in other] == [c.seed for c, _ in made[4:]]


def test_an_image_needs_a_seed(policy: ImagePolicy) -> None:
    with pytest.raises(ValueError, match="2 texts, 1 seeds"):
        draw(policy, [RING, SQUARE], [1])
