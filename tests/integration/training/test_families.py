"""Every real architecture, sharded over two ranks from meta, against plain transformers on one process.

The reference knows nothing of packing, positions made by us, micro-batches or checkpointing: one example a forward, the
model's own positions, full logits, torch's AdamW.
"""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import AutoModelForImageTextToText

from unified_reward.config import TrainLoopConfig
from unified_reward.models.batching import Encoded, collate
from unified_reward.models.families import FAMILIES, family_of
from unified_reward.models.tiny_families import tiny_family
from unified_reward.models.tiny_vlm import tiny_tokenizer
from unified_reward.models.vlm import Vlm, generate_text, load_vlm, save_vlm
from unified_reward.planning.estimate import Sample, memory_per_gpu
from unified_reward.planning.shape import config_of, shape_of
from unified_reward.training.optim import BETAS
from unified_reward.training.packing import Tree
from unified_reward.training.sampler import ElasticSampler

pytestmark = pytest.mark.integration
HERE = Path(__file__).parent
RUN: Callable[..., str] = runpy.run_path(str(HERE / "ranks.py"))["run"]
WORKER = runpy.run_path(str(HERE / "family_worker.py"), run_name="worker")
STEPS, BATCH, RATE = 4, 4, 1e-3


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp(request.param)
    corpus = [" red blue green ring square cross yes no user assistant <0.2 seconds>"]
    save_vlm(tiny_family(request.param, tiny_tokenizer(corpus, WORKER["WORDS"]), seed=0), directory)
    return directory


def inputs(vlm: Vlm, sample: Encoded) -> dict[str, Any]:
    """What transformers' own processor would give the model: no positions."""
    batch = collate([sample], vlm.processor.pad_id)
    family, found = family_of(vlm.model), {"input_ids": batch["input_ids"]}
    if family.mrope:
        keys = ("mm_token_type_ids", "pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw")
        return found | {key: batch[key] for key in keys if key in batch}
    if "pixel_values" in batch:
        found |= {"pixel_values": batch["pixel_values"], "image_sizes": torch.tensor([[32, 32]] * 2)}
        found |= {"batch_num_images": torch.tensor([2])}
    if "pixel_values_videos" in batch:
        found |= {"pixel_values_videos": batch["pixel_values_videos"][None]}
    return found


def logprobs(vlm: Vlm, sample: Encoded) -> Tensor:
    """log p of every token but the first, [L - 1]."""
    logits = vlm.model(**inputs(vlm, sample)).logits[0, :-1]
    return logits.log_softmax(-1).gather(-1, torch.tensor(sample.input_ids)[1:, None])[:, 0]


def answered(tree: Tree, answer: tuple[int, ...]) -> Encoded:
    """The prompt with one answer, as a row of its own."""
    prompt = tree.prompt
    return Encoded(
        [*prompt.input_ids, *answer], [0.0] * len(prompt) + [1.0] * len(answer), [*prompt.mm_types, *([0] * len(answer))],
        np.zeros((3, len(prompt) + len(answer)), dtype=np.int64), prompt.image_patches, prompt.image_grids,
        prompt.video_patches, prompt.video_grids, prompt.seconds_per_grid,
    )  # fmt: skip


def score(vlm: Vlm, sample: Encoded) -> Tensor:
    return (torch.tensor(sample.weights)[1:] * logprobs(vlm, sample)).sum()


def sft_losses(vlm: Vlm) -> Callable[[list[int]], Tensor]:
    given = WORKER["examples"](vlm.processor)

    def loss(ids: list[int]) -> Tensor:
        weights = sum(sum(given[i].weights) for i in ids)
        return -torch.stack([score(vlm, given[i]) for i in ids]).sum() / weights

    return loss


def dpo_losses(vlm: Vlm) -> Callable[[list[int]], Tensor]:
    given = [[answered(tree, answer) for answer in tree.answers] for tree in WORKER["pairs"](vlm.processor)]
    with torch.no_grad():
        reference = [[score(vlm, one) for one in pair] for pair in given]

    def loss(ids: list[int]) -> Tensor:
        gaps = [[score(vlm, one) - known for one, known in zip(given[i], reference[i], strict=True)] for i in ids]
        return torch.stack([-logsigmoid(WORKER["BETA"] * (chosen - rejected)) for chosen, rejected in gaps]).mean()

    return loss


