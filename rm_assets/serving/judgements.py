"""What rewards say of responses to one prompt."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Comparison:
    """Two responses to one prompt: the probability that a is better, sigmoid(margin) (Bradley and Terry 1952), and
    margin = reward of a - reward of b."""

    probability: float
    margin: float
    reward_a: float
    reward_b: float


@dataclass(frozen=True)
class Best:
    """The response with the highest reward, the first of those if several have it; `index` is its place in `rewards`."""

    index: int
    response: str
    rewards: list[float]


def compare(reward_a: float, reward_b: float) -> Comparison:
    """The comparison that two rewards make."""
    margin = reward_a - reward_b
    small = math.exp(-abs(margin))  # never overflows
    return Comparison((1 if margin >= 0 else small) / (1 + small), margin, reward_a, reward_b)


def best_of(responses: Sequence[str], rewards: Sequence[float]) -> Best:
    """The best of at least one response."""
    index = max(range(len(rewards)), key=rewards.__getitem__)
    return Best(index, responses[index], list(rewards))
