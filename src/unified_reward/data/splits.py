"""A held-out split that cannot leak: records that share a prompt or a medium always stand on the same side."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence


def held_out(keys: Sequence[Sequence[Hashable]], share: float, seed: int = 0) -> list[bool]:
    """Whether each record is held out. keys[i]: what record i must not share with the other side (prompt, digests).

    Whole groups of connected records are held out, in an order drawn by `seed`, until `share` of the records is reached;
    at least one group is held out, and at least one is not. Raises ValueError when all records hang together.
    """
    groups = _connected(keys)
    names = sorted(set(groups), key=lambda g: hashlib.sha256(f"{seed}\0{sorted(map(str, keys[g]))}".encode()).digest())
    if len(names) < 2:
        raise ValueError("all records share prompts or media, so none can be held out without leaking")
    sizes = {name: groups.count(name) for name in names}
    chosen, count = {names[0]}, sizes[names[0]]
    for name in names[1:-1]:
        if count + sizes[name] <= share * len(keys):
            chosen.add(name)
            count += sizes[name]
    return [group in chosen for group in groups]


def _connected(keys: Sequence[Sequence[Hashable]]) -> list[int]:
    """For each record the lowest record number it hangs together with (union-find over shared keys)."""
    parent = list(range(len(keys)))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    first: dict[Hashable, int] = {}
    for number, own in enumerate(keys):
        for key in own:
            low, high = sorted((root(first.setdefault(key, number)), root(number)))
            parent[high] = low
    return [root(number) for number in range(len(keys))]
