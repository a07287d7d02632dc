"""Media of a window of queries, each decoded, patched and seen by the vision tower once however often it is judged."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from unified_reward.judge.render import MediaSource
from unified_reward.models.processing import Grid, Patches, VlmProcessor

_Key = tuple[int, tuple[int, ...]]


class MediaShelf(VlmProcessor):
    """A processor that remembers, over a source of pixels that remembers.

    `pixels` are held while anything keyed by their address is, so an address never comes to mean other pixels.
    features: vision features by the identity of the patches they were made of.
    """

    def __init__(self, processor: VlmProcessor, source: MediaSource, max_bytes: int = 1 << 28) -> None:
        self.__dict__.update(processor.__dict__)
        self._source, self._max_bytes = source, max_bytes
        self.clear()

    def clear(self) -> None:
        self._pixels: dict[str, NDArray[np.uint8]] = {}
        self._patched: dict[_Key, tuple[Patches, Grid]] = {}
        self.features: dict[int, Tensor] = {}

    def trim(self) -> None:
        """Forget everything once it is more than `max_bytes`. Only between windows: what is in use must stay."""
        held = sum(pixels.nbytes for pixels in self._pixels.values())
        held += sum(patches.nbytes for patches, _ in self._patched.values())
        held += sum(feature.numel() * feature.element_size() for feature in self.features.values())
        if held > self._max_bytes:
            self.clear()

    def pixels(self, digest: str) -> NDArray[np.uint8]:
        if digest not in self._pixels:
            self._pixels[digest] = self._source(digest)
        return self._pixels[digest]

    def patchify_image(self, image: NDArray[np.uint8]) -> tuple[Patches, Grid]:
        key = _address(image)
        if key not in self._patched:
            self._patched[key] = super().patchify_image(image)
        return self._patched[key]

    def patchify_video(self, video: NDArray[np.uint8]) -> tuple[Patches, Grid]:
        key = _address(video)
        if key not in self._patched:
            self._patched[key] = super().patchify_video(video)
        return self._patched[key]


def _address(pixels: NDArray[np.uint8]) -> _Key:
    return int(pixels.__array_interface__["data"][0]), pixels.shape
