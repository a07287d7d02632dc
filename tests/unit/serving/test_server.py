"""What `serve` refuses before it loads a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from unified_reward.errors import UserError
from unified_reward.serving.server import ServeOptions, serve


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (ServeOptions("judge", device="gpu"), "--device is gpu: torch cannot use it"),
        (ServeOptions("judge", device="cuda:99"), "--device is cuda:99: torch cannot use it"),
        (ServeOptions("judge", fetch=("ftp://host/",)), "--fetch is ftp://host/: only addresses of http and https"),
        (ServeOptions("judge", host="192.0.2.1", port=0), "--port is 192.0.2.1:0: it cannot be listened on"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(options: ServeOptions, why: str) -> None:
    with pytest.raises(UserError, match=why):
        serve(Path("not read"), options)
