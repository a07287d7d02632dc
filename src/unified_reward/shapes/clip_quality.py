"""A stand-in for VBench's measuring models in the shapes world: the scores of a clip policy, by pixels and known facts.

`write_results` writes the `*_eval_results.json` that VBench writes. A policy is a function of a caption's facts to a clip. Four
of the sixteen dimensions (multiple objects, spatial relationship, appearance style, temporal style) have no meaning here and
are left out, so that there is a quality score and no semantic one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unified_reward.shapes import truth
from unified_reward.shapes.render import CLIP_RADIUS, DIRECTION, SIDE, STRIDE, Pixels, any_look, coverage, render_clip
from unified_reward.shapes.scenes import SHAPES, Clip, changed, clips_of, pick

Policy = Callable[[Mapping[str, str], np.random.Generator], Pixels]
MOVED = 1.0  # pixels a frame from which on a clip is dynamic
SHIFTS = (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)
OVERALL_MAX = 0.364  # VBench's greatest overall consistency: all facts right


def faulty(share_wrong: float, share_rough: float, *, still: float = 0.0) -> Policy:
    """Gets one fact wrong in `share_wrong` of clips, draws `share_rough` roughly; `still`: share without motion."""

    def draw(facts: Mapping[str, str], rng: np.random.Generator) -> Pixels:
        wrong = [pick(list(facts), rng)] if rng.random() < share_wrong else []
        clip = render_clip(Clip(**changed(facts, wrong, rng)), any_look(rng, share_rough))
        return np.stack([clip[0]] * len(clip)) if rng.random() < still else clip

    return draw


def write_results(policy: Policy, folder: Path, count: int, seed: int = 0) -> Path:
    """Scores of `count` clips on test captions, one file a dimension. Returns the folder."""
    rng = np.random.default_rng([seed, 11])
    scores: dict[str, list[float]] = {}
    for _ in range(count):
        facts = pick(clips_of("test"), rng).facts()
        for name, value in measure(policy(facts, rng), facts).items():
            scores.setdefault(name, []).append(value)
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in scores.items():
        key = name.replace(" ", "_")
        videos = [{"video_path": f"{number}.png", "video_results": value} for number, value in enumerate(values)]
        text = json.dumps({key: [float(np.mean(values)), videos]})
        (folder / f"{key}_eval_results.json").write_text(text, encoding="utf-8")
    return folder


def measure(clip: Pixels, facts: Mapping[str, str]) -> dict[str, float]:
    """Dimension -> score in 0..1. clip: uint8 [T, 32, 32, 3]. facts: what was asked for."""
    frames = clip.astype(np.float64)
    drawn = [truth.read_image(frame, ("color", "background", "position")) for frame in clip]
    papers = np.stack([np.median(_border(frame), axis=0) for frame in frames])
    centers = np.stack([_center(frame, paper) for frame, paper in zip(frames, papers, strict=True)])
    steps = np.diff(centers, axis=0)
    shapes = [_shape(frame, paper, center) for frame, paper, center in zip(frames, papers, centers, strict=True)]
    seen = [one | {"shape": shape} for one, (shape, _) in zip(drawn, shapes, strict=True)]
    right = {fact: _share(seen, fact, facts[fact]) for fact in ("color", "shape", "background")}
    right["move"] = float(_moves(steps, facts["move"]))
    return {
        "subject consistency": _agreement([(one["color"], one["shape"]) for one in seen]),
        "background consistency": _agreement([one["background"] for one in seen]),
        "temporal flickering": 1 - float(np.abs(np.diff(papers, axis=0)).mean()) / 255,
        "motion smoothness": 0.9975 * max(0.0, 1 - float(np.linalg.norm(steps - steps.mean(axis=0), axis=1).mean()) / STRIDE),
        "dynamic degree": float(np.linalg.norm(steps, axis=1).mean() > MOVED),
        "aesthetic quality": max(0.0, float(np.mean([likeness for _, likeness in shapes]))),
        "imaging quality": max(0.0, 1 - float(np.mean([_border(frame).std(axis=0).mean() for frame in frames])) / 32),
        "object class": right["shape"], "human action": right["move"], "color": right["color"],
        "scene": 0.8222 * right["background"],
        "overall consistency": OVERALL_MAX * sum(right.values()) / len(right),
    }  # fmt: skip


def _border(frame: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([frame[0], frame[-1], frame[1:-1, 0], frame[1:-1, -1]])


def _center(frame: NDArray[np.float64], paper: NDArray[np.float64]) -> NDArray[np.float64]:
    """(x, y) of the ink's middle, in pixels."""
    away = np.linalg.norm(frame - paper, axis=-1)
    ink = np.where(away > 0.5 * away.max(), away, 0.0)
    grid = np.arange(SIDE, dtype=np.float64)
    total = max(float(ink.sum()), 1.0)
    return np.array([float((ink.sum(axis=0) * grid).sum()) / total, float((ink.sum(axis=1) * grid).sum()) / total])


def _shape(frame: NDArray[np.float64], paper: NDArray[np.float64], center: NDArray[np.float64]) -> tuple[str, float]:
    """The shape that the ink is most like, and its correlation with a clean one."""
    away = np.linalg.norm(frame - paper, axis=-1)
    away -= away.mean()
    x, y = (center - (SIDE - 1) / 2).round().astype(int).tolist()
    likeness = {shape: max(float((away * mask).sum()) for mask in _masks(shape, x, y)) for shape in SHAPES}
    best = max(likeness, key=lambda shape: likeness[shape])
    return best, likeness[best] / max(float(np.linalg.norm(away)), 1.0)


@cache
def _masks(shape: str, x: int, y: int) -> list[NDArray[np.float64]]:
    """Zero-mean, unit-norm masks of a clip's shape around a place, as the middle of a shape's ink is not its own."""
    masks = [coverage(shape, x + dx, y + dy, CLIP_RADIUS) for dx in SHIFTS for dy in SHIFTS]
    centered = [mask - mask.mean() for mask in masks]
    return [mask / np.linalg.norm(mask) for mask in centered]


def _share(seen: Sequence[Mapping[str, str]], fact: str, value: str) -> float:
    return sum(one[fact] == value for one in seen) / len(seen)


def _agreement(values: Sequence[object]) -> float:
    """Share of frames that show what the first does."""
    return sum(value == values[0] for value in values) / len(values)


def _moves(steps: NDArray[np.float64], move: str) -> bool:
    along = steps @ np.array(DIRECTION[move])
    return bool(along.mean() > MOVED)
