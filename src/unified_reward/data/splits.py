"""A held-out split that cannot leak: records that share a prompt or a medium always stand on the same side."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence

from unified_reward.records import JudgeRecord, Prompt, Subject

GENERIC = 10  # a question asked about more media than this ("Describe this image in detail.") tells nothing of them


def leak_keys(records: Sequence[JudgeRecord]) -> list[tuple[Hashable, ...]]:
    """What each record must not share with the other side: its prompt, whatever its case and spacing, and its media.

    Questions asked about more than GENERIC media do not count, or whole data sets of captions would hang together.
    """
    return _keys([(record.task.subject, record.prompt, record.media) for record in records])


def prompt_leak_keys(prompts: Sequence[Prompt]) -> list[tuple[Hashable, ...]]:
    """`leak_keys` of what policies are asked."""
    return _keys([(prompt.subject, prompt.text, prompt.media) for prompt in prompts])


def held_out(
    keys: Sequence[Sequence[Hashable]], share: float, seed: int = 0, named: Sequence[str] | None = None
) -> list[bool]:
    """Whether each record is held out. keys[i]: what record i must not share with the other side (see leak_keys).

    named: splits that records bring along ("" = none); what hangs together with one of them goes where it is. Of the rest,
    whole groups of connected records are held out, in an order drawn by `seed`, as long as they fit into `share`; at least
    one is held out, and at least one is not. Raises ValueError when that is impossible.
    """
    groups = _connected(keys)
    sizes = Counter(groups)
    bound = _bound(groups, named or [""] * len(keys))
    free = sorted(set(groups) - set(bound), key=lambda g: _draw(seed, keys[g]))
    if free and len(sizes) < 2:
        raise ValueError("all records share prompts or media, so none can be held out without leaking")
    chosen = {group for group, test in bound.items() if test}
    count = sum(sizes[group] for group in chosen)
    for group in free:
        if count + sizes[group] <= share * len(keys):
            chosen.add(group)
            count += sizes[group]
    if not chosen and free:
        chosen.add(min(free, key=lambda group: sizes[group]))
    if len(chosen) == len(sizes) and free:
        chosen.discard(free[-1])
    return [group in chosen for group in groups]


def _bound(groups: Sequence[int], named: Sequence[str]) -> dict[int, bool]:
    """Groups that hold a record with a split of its own -> whether it is a held-out one."""
    bound: dict[int, tuple[bool, int]] = {}
    for number, (group, split) in enumerate(zip(groups, named, strict=True)):
        if not split:
            continue
        test = split != "train"
        known, first = bound.setdefault(group, (test, number))
        if known != test:
            raise ValueError(f"records {first + 1} and {number + 1} share a prompt or a medium, but one is named train")
    return {group: test for group, (test, _) in bound.items()}


def _draw(seed: int, keys: Sequence[Hashable]) -> bytes:
    return hashlib.sha256(f"{seed}\0{sorted(map(str, keys))}".encode()).digest()


def _keys(asked: Sequence[tuple[Subject, str, Sequence[str]]]) -> list[tuple[Hashable, ...]]:
    """Of each (subject, prompt, media)."""
    questions: dict[str, set[str]] = defaultdict(set)
    for subject, prompt, media in asked:
        if subject is Subject.UNDERSTANDING:
            questions[_plain(prompt)].update(media)
    generic = {prompt for prompt, media in questions.items() if len(media) > GENERIC}
    return [
        tuple([("prompt", _plain(prompt))] if _plain(prompt) not in generic else [])
        + tuple(("medium", digest) for digest in media)
        for _, prompt, media in asked
    ]


def _plain(prompt: str) -> str:
    return " ".join(prompt.casefold().split())


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