def plain(directory: Path, objective: str, trains: str) -> tuple[list[float], list[float], Vlm]:
    vlm = load_vlm(directory)
    if trains == "language":
        prefixes = family_of(vlm.model).vision_prefixes()
        for name, parameter in vlm.model.named_parameters():
            parameter.requires_grad_(not name.startswith(prefixes))
    learning = [p for p in vlm.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=RATE, betas=BETAS, weight_decay=0.0)
    loss_of = {"sft": sft_losses, "dpo": dpo_losses}[objective](vlm)
    order = ElasticSampler(WORKER["EXAMPLES"], BATCH, seed=WORKER["SEED"])
    losses, norms = [], []
    for _ in range(STEPS):
        loss = loss_of(order.next_batch().tolist())
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(learning, 1.0)))
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses, norms, vlm


@pytest.mark.parametrize(("objective", "trains"), [("sft", "all"), ("dpo", "language")])
def test_two_ranks_from_meta_train_as_plain_transformers(
    checkpoint: Path, tmp_path: Path, objective: str, trains: str
) -> None:
    case = {"out": str(tmp_path), "model": str(checkpoint), "objective": objective, "config": {"trains": trains}}
    RUN(2, case, HERE / "family_worker.py")
    found = json.loads((tmp_path / "result.json").read_text())
    losses, norms, vlm = plain(checkpoint, objective, trains)
    assert found["losses"] == pytest.approx(losses, abs=1e-4)
    assert found["norms"] == pytest.approx(norms, rel=1e-3)
    assert abs(losses[-1] - losses[0]) > 1e-3  # it moved, so that equal losses say something

    # What a plan says each rank holds, against what each held.
    config = TrainLoopConfig(
        processes=2, global_batch=BATCH, optimizer="adamw", shard_units="blocks", micro_batch=1, trains=trains
    )
    shape = shape_of(config_of("", checkpoint), config)
    planned = memory_per_gpu(shape, config, 2, Sample(tokens=100, media=10, targets=5))
    assert [shape.parameters, shape.trainable] == found["held"][0]["parameters"]
    for held in found["held"]:
        assert held["weights"] == pytest.approx(planned.weights, rel=0.02)
        assert held["optimizer"] == pytest.approx(planned.optimizer, rel=0.02)

    exported = AutoModelForImageTextToText.from_pretrained(tmp_path / "trained").eval()
    sample = WORKER["examples"](vlm.processor)[0]
    with torch.no_grad():
        expected = vlm.model(**inputs(vlm, sample)).logits
        torch.testing.assert_close(exported(**inputs(vlm, sample)).logits, expected, atol=1e-4, rtol=0)
    assert set(exported.state_dict()) == set(vlm.model.state_dict())


def test_low_rank_updates_are_folded_into_the_export(checkpoint: Path, tmp_path: Path) -> None:
    config = {"trains": "lora", "lora_rank": 4, "lora_alpha": 8.0, "learning_rate": 1e-2}
    for world in (1, 2):
        case = {"out": str(tmp_path / str(world)), "model": str(checkpoint), "objective": "sft", "config": config}
        RUN(world, case, HERE / "family_worker.py")
    one, two = (json.loads((tmp_path / str(world) / "result.json").read_text()) for world in (1, 2))
    assert two["losses"] == pytest.approx(one["losses"], abs=1e-4)
    before, after = load_vlm(checkpoint), load_vlm(tmp_path / "2" / "trained")
    losses = [sft_losses(vlm)(list(range(WORKER["EXAMPLES"]))) for vlm in (before, after)]
    assert losses[1] < losses[0] - 0.02
    changed = {
        name for name, tensor in after.model.state_dict().items()
        if not torch.equal(tensor, before.model.state_dict()[name])
    }  # fmt: skip
    assert changed
    assert all("language_model.layers" in name and name.endswith("_proj.weight") for name in changed)


def test_text_is_written_as_generate_writes_it(checkpoint: Path) -> None:
    vlm = load_vlm(checkpoint)
    for sample in WORKER["examples"](vlm.processor)[:3]:
        given = inputs(vlm, sample)
        written = vlm.model.generate(**given, max_new_tokens=6, do_sample=False)[0, len(sample) :]
        text = vlm.processor.decode([token for token in written.tolist() if token != vlm.processor.eos_id])
        assert generate_text(vlm, [sample], max_new_tokens=6) == [text]
