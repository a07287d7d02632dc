"""DPO losses as pure functions of the log-probs of a pair, and the table that names them.

Notation of all docstrings: for each pair, a = log pi(chosen) - log ref(chosen) and b = the same of the rejected answer
(nats, summed over completion tokens), d = a - b; a_n, b_n the same divided by the number of completion tokens;
s = logistic function; e = label smoothing, the share of labels taken to be wrong. All tensors are [B] float32, losses
are per pair and not reduced; gradients flow into the policy's log-probs only. Sources are arXiv numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from unified_reward.errors import UserError

DISCOPOP_TEMPERATURE = 0.05  # 2406.08414, the value the loss was discovered with


@dataclass(frozen=True)
class PairLogProbs:
    """Log-probs of B pairs, [B] float32 each, nats, summed over completion tokens; *_tokens: [B] counts, >= 1."""

    policy_chosen: Tensor
    policy_rejected: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor

    @property
    def chosen_ratio(self) -> Tensor:
        """a: [B], nats."""
        return self.policy_chosen - self.reference_chosen

    @property
    def rejected_ratio(self) -> Tensor:
        """b: [B], nats."""
        return self.policy_rejected - self.reference_rejected

    @property
    def gap(self) -> Tensor:
        """d = a - b: [B], nats."""
        return self.chosen_ratio - self.rejected_ratio

    @property
    def mean_gap(self) -> Tensor:
        """a_n - b_n: [B], nats per token."""
        return self.chosen_ratio / self.chosen_tokens - self.rejected_ratio / self.rejected_tokens


DpoLoss = Callable[[PairLogProbs], Tensor]  # -> [B] float32


def sigmoid(pairs: PairLogProbs, beta: float, label_smoothing: float) -> Tensor:
    """-(1-e) log s(beta d) - e log s(-beta d). ln 2 at d = 0.

    DPO, 2305.18290 eq. 7; with e > 0 conservative DPO (Mitchell's note "cDPO", eq. 3).
    """
    logits = beta * pairs.gap
    return -(1 - label_smoothing) * logsigmoid(logits) - label_smoothing * logsigmoid(-logits)


def robust(pairs: PairLogProbs, beta: float, label_smoothing: float) -> Tensor:
    """[-(1-e) log s(beta d) + e log s(-beta d)] / (1 - 2e). Unbiased under flipped labels: 2403.00409 eq. 12."""
    logits = beta * pairs.gap
    clean, flipped = -logsigmoid(logits), -logsigmoid(-logits)
    return ((1 - label_smoothing) * clean - label_smoothing * flipped) / (1 - 2 * label_smoothing)


def ipo(pairs: PairLogProbs, beta: float) -> Tensor:
    """(a_n - b_n - 1/(2 beta))^2. 2310.12036 eq. 17 on log-probs per token, as its authors advise; beta = tau."""
    return (pairs.mean_gap - 1 / (2 * beta)) ** 2


def hinge(pairs: PairLogProbs, beta: float) -> Tensor:
    """max(0, 1 - beta d). SLiC, 2305.10425 eq. 2, on DPO's implicit reward (RSO, 2309.06657)."""
    return torch.relu(1 - beta * pairs.gap)


def exo_pair(pairs: PairLogProbs, beta: float, label_smoothing: float) -> Tensor:
    """KL(s(beta d) || 1-e) over the two outcomes; wants e > 0. EXO, 2402.00856 eq. 16."""
    logits = beta * pairs.gap
    first = torch.sigmoid(logits) * (logsigmoid(logits) - math.log1p(-label_smoothing))
    second = torch.sigmoid(-logits) * (logsigmoid(-logits) - math.log(label_smoothing))
    return first + second


def nca_pair(pairs: PairLogProbs, beta: float) -> Tensor:
    """-log s(beta a) - [log s(-beta a) + log s(-beta b)] / 2. NCA, 2402.05369 eq. 11 with two answers."""
    chosen, rejected = beta * pairs.chosen_ratio, beta * pairs.rejected_ratio
    return -logsigmoid(chosen) - 0.5 * (logsigmoid(-chosen) + logsigmoid(-rejected))


def sppo_hard(pairs: PairLogProbs, beta: float) -> Tensor:
    """(a - 1/(2 beta))^2 + (b + 1/(2 beta))^2. SPPO with hard labels, 2405.00675 eq. 4.7 (eta = 1/beta)."""
    return (pairs.chosen_ratio - 0.5 / beta) ** 2 + (pairs.rejected_ratio + 0.5 / beta) ** 2


def apo_zero(pairs: PairLogProbs, beta: float) -> Tensor:
    """1 - s(beta a) + s(beta b). For a policy worse than the chosen answers. APO, 2408.06266 eq. 7."""
    return 1 - torch.sigmoid(beta * pairs.chosen_ratio) + torch.sigmoid(beta * pairs.rejected_ratio)


def apo_down(pairs: PairLogProbs, beta: float) -> Tensor:
    """s(beta a) + 1 - s(beta d). For a policy better than the chosen answers. APO, 2408.06266 eq. 8."""
    return torch.sigmoid(beta * pairs.chosen_ratio) + 1 - torch.sigmoid(beta * pairs.gap)


def discopop(pairs: PairLogProbs, beta: float) -> Tensor:
    """(1 - m)(-log s(x)) + m exp(-x) with x = beta d, m = s(x / 0.05). Log-ratio modulated loss, 2406.08414 eq. 5.

    Not convex: between its two valleys near x = 0 it rises with the gap, as its authors note.
    """
    logits = beta * pairs.gap
    scaled = logits / DISCOPOP_TEMPERATURE
    # m exp(-x) in one exponent: for a very negative x the factors alone are 0 and infinity.
    return torch.sigmoid(-scaled) * -logsigmoid(logits) + torch.exp(logsigmoid(scaled) - logits)


def sigmoid_norm(pairs: PairLogProbs, beta: float) -> Tensor:
    """-log s(beta (a_n - b_n)). DPO per token (Tulu 3, 2411.15124 eq. 6)."""
    return -logsigmoid(beta * pairs.mean_gap)


def sft(pairs: PairLogProbs, _beta: float) -> Tensor:
    """-log pi(chosen) / tokens of chosen: cross-entropy per token of the chosen answer; the reference has no part."""
    return -pairs.policy_chosen / pairs.chosen_tokens


# name -> function of (pairs, beta > 0), or of (pairs, beta, label smoothing) in SMOOTHED.
LOSSES: dict[str, Callable[..., Tensor]] = {
    "sigmoid": sigmoid,
    "robust": robust,
    "ipo": ipo,
    "hinge": hinge,
    "exo_pair": exo_pair,
    "nca_pair": nca_pair,
    "sppo_hard": sppo_hard,
    "apo_zero": apo_zero,
    "apo_down": apo_down,
    "discopop": discopop,
    "sigmoid_norm": sigmoid_norm,
    "sft": sft,
}
SMOOTHED = ("sigmoid", "robust", "exo_pair")


def dpo_loss(name: str, *, beta: float, label_smoothing: float = 0.0) -> DpoLoss:
    """The loss called `name` at this beta and smoothing. Raises UserError when they cannot go together."""
    if name not in LOSSES:
        raise UserError(field="loss", value=name, why="no such DPO loss", fix=f"Use one of {', '.join(LOSSES)}.")
    if not beta > 0:
        raise UserError(field="beta", value=beta, why="it must be positive", fix="Use for example 0.1.")
    if not 0 <= label_smoothing < 0.5:
        why = "it is the share of wrong labels, from 0 up to but not including 0.5"
        raise UserError(field="labelSmoothing", value=label_smoothing, why=why, fix="Use for example 0.1, or 0.")
    if label_smoothing == 0 and name == "exo_pair":
        why = "exo_pair takes the logarithm of it"
        raise UserError(field="labelSmoothing", value=label_smoothing, why=why, fix="Use a small value such as 0.001.")
    if name in SMOOTHED:
        return partial(LOSSES[name], beta=beta, label_smoothing=label_smoothing)
    if label_smoothing > 0:
        fix = f"Set labelSmoothing to 0, or use one of {', '.join(SMOOTHED)}."
        raise UserError(field="labelSmoothing", value=label_smoothing, why=f"{name} has no smoothed form", fix=fix)
    function = LOSSES[name]
    return lambda pairs: function(pairs, beta)
