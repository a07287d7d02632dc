"""Own processing against transformers' PIL image processor, and files that transformers itself can read."""

import json

import numpy as np
import pytest
from transformers import AutoTokenizer
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from unified_reward.errors import UserError
from unified_reward.models.batching import Segment, collate, encode
from unified_reward.models.families import FAMILIES, Medium
from unified_reward.models.processing import VlmProcessor, smart_resize
from unified_reward.models.tiny_families import tiny_family
from unified_reward.models.tiny_vlm import tiny_tokenizer

WORDS = ["red", "blue", "yes", "no"]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer([" red blue yes no user assistant"], WORDS)


@pytest.fixture
def qwen(tokenizer):
    """The settings of a released Qwen2.5-VL checkpoint."""
    return VlmProcessor(tokenizer, min_pixels=3136, max_pixels=12845056)


@pytest.mark.parametrize("size", [(32, 32), (37, 91), (300, 200), (13, 1300)], ids=str)
@pytest.mark.parametrize("geometry", [(14, 3136, 100_000), (4, 64, 1024)], ids=["qwen", "tiny"])
def test_patches_equal_transformers(tokenizer, size, geometry):
    patch, low, high = geometry
    ours = VlmProcessor(tokenizer, patch_size=patch, min_pixels=low, max_pixels=high)
    theirs = Qwen2VLImageProcessorPil(patch_size=patch, size={"shortest_edge": low, "longest_edge": high})
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = theirs.preprocess([image], return_tensors="np")
    patches, grid = ours.patchify_image(image)
    assert tuple(expected["image_grid_thw"][0]) == grid
    np.testing.assert_allclose(patches, expected["pixel_values"], atol=2e-6)


def test_video_patches_are_frames_side_by_side_in_time(qwen):
    """Each temporal patch holds, per channel, the pixels of its two frames; a missing last frame repeats the one before."""
    video = np.random.default_rng(0).integers(0, 256, (3, 56, 84, 3), dtype=np.uint8)
    patches, (t, h, w) = qwen.patchify_video(video)
    assert (t, h, w) == (2, 4, 6)
    cells = patches.reshape(t, h * w, 3, 2, 14, 14)
    for number, frame in enumerate(video):
        alone = qwen.patchify_image(frame)[0].reshape(h * w, 3, 2, 14, 14)
        np.testing.assert_array_equal(cells[number // 2, :, :, number % 2], alone[:, :, 0])
    np.testing.assert_array_equal(cells[1, :, :, 1], cells[1, :, :, 0])


def test_saved_processor_loads_as_itself_and_in_transformers(tokenizer, tmp_path):
    ours = VlmProcessor(
        tokenizer, patch_size=4, min_pixels=64, max_pixels=1024, image_mean=(0.5,) * 3, image_std=(0.25,) * 3
    )
    ours.save(tmp_path)
    again = VlmProcessor.load(tmp_path)
    theirs = Qwen2VLImageProcessorPil.from_pretrained(tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (32, 40, 3), dtype=np.uint8)
    np.testing.assert_array_equal(again.patchify_image(image)[0], ours.patchify_image(image)[0])
    np.testing.assert_allclose(theirs.preprocess([image], return_tensors="np")["pixel_values"],
                               ours.patchify_image(image)[0], atol=2e-6)  # fmt: skip
    assert AutoTokenizer.from_pretrained(tmp_path).encode(" red yes") == ours.text_ids(" red yes")
    assert again.chat_prefix == "<|im_start|>user "
    assert again.chat_suffix == "<|im_end|><|im_start|>assistant"


def test_released_configuration_files_are_understood(tokenizer, tmp_path):
    """Qwen2.5-VL's own files: min_pixels and max_pixels, or (transformers 5) a nested image_processor with a size."""
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"vision_config": {"tokens_per_second": 2}}))
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14})
    )
    old = VlmProcessor.load(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    nested = {"image_processor": {"size": {"shortest_edge": 3136, "longest_edge": 12845056}, "merge_size": 2}}
    (tmp_path / "processor_config.json").write_text(json.dumps(nested))
    new = VlmProcessor.load(tmp_path)
    for processor in (old, new):
        assert (processor.patch_size, processor.min_pixels, processor.max_pixels) == (14, 3136, 12845056)
        assert processor.tokens_per_second == 2


def test_a_directory_without_a_processor_is_named(tmp_path):
    with pytest.raises(UserError, match=r"model is .*: it has no preprocessor_config.json"):
        VlmProcessor.load(tmp_path)


def test_a_strip_is_refused():
    with pytest.raises(UserError, match="media is 3000x10"):
        smart_resize(10, 3000, 28, 3136, 100_000)


def test_words_are_single_tokens_and_text_survives(tokenizer):
    assert all(len(tokenizer.encode(f" {w}", add_special_tokens=False)) == 1 for w in WORDS)
    text = " red, Bücher? no\n"
    assert VlmProcessor(tokenizer).decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_a_word_outside_the_corpus_is_refused():
    with pytest.raises(ValueError, match="not single tokens: violet"):
        tiny_tokenizer([" red"], ["red", "violet"])


@pytest.mark.parametrize("size", [(32, 32), (37, 91), (300, 200)], ids=str)
def test_one_tile_equals_transformers_llava_onevision(tokenizer, size):
    tokenizer.add_special_tokens({"extra_special_tokens": ["<image>", "<video>"]}, replace_extra_special_tokens=False)
    ours = VlmProcessor(
        tokenizer, patch_size=14, image_mean=(0.5,) * 3, image_std=(0.5,) * 3, family=FAMILIES["llava_onevision"]
    )
    theirs = LlavaOnevisionImageProcessorPil(image_mean=[0.5] * 3, image_std=[0.5] * 3)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    pixels = theirs.preprocess([[image, image]], return_tensors="np")["pixel_values"]  # several: one tile each
    tile, grid = ours.patchify_image(image)
    assert grid == (1, 27, 27)
    np.testing.assert_allclose(tile[0], pixels[0, 0], atol=1e-5)
    assert len(FAMILIES["llava_onevision"].place(Medium(grid, video=False), 2, ours.text_ids).ids) == 27 * 27 + 1


def test_qwen3_says_the_time_before_each_pair_of_frames(tokenizer):
    """As transformers' processor writes it: the mean time of the two frames, with one digit; positions as the model's."""
    vlm = tiny_family("qwen3_vl", tokenizer, seed=0)
    video = np.zeros((4, 16, 16, 3), dtype=np.uint8)
    sample = encode(vlm.processor, [Segment("yes"), Segment(video=video, seconds_per_grid=1.0), Segment("no")])
    pad, start, end = "<|video_pad|>" * 4, "<|vision_start|>", "<|vision_end|>"
    assert vlm.processor.tokenizer.decode(sample.input_ids) == (
        f"yes<0.2 seconds>{start}{pad}{end}<1.2 seconds>{start}{pad}{end}no"
    )
    batch = collate([sample], 0)
    positions, _ = vlm.model.model.get_rope_index(
        batch["input_ids"], batch["mm_token_type_ids"], video_grid_thw=batch["video_grid_thw"]
    )
    np.testing.assert_array_equal(positions[:, 0], sample.positions)
