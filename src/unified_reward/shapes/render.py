"""From facts to pixels: 32 x 32 RGB pictures and clips of 4 such frames, anti-aliased, with a random look.

A *clean* look jitters the place and adds faint noise. A *rough* look also blurs, tints, changes contrast and size: what a
small diffusion model's pictures look like, so that a judge trained on drawn pictures can judge those too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from unified_reward.shapes.scenes import Clip, Scene

SIDE = 32
FRAMES = 4
RGB = {
    "red": (220, 40, 40), "green": (40, 160, 60), "blue": (50, 80, 220),
    "yellow": (240, 210, 50), "purple": (150, 50, 180), "orange": (245, 140, 30),
    "white": (250, 250, 250), "black": (15, 15, 15), "gray": (128, 128, 128),
}  # fmt: skip
RADIUS = {"small": 4.6, "large": 8.4}
CLIP_RADIUS = 6.6
OFFSET = {"left": (-7.0, 0.0), "right": (7.0, 0.0), "top": (0.0, -7.0), "bottom": (0.0, 7.0), "center": (0.0, 0.0)}
DIRECTION = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}
STRIDE = 4.0  # pixels a clip's shape moves between frames

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Look:
    """How a scene appears. dx, dy: pixels; scale: factor of the radius; blur: sigma in pixels; noise: sigma in 0..255;
    contrast: factor around mid gray; tint, shape_tint: RGB added to everything / to the shape; seed: of the noise."""

    dx: float = 0.0
    dy: float = 0.0
    scale: float = 1.0
    blur: float = 0.0
    noise: float = 0.0
    contrast: float = 1.0
    tint: tuple[float, float, float] = (0.0, 0.0, 0.0)
    shape_tint: tuple[float, float, float] = (0.0, 0.0, 0.0)
    seed: int = 0


def clean_look(rng: np.random.Generator) -> Look:
    dx, dy = rng.uniform(-1, 1, 2)
    return Look(dx=dx, dy=dy, noise=float(rng.choice((0.0, 4.0, 8.0))), seed=int(rng.integers(2**31)))


def rough_look(rng: np.random.Generator) -> Look:
    dx, dy = rng.uniform(-1.5, 1.5, 2)
    tint = rng.uniform(-14, 14, 3)
    shape_tint = rng.uniform(-22, 22, 3)
    return Look(
        dx=dx, dy=dy, scale=rng.uniform(0.9, 1.1), blur=rng.uniform(0, 1.1), noise=rng.uniform(0, 18),
        contrast=rng.uniform(0.8, 1.1), tint=(tint[0], tint[1], tint[2]),
        shape_tint=(shape_tint[0], shape_tint[1], shape_tint[2]), seed=int(rng.integers(2**31)),
    )  # fmt: skip


def any_look(rng: np.random.Generator, rough_share: float = 0.5) -> Look:
    return rough_look(rng) if rng.random() < rough_share else clean_look(rng)


def render_scene(scene: Scene, look: Look | None = None) -> Pixels:
    """uint8 [32, 32, 3]."""
    look = look or Look()
    dx, dy = OFFSET[scene.position]
    radius = RADIUS[scene.size] * look.scale
    alpha = coverage(scene.shape, dx + look.dx, dy + look.dy, radius)
    picture: Pixels = _develop(alpha[None], scene.color, scene.background, look)[0]
    return picture


def render_clip(clip: Clip, look: Look | None = None) -> Pixels:
    """uint8 [4, 32, 32, 3]: the shape crosses the center at an even pace."""
    look = look or Look()
    ux, uy = DIRECTION[clip.move]
    steps = (np.arange(FRAMES) - (FRAMES - 1) / 2) * STRIDE
    radius = CLIP_RADIUS * look.scale
    alphas = np.stack([coverage(clip.shape, look.dx + ux * s, look.dy + uy * s, radius) for s in steps])
    return _develop(alphas, clip.color, clip.background, look)


def coverage(shape: str, dx: float, dy: float, radius: float) -> NDArray[np.float64]:
    """[32, 32] in 0..1: how much of each pixel the shape covers. dx, dy: its place from the middle, in pixels.

    Coverage is half minus the signed distance to the outline, clipped: exact for straight edges through pixel centers.
    """
    xs, ys = _pixel_centers()
    x, y = xs - dx, ys - dy
    return np.clip(0.5 - _distance(shape, x, y, radius), 0.0, 1.0)


def _distance(shape: str, x: NDArray[np.float64], y: NDArray[np.float64], r: float) -> NDArray[np.float64]:
    """Signed distance (pixels, negative inside) to the outline of a shape of "radius" r around the origin."""
    if shape == "ring":
        return np.abs(np.hypot(x, y) - 0.72 * r) - 0.28 * r
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.86 * r
    if shape == "cross":
        arm, width = r, 0.32 * r
        across = np.maximum(np.abs(x) - arm, np.abs(y) - width)
        along = np.maximum(np.abs(x) - width, np.abs(y) - arm)
        return np.minimum(across, along)
    slanted = 0.8944 * np.abs(x) - 0.4472 * (y + r)  # the two sides from the apex (0, -r), slope 2 : 1
    return np.maximum(slanted, y - 0.8 * r)


def _develop(alphas: NDArray[np.float64], color: str, background: str, look: Look) -> Pixels:
    ink = np.asarray(RGB[color], dtype=np.float64) + look.shape_tint
    paper = np.asarray(RGB[background], dtype=np.float64)
    if look.blur > 0.05:
        alphas = _blur(alphas, look.blur)
    pixels = paper + alphas[..., None] * (ink - paper)
    pixels = 127.5 + (pixels - 127.5) * look.contrast + look.tint
    if look.noise > 0:
        pixels = pixels + np.random.default_rng(look.seed).standard_normal(pixels.shape, dtype=np.float32) * look.noise
    developed: Pixels = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    return developed


def _blur(planes: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Gaussian blur of [n, 32, 32] planes as two matrix products; edges repeat."""
    kernel = _blur_matrix(round(sigma, 2))
    return kernel @ planes @ kernel.T


@cache
def _blur_matrix(sigma: float) -> NDArray[np.float64]:
    offsets = np.arange(SIDE)
    weights = np.exp(-((offsets[:, None] - offsets[None, :]) ** 2) / (2 * sigma**2))
    normed: NDArray[np.float64] = weights / weights.sum(1, keepdims=True)
    return normed


@cache
def _pixel_centers() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    centers = np.arange(SIDE, dtype=np.float64) - (SIDE - 1) / 2
    xs, ys = np.meshgrid(centers, centers)
    return xs, ys
