"""Media of a request: a data URL, bare base64, or (where allowed) an address -> pixels and their digest."""

from __future__ import annotations

import base64
import binascii
import hashlib
import threading
import urllib.error
import urllib.request
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from unified_reward.data.media import MediaError, MediaLimits, Pixels, decode
from unified_reward.errors import UserError

TIMEOUT = 20.0


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect could lead out of the allowed addresses."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


@dataclass
class MediaGate:
    """limits: of one medium. fetch: beginnings of addresses that may be fetched; none by default, since who may name any
    address reads the cluster from inside. cache_bytes: decoded media that are kept, as the same ones come again and again.
    """

    limits: MediaLimits
    fetch: tuple[str, ...] = ()
    cache_bytes: int = 1 << 28
    _kept: OrderedDict[str, Pixels] = field(default_factory=OrderedDict, repr=False)
    _held: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def read(self, given: str, where: str, *, video: bool | None = None) -> tuple[str, Pixels]:
        """sha256 hex and pixels. where: the field's name in errors. video: what it must be; None = either."""
        data = self._bytes(given, where)
        digest = hashlib.sha256(data).hexdigest()
        pixels = self._known(digest)
        if pixels is None:
            try:
                pixels = decode(data, self.limits)
            except MediaError as error:
                raise UserError(
                    field=where, value=_brief(given), why=str(error), fix="Send a file that decodes."
                ) from error
            self._keep(digest, pixels)
        if video is not None and (pixels.ndim == 4) != video:
            kind, other = ("a single picture", "images") if video else ("a clip", "videos")
            raise UserError(field=where, value=_brief(given), why=f"it is {kind}", fix=f"Send it as one of {other}.")
        return digest, pixels

    def _bytes(self, given: str, where: str) -> bytes:
        if given.startswith(("http://", "https://")):
            return self._fetched(given, where)
        head, comma, body = given.partition(",")
        if given.startswith("data:"):
            if not comma or not head.endswith(";base64"):
                raise UserError(field=where, value=_brief(given), why="this data URL is not in base64",
                                fix="Send data:image/png;base64,...")  # fmt: skip
        else:
            body = given
        if len(body) * 3 // 4 > self.limits.max_bytes:
            raise UserError(field=where, value=f"{len(body) * 3 // 4} bytes", why=f"more than {self.limits.max_bytes}",
                            fix="Send a smaller file.")  # fmt: skip
        try:
            return base64.b64decode(body, validate=True)
        except (binascii.Error, ValueError) as error:
            raise UserError(field=where, value=_brief(given), why="it is neither a data URL nor base64",
                            fix="Send data:image/png;base64,... or the base64 alone.") from error  # fmt: skip

    def _fetched(self, url: str, where: str) -> bytes:
        if not any(url.startswith(prefix) for prefix in self.fetch):
            raise UserError(field=where, value=url, why="this server fetches no such address",
                            fix="Send the file as a data URL, or start the server with --fetch PREFIX.")  # fmt: skip
        try:
            with urllib.request.build_opener(_NoRedirect).open(url, timeout=TIMEOUT) as reply:
                data: bytes = reply.read(self.limits.max_bytes + 1)
        except (OSError, ValueError) as error:
            raise UserError(field=where, value=url, why=f"it cannot be fetched ({error})",
                            fix="Correct the address, or send a data URL.") from error  # fmt: skip
        return data

    def _known(self, digest: str) -> Pixels | None:
        with self._lock:
            if digest in self._kept:
                self._kept.move_to_end(digest)
            return self._kept.get(digest)

    def _keep(self, digest: str, pixels: Pixels) -> None:
        with self._lock:
            if digest not in self._kept:
                self._kept[digest] = pixels
                self._held += pixels.nbytes
            while self._held > self.cache_bytes and len(self._kept) > 1:
                self._held -= self._kept.popitem(last=False)[1].nbytes


def _brief(given: str) -> str:
    return given if len(given) <= 40 else f"{given[:32]}... ({len(given)} characters)"
