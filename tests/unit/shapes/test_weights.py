"""The weights that ship: they load, here and in plain transformers, and know what is said of them."""

from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from unified_reward.models.vlm import load_vlm
from unified_reward.shapes import exercises, pretrain

WEIGHTS = Path(str(resources.files("unified_reward.shapes"))) / "weights"
MAX_BYTES = 12 * 2**20


@pytest.fixture(scope="module")
def base():
    return load_vlm(WEIGHTS / "vlm")


def test_all_weights_stay_small():
    assert sum(f.stat().st_size for f in WEIGHTS.rglob("*.safetensors")) <= MAX_BYTES


@pytest.mark.parametrize("name", ["vlm", "vlm_policy"])
def test_plain_transformers_reads_them(name):
    model, loading = Qwen2_5_VLForConditionalGeneration.from_pretrained(WEIGHTS / name, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS / name)
    assert model.config.image_token_id == tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert len(tokenizer) == model.config.text_config.vocab_size


def test_the_base_answers_questions_about_scenes_it_never_saw(base):
    """README: at least 0.97 on pictures and on clips; here on 40 of each with 9 facts, one standard error is 0.01."""
    accuracy = pretrain.question_accuracy(base, "test", 40, seed=5)
    for kind in ("image", "video"):
        values = [v for key, v in accuracy.items() if key.startswith(kind)]
        assert np.mean(values) >= 0.97, accuracy
        assert min(values) >= 0.85, accuracy


def test_the_policy_is_imperfect_but_no_ruin():
    accuracy = pretrain.question_accuracy(load_vlm(WEIGHTS / "vlm_policy"), "test", 40, seed=5)
    assert 0.4 <= np.mean([v for key, v in accuracy.items() if key.startswith("image")]) <= 0.85


def test_the_tokenizer_is_what_the_command_makes(base):
    fresh = pretrain.tiny_tokenizer(exercises.corpus(), exercises.words_of_the_world())
    assert fresh.get_vocab() == base.processor.tokenizer.get_vocab()


def test_the_curriculum_teaches():
    """The whole command on a thousandth of its steps, all kinds of exercise in each: the loss falls."""
    stage = pretrain.Stage(4, dict.fromkeys(pretrain.EXERCISES, 1.0))
    taught = pretrain.build_base(0, [stage])
    fresh = pretrain.tiny_vlm(taught.processor.tokenizer, 0)
    batch = pretrain.collate(next(pretrain.base_batches(taught.processor, [stage], 1)), taught.processor.pad_id)
    with torch.no_grad():
        before, after = (float(pretrain.weighted_loss(vlm.model, batch)) for vlm in (fresh, taught))
    assert after < before - 0.1
