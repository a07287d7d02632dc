"""SFT and DPO against the formulas computed from full logits, and the cache of reference log-probs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from fsdp_utils.context import DistContext
from unified_reward.config import TrainLoopConfig
from unified_reward.errors import UserError
from unified_reward.models.batching import Segment, collate, encode
from unified_reward.models.vlm import Vlm, model_inputs
from unified_reward.training.dpo import DpoObjective
from unified_reward.training.logprobs import TokenScorer
from unified_reward.training.loop import train
from unified_reward.training.objective import Batch, Costed, LossSum
from unified_reward.training.optim import BETAS
from unified_reward.training.packing import Tree
from unified_reward.training.reference import reference_logprobs, tree_key
from unified_reward.training.sampler import ElasticSampler
from unified_reward.training.sft import SftObjective

Trees = Callable[[int, int], list[Tree]]


class Memory:
    """An object store in a dict, that counts what it is asked to keep."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.puts = 0

    def head(self, key: str, /) -> object | None:
        return len(self.blobs[key]) if key in self.blobs else None

    def get(self, key: str, /) -> bytes:
        return self.blobs[key]

    def put_if_absent(self, key: str, data: bytes, /) -> bool:
        self.puts += 1
        return self.blobs.setdefault(key, data) is data


def references(vlm: Vlm, sample: list[Tree], alone: DistContext, blobs: Memory, digest: str = "d"):  # type: ignore[no-untyped-def]
    return reference_logprobs(
        TokenScorer(vlm.model), sample, weights_digest=digest, pad_id=vlm.processor.pad_id, blobs=blobs, prefix="ref",
        dist=alone, batch=3,
    )  # fmt: skip


def full_logprobs(vlm: Vlm, tree: Tree, answer: tuple[int, ...]) -> torch.Tensor:
    """The answer after its prompt as one plain row, scored from all logits."""
    start = int(tree.prompt.positions.max()) + 1
    row = replace(
        tree.prompt,
        input_ids=[*tree.prompt.input_ids, *answer],
        weights=[0.0] * (len(tree.prompt) + len(answer)),
        mm_types=[*tree.prompt.mm_types, *[0] * len(answer)],
        positions=np.concatenate(
            [tree.prompt.positions, np.tile(np.arange(start, start + len(answer)), (3, 1))], axis=1
        ),
    )
    logprobs = vlm.model(**model_inputs(collate([row], vlm.processor.pad_id))).logits[0].log_softmax(-1)
    return logprobs[len(tree.prompt) - 1 : -1].gather(1, torch.tensor(answer)[:, None])[:, 0]


def test_dpo_is_its_formula(vlm: Vlm, trees: Trees, alone: DistContext) -> None:
    sample, beta = trees(5, 1), 0.7
    policy = copy.deepcopy(vlm)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    objective = DpoObjective(policy, sample, references(vlm, sample, alone, Memory()), alone, beta=beta)
    assert isinstance(objective, Costed)
    batch = objective.batch([4, 0, 2], seed=0)
    result = objective.loss(batch)

    gaps = []
    for tree in (sample[4], sample[0], sample[2]):
        ratios = [(full_logprobs(policy, tree, a).sum() - full_logprobs(vlm, tree, a).sum()) for a in tree.answers]
        gaps.append(ratios[0] - ratios[1])
    expected = -torch.nn.functional.logsigmoid(beta * torch.stack(gaps)).sum()
    torch.testing.assert_close(result.total, expected, atol=1e-4, rtol=1e-5)
    assert objective.normaliser(batch) == 3
    margin, count = result.metrics["rewards/margins"]
    assert float(margin) / float(count) == pytest.approx(beta * torch.stack(gaps).mean().item(), abs=1e-4)
    right, _ = result.metrics["rewards/accuracies"]
    assert float(right) == sum(gap.item() > 0 for gap in gaps)


