import pytest
import torch

from unified_reward.models.diffusion import ImagePolicy
from unified_reward.models.tiny_diffusion import tiny_image_policy

WORDS = ["a", "red", "blue", "ring", "square", "on", "white", "background"]


@pytest.fixture
def policy() -> ImagePolicy:
    """Random weights, 8 x 8 pixels: every part is there, nothing is slow."""
    torch.manual_seed(0)
    return tiny_image_policy(WORDS, side=8, patch=4, width=32, layers=2)
