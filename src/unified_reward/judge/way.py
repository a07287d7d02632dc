"""How verdicts are read out of what a judge says. (From probabilities there is one way: `Judge.compare` and `score`.)"""

from __future__ import annotations

from dataclasses import dataclass

from unified_reward.judge.grammar import Reading


@dataclass(frozen=True)
class Spoken:
    """Let the judge say its verdict, and read it.

    max_new_tokens: where an answer is cut; 0 = as long as the template's rationale may be, and a verdict after it.
    samples: answers to each question; the majority is the verdict, the mean the score. One answer is greedy unless it is
    sampled with a temperature on purpose; several need a temperature. both_orders: ask a pair in both.
    alternatives: let the engine tell so many of the likeliest tokens where the verdict stands, and weigh them as
    probabilities; for engines that can (servers with top_logprobs, vLLM).
    """

    reading: Reading = Reading.STRICT
    max_new_tokens: int = 0
    samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    both_orders: bool = True
    alternatives: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 1 or self.temperature < 0 or (self.samples > 1 and self.temperature == 0):
            raise ValueError("several samples need a temperature above 0, else they are one and the same")
        if self.alternatives and self.samples > 1:
            raise ValueError("probabilities come from one greedy answer")


# What the released scripts do: one greedy answer to one order, read with their defects. To compare with published
# numbers only; preference data made so hold position bias, and ties and refusals as wins of the first item.
PAPER = Spoken(reading=Reading.PAPER, max_new_tokens=4096, both_orders=False)