def test_first_steps_equal_a_plain_trainer(vlm: Vlm, trees: Trees, alone: DistContext) -> None:
    """Against a DPO trainer as one writes it first: answers one by one, two models, full logits."""
    sample, beta, steps, batch, rate = trees(12, 6), 0.3, 3, 4, 1e-3
    plain, ours = copy.deepcopy(vlm), copy.deepcopy(vlm)
    order = ElasticSampler(len(sample), batch, seed=5)
    optimizer = torch.optim.AdamW(plain.model.parameters(), lr=rate, betas=BETAS, weight_decay=0.0)
    losses, norms = [], []
    for _ in range(steps):
        gaps = []
        for tree in (sample[i] for i in order.next_batch()):
            chosen, rejected = (full_logprobs(plain, tree, a).sum() for a in tree.answers)
            with torch.no_grad():
                known_chosen, known_rejected = (full_logprobs(vlm, tree, a).sum() for a in tree.answers)
            gaps.append((chosen - known_chosen) - (rejected - known_rejected))
        loss = -torch.nn.functional.logsigmoid(beta * torch.stack(gaps)).mean()
        optimizer.zero_grad()
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(plain.model.parameters(), 1.0).item())
        optimizer.step()
        losses.append(loss.item())

    objective = DpoObjective(ours, sample, references(vlm, sample, alone, Memory()), alone, beta=beta)
    found: list[float] = []
    step = objective.loss

    def recorded(packed: Batch) -> LossSum:
        result = step(packed)
        found.append(result.total.item() / batch)
        return result

    objective.loss = recorded  # type: ignore[method-assign]
    result = train(
        objective, dataset_size=len(sample), dist=alone, seed=5,
        config=TrainLoopConfig(
            processes=1, steps=steps, global_batch=batch, learning_rate=rate, optimizer="adamw", warmup_steps=0,
            decay_fraction=0.0,
        ),
    )  # fmt: skip
    assert found == pytest.approx(losses, abs=1e-5)
    assert losses[-1] < losses[0] - 0.01
    assert result.last["grad_norm"] == pytest.approx(np.mean(norms), rel=1e-4)


def test_dpo_starts_at_ln_2(vlm: Vlm, trees: Trees, alone: DistContext) -> None:
    sample = trees(4, 2)
    objective = DpoObjective(vlm, sample, references(vlm, sample, alone, Memory()), alone, beta=0.1)
    total = objective.loss(objective.batch([0, 1, 2, 3], seed=0)).total
    assert total.item() / 4 == pytest.approx(np.log(2), abs=1e-6)


def test_dpo_wants_references_of_just_its_answers(vlm: Vlm, trees: Trees, alone: DistContext) -> None:
    sample = trees(3, 3)
    known = references(vlm, sample, alone, Memory())
    with pytest.raises(ValueError, match="reference log-probs of just their tokens"):
        DpoObjective(vlm, sample, [known[1], known[0], known[2]], alone, beta=0.1)
    with pytest.raises(UserError, match="hinge has no smoothed form"):
        DpoObjective(vlm, sample, known, alone, beta=0.1, loss="hinge", label_smoothing=0.1)


def test_reference_values_are_kept_by_content(vlm: Vlm, trees: Trees, alone: DistContext) -> None:
    blobs, sample = Memory(), trees(8, 4)
    first = references(vlm, sample, alone, blobs)
    assert blobs.puts == 3
    again = references(vlm, sample, alone, blobs)
    assert blobs.puts == 3
    for tree, values, same in zip(sample, first, again, strict=True):
        for answer, logprobs, logprobs_again in zip(tree.answers, values, same, strict=True):
            np.testing.assert_array_equal(logprobs, logprobs_again)
            with torch.no_grad():
                np.testing.assert_allclose(logprobs, full_logprobs(vlm, tree, answer).numpy(), atol=1e-5)
    references(vlm, sample, alone, blobs, digest="other weights")
    assert blobs.puts == 6


def test_what_changes_a_key(trees: Trees) -> None:
    tree = trees(1, 5)[0]
    shorter = Tree(tree.prompt, (tree.answers[0], tree.answers[1][:1]))
    moved = Tree(tree.prompt, ((*tree.answers[0], tree.answers[1][0]), tree.answers[1][1:]))
    repainted = Tree(replace(tree.prompt, image_patches=[p + 0.01 for p in tree.prompt.image_patches]), tree.answers)
    keys = {tree_key(t, "d") for t in (tree, shorter, moved, repainted)} | {tree_key(tree, "e")}
    assert len(keys) == 5
    assert tree_key(trees(1, 5)[0], "d") in keys


def test_sft_is_weighted_cross_entropy_over_all_targets(vlm: Vlm, alone: DistContext) -> None:
    rng = np.random.default_rng(0)
    texts = [(" red ring", " yes"), (" blue cross", " no no yes"), (" green", " no")]
    examples = [
        encode(
            vlm.processor,
            [
                Segment(image=rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)),
                Segment(context, weight=0.1),
                Segment(answer, weight=1.0),
            ],
        )
        for context, answer in texts
    ]
    objective = SftObjective(vlm, examples.__getitem__, alone)
    batch = objective.batch([0, 1, 2], seed=0)
    result = objective.loss(batch)

    total = weight = right = verdicts = 0.0
    for example in examples:
        logprobs = vlm.model(**model_inputs(collate([example], vlm.processor.pad_id))).logits[0].log_softmax(-1)
        for place in range(1, len(example)):
            w, token = example.weights[place], example.input_ids[place]
            total -= w * logprobs[place - 1, token].item()
            weight += w
            right += (w >= 1) * (logprobs[place - 1].argmax().item() == token)
            verdicts += w >= 1
    assert result.total.item() == pytest.approx(total, abs=1e-4)
    assert objective.normaliser(batch) == pytest.approx(weight)
    assert [float(v) for v in result.metrics["verdict_accuracy"]] == [right, verdicts]
