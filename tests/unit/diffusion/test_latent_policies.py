"""Policies with a VAE, as their checkpoints are published: drawing and the loss against diffusers and plain torch."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from unified_reward.errors import UserError
from unified_reward.models.diffusion import ImagePolicy, load_image_policy, save_image_policy
from unified_reward.models.diffusion_sampler import DiffusionSampler, draw_images, starting_noise
from unified_reward.models.tiny_latents import tiny_sd3, tiny_sdxl
from unified_reward.training.diffusion_dpo import DiffusionDpo, ImagePair, trained_steps

WORDS = ["a", "red", "blue", "ring", "square", "on", "white", "background"]
TEXTS = ["a red ring on white", "a blue square", "a red ring on white"]
SEEDS = [11, 12, 13]

Saved = Callable[..., Path]


@pytest.fixture
def saved(tmp_path: Path) -> Saved:
    """Writes a tiny checkpoint by diffusers' own save_pretrained."""

    def save(make: Callable[..., Any], **options: Any) -> Path:
        torch.manual_seed(0)
        make(WORDS, **options).save_pretrained(tmp_path / "checkpoint")
        return tmp_path / "checkpoint"

    return save


def pipeline_images(directory: Path, sampler: DiffusionSampler, **options: Any) -> np.ndarray:
    """What diffusers draws from the same starting noise, uint8."""
    index = json.loads((directory / "model_index.json").read_text())
    left_out = {name: None for name, value in index.items() if value == [None, None]}  # diffusers wants to be told
    pipeline = diffusers.DiffusionPipeline.from_pretrained(
        directory, local_files_only=True, low_cpu_mem_usage=False, **left_out
    )
    denoiser = pipeline.components.get("unet") or pipeline.transformer
    size = denoiser.config.sample_size
    noise = torch.stack([starting_noise(seed, (denoiser.config.in_channels, size, size)) for seed in SEEDS])
    drawn = pipeline(
        prompt=TEXTS, num_inference_steps=sampler.steps, guidance_scale=sampler.guidance, latents=noise,
        generator=[torch.Generator().manual_seed(seed + 1) for seed in SEEDS], output_type="np", **options,
    )  # fmt: skip
    return (drawn.images * 255).round().astype(int)


