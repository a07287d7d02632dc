"""--device and --precision: what they stand for, and one line where they cannot be."""

from __future__ import annotations

import pytest
import torch

from unified_reward.errors import UserError
from unified_reward.models.place import inference_dtype, place


def test_numbers_suit_the_device_unless_they_are_named() -> None:
    assert place("cpu") == (torch.device("cpu"), torch.float32)
    assert place("cpu", "bfloat16") == (torch.device("cpu"), torch.bfloat16)
    assert inference_dtype("cuda:1") is torch.bfloat16


@pytest.mark.parametrize(
    ("device", "precision", "why"),
    [
        ("gpu", "", r"--device is gpu: torch cannot use it \("),
        ("cuda:99", "bfloat16", r"--device is cuda:99: torch cannot use it \("),
        ("cpu", "float16", r"--precision is float16: .* Use float32 or bfloat16\."),
    ],
)
def test_what_is_not_there_is_told_in_a_line(device: str, precision: str, why: str) -> None:
    with pytest.raises(UserError, match=why) as caught:
        place(device, precision)
    assert "\n" not in str(caught.value)
