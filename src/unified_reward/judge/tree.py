"""The verdict strings of a template as one tree of tokens, so that all of them are read in a single forward.

Shared beginnings are one branch. A string that others go on from (" 1" before " 10") ends with probability
1 - P(going on), so that P(" 1") and P(" 10") are exclusive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

ROOT = -1  # the state before the first token of the tree


@dataclass
class AnswerTree:
    """M nodes to feed: `prefix` tokens in a row, then every token of the strings that another token follows.

    tokens, parents, depths: of the M nodes; parent ROOT = the context before. strings: for each verdict string the
    (state, token) steps whose log-probs add up. endings: for a string that others go on from, its last state and the
    tokens that would go on.
    """

    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    strings: list[list[tuple[int, int]]] = field(default_factory=list)
    endings: dict[int, tuple[int, list[int]]] = field(default_factory=dict)

    @classmethod
    def of(cls, prefix: Sequence[int], strings: Sequence[Sequence[int]]) -> AnswerTree:
        """Raises ValueError when a string is empty or given twice."""
        whole = [tuple(string) for string in strings]
        if not all(whole) or len(set(whole)) < len(whole):
            raise ValueError("verdict strings must be different and have at least one token each")
        tree = cls()
        state = ROOT
        for token in prefix:
            state = tree._add(state, token)
        states: dict[tuple[int, ...], int] = {(): state}
        for end in sorted({string[:cut] for string in whole for cut in range(1, len(string))}, key=len):
            states[end] = tree._add(states[end[:-1]], end[-1])
        longer: dict[tuple[int, ...], set[int]] = {}
        for string in whole:
            tree.strings.append([(states[string[:cut]], string[cut]) for cut in range(len(string))])
            for cut in range(len(string)):
                longer.setdefault(string[:cut], set()).add(string[cut])
        for index, string in enumerate(whole):
            if string in longer:
                tree.endings[index] = (states[string], sorted(longer[string]))
        return tree

    def _add(self, parent: int, token: int) -> int:
        self.tokens.append(token)
        self.parents.append(parent)
        self.depths.append(self.depths[parent] + 1 if parent != ROOT else 0)
        return len(self.tokens) - 1

    def visible(self) -> Tensor:
        """bool [M, M]: node i sees node j, its ancestors and itself."""
        sees = torch.eye(len(self.tokens), dtype=torch.bool)
        for node, parent in enumerate(self.parents):
            if parent != ROOT:
                sees[node] |= sees[parent]
        return sees

    def read(self, logits: Tensor) -> Tensor:
        """logits: [B, 1 + M, V], of the context's last token and of each node. Returns float64 [B, strings], nats."""
        logprobs = torch.log_softmax(logits.double(), dim=-1)
        columns = []
        for index, steps in enumerate(self.strings):
            total = sum((logprobs[:, state + 1, token] for state, token in steps), logprobs.new_zeros(len(logits)))
            if index in self.endings:
                state, tokens = self.endings[index]
                going_on = logprobs[:, state + 1, tokens].logsumexp(-1).clamp(max=-1e-12)
                total = total + torch.log(-torch.expm1(going_on))
            columns.append(total)
        return torch.stack(columns, dim=1)