CASES = {
    "turbo, 1 step": (tiny_sdxl, {}, 1, 0.0),
    "turbo, 4 steps": (tiny_sdxl, {}, 4, 0.0),
    "sdxl, guided": (tiny_sdxl, {"turbo": False}, 5, 5.0),
    "sdxl, velocity": (tiny_sdxl, {"turbo": False, "prediction": "v_prediction"}, 5, 1.0),
    "sd3, guided": (tiny_sd3, {}, 4, 4.0),
    "sd3 without T5": (tiny_sd3, {"t5": False}, 4, 1.0),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_it_draws_what_the_pipeline_of_diffusers_draws(saved: Saved, case: Any) -> None:
    make, options, steps, guidance = case
    directory = saved(make, **options)
    sampler = DiffusionSampler(steps=steps, guidance=guidance, batch=2)
    images = np.concatenate(list(draw_images(load_image_policy(directory), TEXTS, SEEDS, sampler))).astype(int)
    expected = pipeline_images(directory, sampler)
    assert images.shape == (3, 32, 32, 3)
    assert np.abs(images - expected).max() <= 1
    assert expected.std() > 2  # else any grey would do
    assert np.abs(images[0] - images[2]).max() > 1  # the seed counts


def test_latents_are_those_that_the_vae_decodes_again(saved: Saved) -> None:
    """Encoding and decoding undo each other's scale and shift: only the VAE itself is between."""
    for make in (tiny_sdxl, tiny_sd3):
        policy = load_image_policy(saved(make))
        images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
        pixels = policy.to_pixels(images)
        latents = policy.to_latents(pixels)
        vae = policy.vae
        with torch.no_grad():
            moments = vae.quant_conv(vae.encoder(pixels))
            decoded = vae.decode(moments[:, :4]).sample
        assert latents.shape == (2, *policy.shape)
        torch.testing.assert_close(policy.from_latents(latents), decoded, atol=1e-4, rtol=1e-4)
        shift = vae.config.shift_factor or 0.0
        torch.testing.assert_close(latents, (moments[:, :4] - shift) * vae.config.scaling_factor)


def pairs_of(policy: ImagePolicy, count: int) -> tuple[list[ImagePair], Callable[[str], np.ndarray]]:
    height, width = policy.image_size
    images = np.random.default_rng(0).integers(0, 256, (count, 2, height, width, 3), dtype=np.uint8)
    store = {f"{i}/{side}": images[i, side] for i in range(count) for side in range(2)}
    return [ImagePair(TEXTS[i % 2], f"{i}/0", f"{i}/1") for i in range(count)], store.__getitem__


@pytest.mark.parametrize("make", [tiny_sdxl, tiny_sd3])
def test_a_step_equals_plain_torch(saved: Saved, make: Callable[..., Any]) -> None:
    """Loss and gradients of three pairs against Diffusion-DPO written out with diffusers' parts and its add_noise."""
    directory = saved(make)
    policy = load_image_policy(directory)
    pairs, read = pairs_of(policy, 3)
    objective = DiffusionDpo(policy, pairs, read, beta=200.0, noise_levels=4)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in objective.root.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    batch = objective.batch([2, 0, 1], seed=9)
    total = objective.loss(batch).total
    total.backward()

    plain = diffusers.DiffusionPipeline.from_pretrained(directory, local_files_only=True, low_cpu_mem_usage=False)
    sdxl = make is tiny_sdxl
    reference = plain.unet if sdxl else plain.transformer
    trained = copy.deepcopy(reference)
    trained.load_state_dict(objective.root.state_dict())
    expected, seen = torch.zeros(()), []
    for row, index in enumerate([2, 0, 1]):
        noise, step = batch["noise"][row : row + 1], int(batch["steps"][row])
        with torch.no_grad():
            if sdxl:
                hidden, _, pooled, _ = plain.encode_prompt(pairs[index].prompt, do_classifier_free_guidance=False)
            else:
                prompt = pairs[index].prompt
                hidden, _, pooled, _ = plain.encode_prompt(prompt, prompt, prompt, do_classifier_free_guidance=False)
        errors = []
        for name in (pairs[index].chosen, pairs[index].rejected):
            image = torch.from_numpy(read(name)).permute(2, 0, 1)[None] / 255 * 2 - 1
            with torch.no_grad():
                clean = plain.vae.encode(image).latent_dist.mean
            if sdxl:
                clean = clean * plain.vae.config.scaling_factor
                time = torch.tensor([step])
                ddpm = diffusers.DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
                noisy, target = ddpm.add_noise(clean, noise, time), noise
                size = {"time_ids": torch.tensor([[32.0, 32, 0, 0, 32, 32]]), "text_embeds": pooled}
                outputs = [
                    m(noisy, time, encoder_hidden_states=hidden, added_cond_kwargs=size).sample
                    for m in (trained, reference)
                ]
            else:
                clean = (clean - plain.vae.config.shift_factor) * plain.vae.config.scaling_factor
                linear = (step + 1) / 1000
                sigma = 3 * linear / (1 + 2 * linear)  # a shift of 3
                noisy, target = (1 - sigma) * clean + sigma * noise, noise - clean
                time = torch.tensor([1000 * sigma])
                outputs = [
                    m(
                        hidden_states=noisy, timestep=time, encoder_hidden_states=hidden, pooled_projections=pooled
                    ).sample
                    for m in (trained, reference)
                ]
            errors.append([((output - target) ** 2).mean() for output in outputs])
        gap = (errors[0][0] - errors[0][1].detach()) - (errors[1][0] - errors[1][1].detach())
        expected = expected + torch.log(1 + torch.exp(200.0 / 2 * gap))
        seen.append(abs(float(gap.detach()) * 100))
    assert max(seen) > 0.05  # else the check is empty
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)
    trained.zero_grad()
    expected.backward()
    for (name, ours), theirs in zip(objective.root.named_parameters(), trained.parameters(), strict=True):
        if theirs.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=2e-3, atol=2e-4, msg=name)


def test_only_the_denoiser_learns(saved: Saved) -> None:
    policy = load_image_policy(saved(tiny_sdxl))
    assert len(policy.frozen) == 3
    pairs, read = pairs_of(policy, 4)
    objective = DiffusionDpo(policy, pairs, read, beta=100.0)
    before = [p.clone() for module in (*policy.frozen, objective.reference) for p in module.parameters()]
    objective.root.train()
    optimizer = torch.optim.AdamW(objective.root.parameters(), lr=1e-3)
    for step in range(20):
        optimizer.zero_grad()
        objective.loss(objective.batch([0, 1, 2, 3], seed=step)).total.backward()
        optimizer.step()
    loss = objective.loss(objective.batch([0, 1, 2, 3], seed=1000))
    assert loss.total.item() < 4 * np.log(2)
    after = [p for module in (*policy.frozen, objective.reference) for p in module.parameters()]
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(before, after, strict=True))
    assert not any(module.training for module in policy.frozen)


