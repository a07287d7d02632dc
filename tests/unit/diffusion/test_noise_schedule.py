"""The mixing of data and noise against closed forms and against diffusers' own schedulers."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler

from unified_reward.errors import UserError
from unified_reward.models.noise_schedule import NoiseSchedule, Prediction


def pair(batch: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    clean = torch.randn(batch, 3, 4, 4, generator=generator)
    noise = torch.randn(batch, 3, 4, 4, generator=generator)
    return clean, noise, torch.tensor([0, 17, 500, 998, 999])


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_mixing_and_target_are_those_of_diffusers(prediction: str) -> None:
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type=prediction)
    schedule = NoiseSchedule.of(scheduler)
    clean, noise, steps = pair()
    torch.testing.assert_close(schedule.mix(clean, noise, steps), scheduler.add_noise(clean, noise, steps))
    expected = {"epsilon": noise, "sample": clean, "v_prediction": scheduler.get_velocity(clean, noise, steps)}
    torch.testing.assert_close(schedule.target(clean, noise, steps), expected[prediction])


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_a_sampler_given_the_target_finds_the_clean_image(prediction: str) -> None:
    scheduler = DDIMScheduler(prediction_type=prediction, clip_sample=False)
    scheduler.set_timesteps(1000)
    schedule = NoiseSchedule.of(scheduler)
    clean, noise, _ = pair()
    steps = torch.full((len(clean),), 400)
    noisy, target = schedule.mix(clean, noise, steps), schedule.target(clean, noise, steps)
    found = scheduler.step(target, 400, noisy).pred_original_sample
    torch.testing.assert_close(found, clean, atol=1e-4, rtol=1e-4)


def test_flow_matching_is_a_straight_path_whatever_was_drawn_before() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    before = NoiseSchedule.of(scheduler)
    scheduler.set_timesteps(4)
    schedule = NoiseSchedule.of(scheduler)
    assert len(schedule) == 1000
    assert bool((schedule.sigma.diff() > 0).all())  # as in the others, later steps are noisier
    torch.testing.assert_close(schedule.sigma, before.sigma)
    clean, noise, steps = pair()
    sigma = schedule.sigma.numpy()[steps.numpy()].reshape(-1, 1, 1, 1)
    np.testing.assert_allclose(
        schedule.mix(clean, noise, steps), (1 - sigma) * clean.numpy() + sigma * noise.numpy(), rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(schedule.target(clean, noise, steps), noise - clean)
    assert schedule.prediction is Prediction.FLOW
    torch.testing.assert_close(schedule.times, schedule.sigma * 1000)


def test_an_unknown_scheduler_or_target_is_refused() -> None:
    with pytest.raises(UserError, match=r"model\.scheduler is object"):
        NoiseSchedule.of(object())
    scheduler = DDPMScheduler()
    scheduler.register_to_config(prediction_type="rgb")
    with pytest.raises(UserError, match="prediction_type is rgb"):
        NoiseSchedule.of(scheduler)
