"""The Diffusion-DPO loss against numpy, its gradient's direction, and the objective's promises."""

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler

from unified_reward.models.diffusion import ImagePolicy
from unified_reward.training.diffusion_dpo import DiffusionDpo, ImagePair, PairErrors, diffusion_dpo_loss, squared_error


def errors(*rows: list[float]) -> PairErrors:
    return PairErrors(*(torch.tensor(row, requires_grad=True) for row in rows))


def test_loss_equals_the_published_formula() -> None:
    rng = np.random.default_rng(0)
    policy_w, policy_l, reference_w, reference_l = rng.uniform(0.0, 0.01, (4, 7))
    inside = -0.5 * 3000 * ((policy_w - policy_l) - (reference_w - reference_l))
    expected = np.log1p(np.exp(-inside))
    rows = [torch.tensor(row, dtype=torch.float64) for row in (policy_w, policy_l, reference_w, reference_l)]
    np.testing.assert_allclose(diffusion_dpo_loss(PairErrors(*rows), 3000.0), expected, rtol=1e-9)


def test_gradient_lowers_the_chosen_error_and_raises_the_rejected_one_alike() -> None:
    pairs = errors([0.2, 0.5], [0.3, 0.1], [0.25, 0.4], [0.3, 0.1])
    diffusion_dpo_loss(pairs, 10.0).sum().backward()
    chosen, rejected = pairs.policy_chosen.grad, pairs.policy_rejected.grad
    assert chosen is not None
    assert rejected is not None
    assert bool((chosen > 0).all())
    torch.testing.assert_close(chosen, -rejected)
    inside = -5.0 * np.array([-0.05, 0.1])  # d loss / d error = beta / 2 * sigmoid(-inside)
    np.testing.assert_allclose(chosen, 5.0 / (1 + np.exp(inside)), rtol=1e-5)


def test_error_is_the_mean_over_all_dims_of_images_and_videos() -> None:
    for shape in ((4, 3, 8, 8), (4, 2, 5, 8, 8)):
        a, b = torch.randn(shape), torch.randn(shape)
        expected = ((a - b).numpy().reshape(4, -1) ** 2).mean(1)
        np.testing.assert_allclose(squared_error(a, b), expected, rtol=1e-5)


IMAGES = np.random.default_rng(0).integers(0, 256, (6, 2, 8, 8, 3), dtype=np.uint8)
PROMPTS = ["a red ring on a white background", "a blue square on a white background"]


def image_pairs(count: int) -> list[ImagePair]:
    return [ImagePair(PROMPTS[i % 2], f"{i} 0", f"{i} 1") for i in range(count)]


def read(name: str) -> np.ndarray:
    pair, side = map(int, name.split())
    return IMAGES[pair, side]


