"""Intervals and correlations, on numpy alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Z_95 = 1.959963984540054
Array = NDArray[np.float64]


def wilson_interval(right: float, count: int) -> tuple[float, float]:
    """95 % interval of a share, `right` of `count`; unlike the normal one it holds near 0 and 1. (0, 1) without data."""
    if count == 0:
        return 0.0, 1.0
    share, z2 = right / count, Z_95**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z_95 / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    low = 0.0 if right == 0 else centre - half  # exactly, without rounding
    high = 1.0 if right == count else centre + half
    return low, high


def bootstrap_interval(
    columns: Sequence[ArrayLike], statistic: Callable[..., Array], *, resamples: int = 1000, seed: int = 0
) -> tuple[float, float] | None:
    """95 % percentile interval of a statistic of paired samples; None without two samples.

    columns: arrays of one length n, resampled together. statistic: given one [resamples, n] array per column, returns
    [resamples]. Resamples in which it is undefined (nan) are left out.
    """
    arrays = [np.asarray(column, dtype=np.float64) for column in columns]
    count = len(arrays[0])
    if count < 2:
        return None
    index = np.random.default_rng(seed).integers(0, count, (resamples, count))
    values = statistic(*(array[index] for array in arrays))
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def mean(values: Array) -> Array:
    """Along the last axis."""
    result: Array = values.mean(axis=-1)
    return result


def pearson(x: ArrayLike, y: ArrayLike) -> Array:
    """Correlation along the last axis; nan where one side does not vary."""
    a, b = (np.asarray(side, dtype=np.float64) for side in (x, y))
    a, b = a - a.mean(axis=-1, keepdims=True), b - b.mean(axis=-1, keepdims=True)
    scale = np.sqrt((a**2).sum(axis=-1) * (b**2).sum(axis=-1))
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Array = np.where(scale > 0, (a * b).sum(axis=-1) / scale, np.nan)
    return result


def ranks(values: ArrayLike) -> Array:
    """Ranks from 1 along the last axis; equal values share the mean of their ranks."""
    x = np.atleast_2d(np.asarray(values, dtype=np.float64))
    out = np.empty_like(x)
    for row, sample in enumerate(x):
        _, inverse, counts = np.unique(sample, return_inverse=True, return_counts=True)
        last = np.cumsum(counts)
        out[row] = ((last - counts + 1 + last) / 2)[inverse]
    return out.reshape(np.shape(values))


def spearman(x: ArrayLike, y: ArrayLike) -> Array:
    """Rank correlation along the last axis; nan where one side does not vary."""
    return pearson(ranks(x), ranks(y))


def number(value: float | np.floating | Array) -> float | None:
    """For JSON: nan, which JSON lacks, becomes null."""
    value = float(value)
    return None if math.isnan(value) else value
