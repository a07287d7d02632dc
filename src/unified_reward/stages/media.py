"""Digest -> pixels for the stages: read from the store once, decoded once, kept while there is room.

Media are sampled and scaled as the import of their data set says; large ones are kept decoded on this machine's disk too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unified_reward.data.decoded import DecodedCache
from unified_reward.data.media import MediaError, MediaLimits, Pixels
from unified_reward.errors import UserError
from unified_reward.store import Dataset


def decoded_cache(work_dir: Path, limits: MediaLimits) -> DecodedCache:
    """The decoded media of this machine, shared by its stages."""
    return DecodedCache(limits, work_dir / "decoded")


def limits_of(dataset: Dataset[Any]) -> MediaLimits:
    """How the data set's import says that its media are sampled and scaled."""
    noted = dataset.meta.get("media") or {}
    return MediaLimits(**noted)


class MediaReader:
    """uint8 [H, W, 3] or [T, H, W, 3] by digest. Calling it twice for one digest gives the same array: do not write to it.

    work_dir: where decoded media are kept on disk; None = in memory only.
    """

    def __init__(self, dataset: Dataset[Any], limits: MediaLimits | None = None, work_dir: Path | None = None) -> None:
        self.dataset = dataset
        self.limits = limits or limits_of(dataset)
        self._cache = decoded_cache(work_dir, self.limits) if work_dir else DecodedCache(self.limits)

    def __call__(self, digest: str) -> Pixels:
        try:
            return self._cache.get(digest, lambda: self.dataset.media(digest))
        except MediaError as error:
            raise UserError(
                field=f"media {digest[:12]}",
                value=digest,
                why=str(error),
                fix="Import the data again without this file.",
            ) from error
