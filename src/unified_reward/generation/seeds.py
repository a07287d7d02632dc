"""The seed of a candidate: a hash of what names it, so that it can be drawn again by itself, in any batch, anywhere."""

from __future__ import annotations

import hashlib


def candidate_seed(run_seed: int, prompt_id: str, index: int) -> int:
    """In [0, 2**63): fits the generators of numpy and torch."""
    digest = hashlib.sha256(f"{run_seed}\0{prompt_id}\0{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