def shaken(objective: DiffusionDpo) -> DiffusionDpo:
    """The policy moved away from its reference, as training does."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in objective.root.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    return objective


def test_an_untouched_policy_has_the_loss_of_a_coin(policy: ImagePolicy) -> None:
    objective = DiffusionDpo(policy, image_pairs(4), read, beta=2000.0)
    loss = objective.loss(objective.batch([0, 1, 2, 3], seed=5))
    assert loss.total.item() == pytest.approx(4 * np.log(2), rel=1e-5)
    assert float(loss.metrics["model_mse"][0]) == pytest.approx(float(loss.metrics["reference_mse"][0]))
    assert objective.normaliser(objective.batch([0, 1, 2], seed=5)) == 3.0


@pytest.mark.parametrize("scheduler", [
    DDPMScheduler(prediction_type="epsilon"), DDPMScheduler(prediction_type="sample"),
    DDPMScheduler(prediction_type="v_prediction"), FlowMatchEulerDiscreteScheduler(),
], ids=["epsilon", "sample", "velocity", "flow"])  # fmt: skip
def test_objective_equals_numpy_for_every_target(policy: ImagePolicy, scheduler: object) -> None:
    policy.scheduler = scheduler
    pairs = image_pairs(3)
    objective = shaken(DiffusionDpo(policy, pairs, read, beta=50.0))
    batch = objective.batch([0, 1, 2], seed=9)
    schedule = policy.schedule
    logits = []
    for i, pair in enumerate(pairs):
        signal, sigma = (float(table[batch["steps"][i]]) for table in (schedule.signal, schedule.sigma))
        noise = batch["noise"][i].numpy()
        found = []
        for model in (objective.root, objective.reference):
            for image in (pair.chosen, pair.rejected):
                clean = read(image).transpose(2, 0, 1).astype(np.float64) / 127.5 - 1
                noisy = torch.tensor(signal * clean + sigma * noise, dtype=torch.float32)[None]
                time = schedule.times[batch["steps"][i : i + 1]]
                with torch.no_grad():
                    told = policy.encode_prompt([pair.prompt])
                    output = model(noisy, told.hidden, told.pooled, time)[0][0].numpy()
                target = {"epsilon": noise, "sample": clean, "v_prediction": signal * noise - sigma * clean,
                          "flow": noise - clean}[schedule.prediction.value]  # fmt: skip
                found.append(((output - target) ** 2).mean())
        logits.append(-0.5 * 50.0 * ((found[0] - found[1]) - (found[2] - found[3])))
    expected = np.log1p(np.exp(-np.array(logits))).sum()
    loss = objective.loss(batch)
    assert abs(np.array(logits)).max() > 1e-3  # else the check is empty
    assert loss.total.item() == pytest.approx(expected, rel=1e-4)
    assert float(loss.metrics["implicit_accuracy"][0]) == sum(logit > 0 for logit in logits)
    assert float(loss.metrics["margin"][0]) == pytest.approx(sum(logits), rel=1e-3)


def test_both_images_of_a_pair_share_timestep_and_noise(policy: ImagePolicy) -> None:
    same = [ImagePair(pair.prompt, pair.chosen, pair.chosen) for pair in image_pairs(4)]
    objective = shaken(DiffusionDpo(policy, same, read, beta=2000.0))
    torch.testing.assert_close(
        objective.errors(objective.batch([0, 1, 2, 3], seed=1)).gap, torch.zeros(4), atol=1e-6, rtol=0
    )


def test_draws_depend_on_seed_and_pair_alone(policy: ImagePolicy) -> None:
    objective = DiffusionDpo(policy, image_pairs(6), read, beta=2000.0)
    together, alone = objective.batch([4, 1, 2], seed=7), objective.batch([1], seed=7)
    for name, value in alone.items():
        torch.testing.assert_close(value[0], together[name][1], rtol=0, atol=1e-6)
    other = objective.batch([1], seed=8)
    assert not torch.equal(other["noise"], alone["noise"])


def test_two_shares_add_up_to_the_gradient_of_the_whole(policy: ImagePolicy) -> None:
    objective = shaken(DiffusionDpo(policy, image_pairs(4), read, beta=200.0))

    def gradient(*shares: list[int]) -> torch.Tensor:
        objective.root.zero_grad()
        for share in shares:
            objective.loss(objective.batch(share, seed=2)).total.backward()
        return torch.cat([p.grad.flatten() for p in objective.root.parameters() if p.grad is not None])

    whole = gradient([0, 1, 2, 3])
    assert float(whole.norm()) > 0
    # prompts are encoded batch by batch, so that rounding differs
    torch.testing.assert_close(gradient([3, 0], [2, 1]), whole, rtol=1e-3, atol=1e-5)


def test_training_prefers_the_chosen_images_and_leaves_reference_and_text_encoder_alone(policy: ImagePolicy) -> None:
    objective = DiffusionDpo(policy, image_pairs(4), read, beta=100.0)
    frozen = [*objective.reference.parameters(), *policy.text_encoder.parameters()]
    before = [p.clone() for p in frozen]
    optimizer = torch.optim.AdamW(objective.root.parameters(), lr=1e-3)
    for step in range(25):
        optimizer.zero_grad()
        objective.loss(objective.batch([0, 1, 2, 3], seed=step)).total.backward()
        optimizer.step()
    loss = objective.loss(objective.batch([0, 1, 2, 3], seed=1000))
    assert float(loss.metrics["implicit_accuracy"][0]) == 4.0
    assert loss.total.item() < 4 * np.log(2)
    assert all(torch.equal(a, b) for a, b in zip(before, frozen, strict=True))
    assert all(p.grad is None for p in frozen)
