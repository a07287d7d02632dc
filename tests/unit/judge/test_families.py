"""Judges of families whose probabilities are not read yet: refused, while what they say is read."""

from __future__ import annotations

import numpy as np
import pytest

from unified_reward.errors import UserError
from unified_reward.judge.reader import Reader
from unified_reward.models.batching import Segment, encode
from unified_reward.models.tiny_families import tiny_family
from unified_reward.models.tiny_vlm import tiny_tokenizer


@pytest.mark.parametrize("family", ["qwen3_vl", "llava_onevision"])
def test_another_family_is_not_read_wrongly(family: str) -> None:
    vlm = tiny_family(family, tiny_tokenizer([" yes no user assistant"], ["yes", "no"]), seed=0)
    sample = encode(vlm.processor, [Segment(image=np.zeros((32, 32, 3), dtype=np.uint8)), Segment(" yes")])
    with pytest.raises(UserError, match=f"judge is {family}: only Qwen2.5-VL judges are read by their probabilities"):
        Reader(vlm).features([sample], {})
