"""Losses of pairs, worked out by hand."""

import math

import pytest
import torch

from rm_assets.backends.torch.objectives import pair_losses
from rm_assets.core.recipe import BradleyTerry, Objective, Regression, SoftBradleyTerry

REWARDS = torch.tensor([[2.0, 0.5], [0.0, 1.0]])
GOLD = torch.tensor([[3.0, 1.0], [0.5, 0.0]])


def losses(objective: Objective, centering: float = 0.0) -> list[float]:
    return list(pair_losses(REWARDS, GOLD, objective, centering).tolist())


def test_bradley_terry_is_minus_the_log_of_the_sigmoid_of_the_reward_margin() -> None:
    assert losses(BradleyTerry()) == pytest.approx([math.log(1 + math.exp(-1.5)), math.log(1 + math.exp(1.0))])


def test_a_margin_is_asked_for_in_units_of_the_gold_margin() -> None:
    # reward margins 1.5 and -1, gold margins 2 and 0.5, scaled by 0.5
    assert losses(BradleyTerry(margin_scale=0.5)) == pytest.approx(
        [math.log(1 + math.exp(-0.5)), math.log(1 + math.exp(1.25))]
    )


def test_soft_targets_are_the_gold_models_own_probabilities() -> None:
    objective = SoftBradleyTerry(kind="soft_bradley_terry", temperature=2.0)

    def cross_entropy(target: float, margin: float) -> float:
        chance = 1 / (1 + math.exp(-margin))
        return -target * math.log(chance) - (1 - target) * math.log(1 - chance)

    first, second = 1 / (1 + math.exp(-1.0)), 1 / (1 + math.exp(-0.25))
    assert losses(objective) == pytest.approx([cross_entropy(first, 1.5), cross_entropy(second, -1.0)])


def test_a_soft_target_is_met_where_the_reward_margin_is_the_gold_margin() -> None:
    rewards = torch.tensor([[0.75, 0.0]], requires_grad=True)
    objective = SoftBradleyTerry(kind="soft_bradley_terry", temperature=2.0)
    pair_losses(rewards, torch.tensor([[1.5, 0.0]]), objective, 0.0).sum().backward()  # type: ignore[no-untyped-call]
    assert rewards.grad is not None and rewards.grad.abs().max() < 1e-7


def test_regression_is_the_mean_squared_error_of_both_responses() -> None:
    assert losses(Regression(kind="regression")) == pytest.approx([(1 + 0.25) / 2, (0.25 + 1) / 2])


def test_centering_adds_the_squared_sum_of_the_two_rewards() -> None:
    plain, centred = losses(BradleyTerry()), losses(BradleyTerry(), centering=0.1)
    assert [c - p for c, p in zip(centred, plain, strict=True)] == pytest.approx([0.1 * 6.25, 0.1 * 1.0])
