"""config.json as checkpoints of several years have it says the same as the sizes that are kept here."""

from __future__ import annotations

from typing import Any

import pytest

from unified_reward.config import TrainLoopConfig
from unified_reward.planning.shape import published, shape_of

TRAINING = TrainLoopConfig(processes=1)


def flat(values: dict[str, Any]) -> dict[str, Any]:
    """As Qwen2.5-VL was released: the language model's fields beside `vision_config`, RoPE in two fields."""
    text = dict(values["text_config"])
    rope = text.pop("rope_parameters")
    scaling = {"type": "mrope", "mrope_section": rope["mrope_section"]}
    kept = {name: value for name, value in values.items() if name != "text_config"}
    return {**kept, **text, "rope_theta": rope["rope_theta"], "rope_scaling": scaling, "torch_dtype": "bfloat16"}


def older_rope(values: dict[str, Any]) -> dict[str, Any]:
    """As Qwen3-VL was released: RoPE in two fields of the language model."""
    text = dict(values["text_config"])
    rope = text.pop("rope_parameters")
    theta = rope["rope_theta"]
    scaling = {name: value for name, value in rope.items() if name != "rope_theta"}
    return {**values, "text_config": {**text, "rope_theta": theta, "rope_scaling": scaling}}


@pytest.mark.parametrize("name", ["Qwen2.5-VL-3B", "Qwen2.5-VL-7B"])
def test_flat_configs(name: str) -> None:
    values = published()[name]
    assert shape_of(flat(values), TRAINING) == shape_of(values, TRAINING)


@pytest.mark.parametrize("name", ["Qwen3-VL-2B", "Qwen3-VL-8B"])
def test_configs_with_rope_in_two_fields(name: str) -> None:
    values = published()[name]
    assert shape_of(older_rope(values), TRAINING) == shape_of(values, TRAINING)


def test_a_decoder_layer_has_the_size_that_torchinfo_prints() -> None:
    assert shape_of(published()["Qwen2.5-VL-3B"], TRAINING).largest_unit == 77_076_992


def test_a_tied_head_may_be_told_by_the_language_model_alone() -> None:
    values = published()["llava-onevision-qwen2-0.5b-ov"]
    assert shape_of({**values, "tie_word_embeddings": False}, TRAINING) == shape_of(values, TRAINING)
