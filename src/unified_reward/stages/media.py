"""Digest -> pixels for the stages: read from the store once, decoded once, kept while there is room."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from unified_reward.data.media import MediaError, MediaLimits, Pixels, decode
from unified_reward.errors import UserError
from unified_reward.store import Dataset

CACHED_MEDIA = 20_000  # 32x32 pictures of the embedded world: 60 MB; bounded by count, so real data use a smaller one


class MediaReader:
    """uint8 [H, W, 3] or [T, H, W, 3] by digest. Calling it twice for one digest gives the same array: do not write to it."""

    def __init__(self, dataset: Dataset[Any], limits: MediaLimits | None = None, cached: int = CACHED_MEDIA) -> None:
        self.dataset = dataset
        self.limits = limits or MediaLimits()
        self._read = lru_cache(maxsize=cached)(self._decode)

    def __call__(self, digest: str) -> Pixels:
        return self._read(digest)

    def _decode(self, digest: str) -> Pixels:
        try:
            return decode(self.dataset.media(digest), self.limits)
        except MediaError as error:
            raise UserError(
                field=f"media {digest[:12]}",
                value=digest,
                why=str(error),
                fix="Import the data again without this file.",
            ) from error