def test_what_it_saves_diffusers_reads(saved: Saved, tmp_path: Path) -> None:
    policy = load_image_policy(saved(tiny_sdxl))
    with torch.no_grad():
        for parameter in policy.denoiser.parameters():
            parameter *= 1.1
    save_image_policy(policy, tmp_path / "copy")
    sampler = DiffusionSampler(steps=2, guidance=0.0)
    ours = np.concatenate(list(draw_images(policy, TEXTS, SEEDS, sampler))).astype(int)
    assert np.abs(ours - pipeline_images(tmp_path / "copy", sampler)).max() <= 1
    assert np.abs(ours - pipeline_images(tmp_path / "checkpoint", sampler)).max() > 1
    save_image_policy(policy, tmp_path / "half", dtype=torch.bfloat16)
    size = {n: sum(p.stat().st_size for p in (tmp_path / n).rglob("*.safetensors")) for n in ("copy", "half")}
    assert size["half"] < 0.6 * size["copy"]


def test_a_download_of_half_precision_files_alone_loads(saved: Saved) -> None:
    directory = saved(tiny_sdxl)
    for file in directory.rglob("*.safetensors"):
        file.rename(file.with_suffix(".fp16.safetensors"))
    assert len(load_image_policy(directory).frozen) == 3


def test_few_step_models_are_trained_where_they_are_drawn(saved: Saved) -> None:
    assert trained_steps(1000, noise_levels=4) == [249, 499, 749, 999]
    assert trained_steps(1000, 0.7, 4) == [749, 999]
    assert trained_steps(1000, 0.998) == [998, 999]
    policy = load_image_policy(saved(tiny_sdxl))
    policy.scheduler.set_timesteps(4)
    assert sorted(policy.scheduler.timesteps.tolist()) == trained_steps(1000, noise_levels=4)
    with pytest.raises(UserError, match="noiseLevels is 2000"):
        trained_steps(1000, noise_levels=2000)


@pytest.mark.parametrize("kind", ["FluxPipeline", "WanPipeline", "StableDiffusionPipeline"])
def test_other_pipelines_are_one_clear_error(saved: Saved, kind: str) -> None:
    directory = saved(tiny_sdxl)
    index = json.loads((directory / "model_index.json").read_text())
    (directory / "model_index.json").write_text(json.dumps(index | {"_class_name": kind}))
    with pytest.raises(UserError, match=rf"_class_name is {kind}: .*Use a checkpoint of StableDiffusionXLPipeline"):
        load_image_policy(directory)


def edit(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_a_checkpoint_that_cannot_be_driven_says_why(saved: Saved) -> None:
    directory = saved(tiny_sdxl)
    edit(directory / "unet/config.json", time_cond_proj_dim=8)
    with pytest.raises(UserError, match=r"time_cond_proj_dim is 8|does not load"):
        load_image_policy(directory)
    edit(directory / "unet/config.json", time_cond_proj_dim=None)
    edit(
        directory / "scheduler/scheduler_config.json", timestep_type="continuous", _class_name="EulerDiscreteScheduler"
    )
    edit(directory / "model_index.json", scheduler=["diffusers", "EulerDiscreteScheduler"])
    with pytest.raises(UserError, match=r"scheduler\.timestep_type is continuous"):
        load_image_policy(directory)
    edit(directory / "model_index.json", scheduler=["diffusers", "PNDMScheduler"])
    with pytest.raises(UserError, match=r"model\.scheduler is PNDMScheduler: .*EulerAncestralDiscreteScheduler"):
        load_image_policy(directory)


def test_images_of_another_size_are_refused(saved: Saved) -> None:
    policy = load_image_policy(saved(tiny_sdxl))
    small = np.zeros((16, 16, 3), np.uint8)
    objective = DiffusionDpo(policy, [ImagePair("a", "w", "l")], lambda _: small, beta=1.0)
    with pytest.raises(UserError, match="image w is 16 x 16 x 3: the policy draws 32 x 32 pixels"):
        objective.batch([0], seed=0)
