"""The image policy in the package: it loads, draws clear pictures, and is as often wrong as its maker says."""

from importlib import resources

import numpy as np
import pytest

from unified_reward.models.diffusion import ImagePolicy, load_image_policy
from unified_reward.models.diffusion_sampler import DiffusionSampler
from unified_reward.shapes.dataset import image_prompts
from unified_reward.shapes.image_policy import Drawn, draw_and_grade
from unified_reward.shapes.truth import NOTHING, read_image


@pytest.fixture(scope="module")
def policy() -> ImagePolicy:
    return load_image_policy(str(resources.files("unified_reward") / "shapes" / "weights" / "image"))


@pytest.fixture(scope="module")
def drawn(policy: ImagePolicy) -> Drawn:
    return draw_and_grade(policy, image_prompts("test"), 20, DiffusionSampler(), seed=1)


@pytest.mark.integration
def test_it_is_imperfect_to_the_stated_degree(drawn: Drawn) -> None:
    """240 images: a share of .5 has a standard error of .03."""
    assert 0.35 <= drawn.all_right <= 0.65


@pytest.mark.integration
def test_its_pictures_can_be_read(drawn: Drawn) -> None:
    read = [read_image(image) for image in drawn.images]
    assert np.mean([NOTHING not in facts.values() for facts in read]) >= 0.97
