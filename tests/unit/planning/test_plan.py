"""Plans from configs alone: counts of released models, what memory is made of, and refusals with the number that would do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from unified_reward.cli.planning import plan
from unified_reward.config import TrainLoopConfig
from unified_reward.errors import UserError
from unified_reward.planning.estimate import Cluster, Sample, estimate, way_out
from unified_reward.planning.shape import Shape, config_of, shape_of

EXAMPLE = Path(__file__).parents[3] / "jobs" / "examples" / "qwen25vl-judge.yaml"
SAMPLE = Sample(tokens=1500, media=900, targets=200)


def settings(**fields: Any) -> TrainLoopConfig:
    judge = {"processes": 8, "global_batch": 128, "micro_batch": 2, "optimizer": "adamw", "precision": "bfloat16",
             "activation_checkpointing": True, "shard_units": "blocks"}  # fmt: skip
    return TrainLoopConfig(**{**judge, **fields})


@pytest.fixture(scope="module")
def qwen() -> Shape:
    return shape_of(config_of("Qwen2.5-VL-7B", None), settings())


@pytest.mark.parametrize(
    ("name", "billions"),
    # "Model size" that huggingface.co shows for each checkpoint, from the tensors in its files.
    [
        ("Qwen/Qwen2.5-VL-3B-Instruct", 3.75),
        ("Qwen2.5-VL-7B-Instruct", 8.29),
        ("Qwen2.5-VL-32B-Instruct", 33.45),
        ("Qwen2.5-VL-72B-Instruct", 73.41),
        ("Qwen3-VL-2B-Instruct", 2.13),
        ("Qwen3-VL-4B-Instruct", 4.44),
        ("Qwen3-VL-8B-Instruct", 8.77),
        ("Qwen3-VL-32B-Instruct", 33.36),
        ("llava-hf/llava-onevision-qwen2-0.5b-ov-hf", 0.89),
        ("llava-hf/llava-onevision-qwen2-7b-ov-hf", 8.03),
    ],
)
def test_released_models_have_their_published_size(name: str, billions: float) -> None:
    assert shape_of(config_of(name, None), settings()).parameters / 1e9 == pytest.approx(billions, abs=0.006)


def test_a_head_that_is_the_embedding_table_is_counted_once_and_multiplies() -> None:
    tied = shape_of(config_of("Qwen3-VL-2B", None), settings())
    sample = Sample(tokens=100, media=0, targets=10)
    found = estimate(tied, settings(activation_checkpointing=False), Cluster(8, 1, 1e15), sample)
    attention = 6 * tied.layers * tied.hidden * 100**2
    assert tied.tied
    assert found.flops_per_step == pytest.approx(128 * (6 * (tied.parameters - tied.vision) * 100 + attention))


def test_memory_is_counted_as_it_is_sharded(qwen: Shape) -> None:
    memory = estimate(qwen, settings(), Cluster(8, 80 * 2**30, 1e15), SAMPLE).memory
    assert memory.weights == memory.gradients == -(-4 * qwen.parameters // 8)
    assert memory.optimizer == -(-8 * qwen.parameters // 8)
    alone = estimate(qwen, settings(shard_units="root"), Cluster(8, 80 * 2**30, 1e15), SAMPLE).memory
    assert alone.gathered == 4 * qwen.parameters  # bfloat16 weights and their gradients, all at once
    assert memory.gathered < alone.gathered / 3


def test_six_operations_a_parameter_and_token(qwen: Shape) -> None:
    sample = Sample(tokens=100, media=0, targets=10)
    plain = estimate(qwen, settings(activation_checkpointing=False), Cluster(8, 1, 1e15), sample)
    text = qwen.parameters - qwen.vision - qwen.vocabulary * qwen.hidden
    attention = 6 * qwen.layers * qwen.hidden * 100**2
    assert plain.flops_per_step == pytest.approx(128 * (6 * text * 100 + attention))
    again = estimate(qwen, settings(), Cluster(8, 1, 1e15), sample)
    assert again.flops_per_step == pytest.approx(plain.flops_per_step * 8 / 6)
    assert plain.hours == pytest.approx(200 * plain.flops_per_step / (8 * 1e15 * 0.35) / 3600)


def test_what_is_frozen_has_no_gradients() -> None:
    frozen = shape_of(config_of("Qwen2.5-VL-7B", None), settings(trains="language"))
    assert frozen.vision_trainable == 0
    assert frozen.trainable == frozen.parameters - frozen.vision
    low = shape_of(config_of("Qwen2.5-VL-7B", None), settings(trains="lora", lora_rank=8))
    # Seven projections of each of 28 layers: rank times (in + out).
    assert low.trainable == 28 * 8 * (2 * (3584 + 3584) + 2 * (3584 + 512) + 3 * (3584 + 18944))


@pytest.mark.parametrize(
    ("fields", "gpus", "way"),
    [
        ({"activation_checkpointing": False, "micro_batch": 16}, 8, "Use activationCheckpointing: true."),
        ({"shard_units": "root"}, 8, "Use shardUnits: blocks."),
        ({"micro_batch": 1}, 1, "Use 2 GPUs."),
    ],
    ids=["activations", "gathered", "states"],
)
def test_what_cannot_fit_names_what_would(qwen: Shape, fields: dict[str, Any], gpus: int, way: str) -> None:
    cluster = Cluster(gpus, (40 if "shard_units" in fields else 80) * 2**30, 1e15)
    config = settings(**fields)
    assert not estimate(qwen, config, cluster, SAMPLE).fits
    assert way_out(qwen, config, cluster, SAMPLE) == way


def test_a_base_in_the_store_goes_by_its_name_and_image_policies_are_named_as_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    document = EXAMPLE.with_name("sdxl-turbo.yaml")
    given: dict[str, Any] = {"gpu_memory": "80GiB", "gpu_tflops": 989.0, "mfu": 0.35, "sample": SAMPLE}
    assert plan(document, [], gpus=0, as_json=True, **given) == 0
    told = capsys.readouterr()
    assert [(s["stage"], s["base"]) for s in json.loads(told.out)["stages"]] == [
        ("reward-train", "store:models/qwen2.5-vl-7b")
    ]
    assert "dpo-train of turbo is not planned" in told.err


@pytest.mark.parametrize("name", ["qwen25vl-judge", "sdxl-turbo", "vlm-policy-kueue"])
def test_the_examples_of_real_sizes_fit_their_gpus(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    document = EXAMPLE.with_name(f"{name}.yaml")
    given: dict[str, Any] = {"gpu_memory": "80GiB", "gpu_tflops": 989.0, "mfu": 0.35, "sample": SAMPLE}
    assert plan(document, [], gpus=0, as_json=True, **given) == 0, capsys.readouterr().out


@pytest.mark.parametrize("base", ["Qwen3-VL-8B-Instruct", "llava-onevision-qwen2-7b-ov-hf"])
def test_the_judges_document_plans_the_other_families_by_its_base(
    base: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given: dict[str, Any] = {"gpu_memory": "80GiB", "gpu_tflops": 989.0, "mfu": 0.35, "sample": SAMPLE}
    assert plan(EXAMPLE, [f"spec.rewardTrain.base={base}"], gpus=0, as_json=True, **given) == 0
    (stage,) = json.loads(capsys.readouterr().out)["stages"]
    assert (stage["base"], stage["fits"]) == (base, True)


def test_the_command_refuses_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    given: dict[str, Any] = {"gpu_memory": "80GiB", "gpu_tflops": 989.0, "mfu": 0.35, "sample": SAMPLE}
    assert plan(EXAMPLE, [], gpus=8, as_json=True, **given) == 0
    stage = json.loads(capsys.readouterr().out)["stages"][0]
    assert stage["fits"]
    assert stage["steps"] == 5530
    assert stage["tokens_per_step"] == 128 * 1500
    assert plan(EXAMPLE, [], gpus=1, as_json=False, **given) == 2
    assert "does not fit: Use 2 GPUs with microBatch: 1." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "memory", "why"),
    [
        (
            ["spec.rewardTrain.base=no-such-model"], "80GiB",
            "reward-train's base is no-such-model: .* no released model of that name is known",
        ),
        ([], "80", "--gpu-memory is 80: it is no size"),
        ([], "0GiB", "--gpu-memory is 0GiB: it is no size"),
        ([], "1.2.3GiB", "--gpu-memory is 1.2.3GiB: it is no size"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_a_line(overrides: list[str], memory: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        plan(EXAMPLE, overrides, gpus=8, gpu_memory=memory, gpu_tflops=1.0, mfu=0.3, sample=SAMPLE, as_json=False)


@pytest.mark.parametrize(("text", "why"), [("{bad", "it cannot be read"), ("[1]", "it is no mapping")])
def test_a_config_that_is_none_is_told_in_a_line(text: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=rf"config\.json: {why}"):
        config_of(str(tmp_path), tmp_path)
