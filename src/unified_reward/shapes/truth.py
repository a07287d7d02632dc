"""The known truth: how many facts an answer or a picture gets wrong.

Answers are read by their words. Pictures are read by a pixel matcher that knows how the world is drawn and nothing of any
model: it finds background and ink by color, and shape, size and place by correlation with drawn templates.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from unified_reward.records import Prompt
from unified_reward.shapes.render import OFFSET, RADIUS, RGB, SIDE, Pixels, coverage
from unified_reward.shapes.scenes import BACKGROUNDS, COLORS, POSITIONS, SHAPES, SIZES, VALUES

MIN_CORRELATION = 0.5  # below, the ink has no shape of this world
MAX_COLOR_DISTANCE = 90.0  # RGB units; farther from every known color is no color of this world
NOTHING = "none"


def answer_facts(truth: Mapping[str, str], text: str) -> dict[str, bool]:
    """Fact -> whether `text` states exactly the true value; one left out is wrong. A single asked fact must be the whole answer."""
    stated = stated_facts(text, list(truth))
    if len(truth) == 1:
        ((fact, value),) = truth.items()
        return {fact: text.strip().rstrip(".") == value}
    return {fact: stated.get(fact) == value for fact, value in truth.items()}


def stated_facts(text: str, facts: Sequence[str]) -> dict[str, str]:
    """The value of each of `facts` that `text` states; facts stated not at all or in two ways are left out."""
    found = {fact: stated_values(text, fact) for fact in facts}
    return {fact: values[0] for fact, values in found.items() if len(set(values)) == 1}


def stated_values(text: str, fact: str) -> list[str]:
    """Every word of `text` that is a value of `fact`, in order."""
    return [w for w in re.findall(r"[a-z]+", text.lower()) if w in VALUES[fact]]


def wrong_facts(truth: Mapping[str, str], claim: Mapping[str, str], asked: Sequence[str]) -> int:
    return sum(truth[fact] != claim.get(fact) for fact in asked)


def score_of(wrong: int, asked: int) -> float:
    """5 for all right, one less for each wrong fact, 1 when everything asked for is wrong."""
    return 1.0 if wrong >= asked else float(max(1, 5 - wrong))


def grade_image(prompt: Prompt, image: Pixels) -> dict[str, bool]:
    """Fact -> whether the picture shows the value in `prompt.truth`. image: uint8 [32, 32, 3]."""
    return {fact: value == prompt.truth[fact] for fact, value in read_image(image, list(prompt.truth)).items()}


def read_image(image: Pixels, facts: Sequence[str] = ("color", "shape", "background")) -> dict[str, str]:
    """What the picture shows: fact -> value, "none" where it shows nothing of this world.

    image: uint8 [32, 32, 3]. With "position" or "size" asked, the shape may be anywhere; else it is expected, large, near
    the center. Raises ValueError on another shape of array.
    """
    if image.shape != (SIDE, SIDE, 3):
        raise ValueError(f"image has shape {image.shape}, expected ({SIDE}, {SIDE}, 3)")
    pixels = image.astype(np.float64)
    border = np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]])
    paper = np.median(border, axis=0)
    away = np.linalg.norm(pixels - paper, axis=-1)
    ink = np.median(pixels[away >= 0.75 * np.quantile(away, 0.98)], axis=0)
    anywhere = "position" in facts or "size" in facts
    shape, size, position = _match(pixels, paper, ink, anywhere)
    read = {"background": _nearest(paper, BACKGROUNDS), "color": _nearest(ink, COLORS),
            "shape": shape, "size": size, "position": position}  # fmt: skip
    return {fact: read[fact] for fact in facts}


def _nearest(rgb: NDArray[np.float64], names: Sequence[str]) -> str:
    distances = [float(np.linalg.norm(rgb - np.asarray(RGB[n], dtype=np.float64))) for n in names]
    best = int(np.argmin(distances))
    return names[best] if distances[best] <= MAX_COLOR_DISTANCE else NOTHING


def _match(
    pixels: NDArray[np.float64], paper: NDArray[np.float64], ink: NDArray[np.float64], anywhere: bool
) -> tuple[str, str, str]:
    direction = ink - paper
    alpha = ((pixels - paper) @ direction / max(float(direction @ direction), 1.0)).clip(0.0, 1.0).ravel()
    alpha -= alpha.mean()
    norm = float(np.linalg.norm(alpha))
    if norm < 1e-6:
        return NOTHING, NOTHING, NOTHING
    templates, labels = _templates(anywhere)
    correlations = templates @ (alpha / norm)
    best = int(correlations.argmax())
    return labels[best] if correlations[best] >= MIN_CORRELATION else (NOTHING, NOTHING, NOTHING)


@cache
def _templates(anywhere: bool) -> tuple[NDArray[np.float64], list[tuple[str, str, str]]]:
    """Zero-mean, unit-norm masks [k, 32 * 32] and the (shape, size, position) of each."""
    places = [(size, position) for size in SIZES for position in POSITIONS] if anywhere else [("large", "center")]
    steps, scales = ((-1.0, 0.0, 1.0), (1.0,)) if anywhere else ((-2.0, -1.0, 0.0, 1.0, 2.0), (0.85, 1.0, 1.15))
    rows, labels = [], []
    for shape in SHAPES:
        for size, position in places:
            for dx in steps:
                for dy in steps:
                    for scale in scales:
                        x, y = OFFSET[position]
                        mask = coverage(shape, x + dx, y + dy, RADIUS[size] * scale).ravel()
                        mask -= mask.mean()
                        rows.append(mask / np.linalg.norm(mask))
                        labels.append((shape, size, position))
    return np.stack(rows), labels
