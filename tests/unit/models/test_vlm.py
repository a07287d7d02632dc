"""Batches against transformers' own positions, and generation against transformers' own `generate`."""

import numpy as np
import pytest
import torch

from unified_reward.errors import UserError
from unified_reward.models.batching import Segment, chat, collate, encode
from unified_reward.models.tiny_vlm import tiny_tokenizer, tiny_vlm
from unified_reward.models.vlm import generate_text, load_vlm, model_inputs, save_vlm

TEXTS = [" red", " red blue yes", " no yes red red red blue"]


@pytest.fixture(scope="module")
def vlm():
    vlm = tiny_vlm(tiny_tokenizer([" red blue yes no user assistant"], ["red", "blue", "yes", "no"]), seed=0)
    vlm.model.eval()
    return vlm


def pixels(*shape):
    return np.random.default_rng(len(shape)).integers(0, 256, (*shape, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def prompts(vlm):
    """Text alone, a picture, two pictures of different size, a clip, a clip and a picture."""
    media = [
        [], [Segment(image=pixels(32, 32))], [Segment(image=pixels(32, 16)), Segment(" yes"), Segment(image=pixels(24, 32))],
        [Segment(video=pixels(4, 32, 32))], [Segment(video=pixels(3, 16, 32)), Segment(image=pixels(32, 32))],
    ]  # fmt: skip
    return [encode(vlm.processor, chat(vlm.processor, [*m, Segment(TEXTS[i % 3])])) for i, m in enumerate(media)]


@pytest.mark.parametrize("side", ["left", "right"])
def test_positions_equal_transformers(vlm, prompts, side):
    batch = collate(prompts, vlm.processor.pad_id, side)
    expected, _ = vlm.model.model.get_rope_index(
        batch["input_ids"], batch["mm_token_type_ids"], image_grid_thw=batch["image_grid_thw"],
        video_grid_thw=batch["video_grid_thw"], second_per_grid_ts=torch.ones(2), attention_mask=batch["attention_mask"],
    )  # fmt: skip
    assert torch.equal(batch["position_ids"], expected)


def test_padding_changes_no_logits(vlm, prompts):
    batch = collate(prompts, vlm.processor.pad_id, "left")
    together = vlm.model(**model_inputs(batch)).logits
    for row, prompt in enumerate(prompts):
        alone = vlm.model(**model_inputs(collate([prompt], vlm.processor.pad_id))).logits[0]
        torch.testing.assert_close(together[row, -len(prompt) :], alone, atol=1e-4, rtol=1e-4)


def test_greedy_text_equals_transformers_generate(vlm, prompts):
    ours = generate_text(vlm, prompts, max_new_tokens=12)
    for prompt, text in zip(prompts, ours, strict=True):
        inputs = collate([prompt], vlm.processor.pad_id)
        taken = {k: v for k, v in inputs.items() if k not in ("labels", "weights", "position_ids")}
        with torch.no_grad():
            ids = vlm.model.generate(**taken, max_new_tokens=12, do_sample=False, eos_token_id=vlm.processor.eos_id,
                                     pad_token_id=vlm.processor.pad_id)  # fmt: skip
        assert text == vlm.processor.decode(ids[0, len(prompt) :].tolist())


def test_a_sample_depends_on_its_seed_alone(vlm, prompts):
    drawn = {"max_new_tokens": 8, "temperature": 1.0}
    repeated = [prompts[1]] * 4 + [prompts[3]]
    texts = generate_text(vlm, repeated, seeds=[1, 2, 3, 1, 1], **drawn)
    assert texts[0] == texts[3]
    assert len(set(texts[:3])) > 1
    assert generate_text(vlm, [prompts[3], prompts[1]], seeds=[1, 2], batch=1, **drawn) == [texts[4], texts[1]]


def test_sampling_follows_the_model(vlm, prompts):
    """4,000 first tokens against the model's own probabilities."""
    probabilities = torch.softmax(vlm.model(**model_inputs(collate([prompts[0]], 0))).logits[0, -1] / 2, -1).detach()
    texts = generate_text(vlm, [prompts[0]] * 4000, max_new_tokens=1, temperature=2.0, seeds=range(4000), batch=4000)
    likeliest = probabilities.argsort(descending=True)
    likeliest = [int(t) for t in likeliest if t != vlm.processor.eos_id and vlm.processor.decode([int(t)])][:4]
    for token in likeliest:
        p = float(probabilities[token])
        share = np.mean([t == vlm.processor.decode([token]) for t in texts])
        assert abs(share - p) < 4 * (p * (1 - p) / 4000) ** 0.5


def test_stop_ends_a_text(vlm, prompts):
    whole = generate_text(vlm, prompts, max_new_tokens=12)
    text = next(t for t in whole if len(t) > 3)
    row, stop = whole.index(text), text[1:3]
    assert generate_text(vlm, prompts, max_new_tokens=12, stop=(stop,))[row] == text[: text.index(stop) + 2]


def test_sampling_without_seeds_is_refused(vlm, prompts):
    with pytest.raises(ValueError, match="one seed for each prompt"):
        generate_text(vlm, prompts, max_new_tokens=2, temperature=1.0, seeds=[1])


def test_targets_are_weighted_and_the_turn_is_closed(vlm):
    answer = [Segment("yes", weight=0.5), Segment(" red", weight=1.0)]
    encoded = encode(vlm.processor, chat(vlm.processor, [Segment("is it red?")], answer))
    ids = vlm.processor.text_ids
    assert encoded.input_ids[-3:] == [*ids(" yes"), *ids(" red"), vlm.processor.eos_id]
    assert encoded.weights[-3:] == [0.5, 1.0, 1.0]
    assert not any(encoded.weights[:-3])
    labels = collate([encoded], 0)["labels"][0]
    assert (labels >= 0).sum() == 3


@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=["float32", "bfloat16"])
def test_saved_weights_load(vlm, prompts, tmp_path, dtype):
    save_vlm(vlm, tmp_path, dtype)
    again = load_vlm(tmp_path)
    assert again.model.dtype == torch.float32
    for name, value in vlm.model.state_dict().items():
        expected = value if dtype is None else value.to(dtype).float()
        assert torch.equal(again.model.state_dict()[name], expected), name
    if dtype is None:
        assert generate_text(again, prompts, max_new_tokens=6) == generate_text(vlm, prompts, max_new_tokens=6)


def test_a_directory_that_is_no_checkpoint_is_named(tmp_path):
    with pytest.raises(UserError, match=r"model is .*: it has no config.json"):
        load_vlm(tmp_path)
