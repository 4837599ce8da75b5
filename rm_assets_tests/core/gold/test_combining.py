"""Several scorers as one, by hand."""

import numpy as np
import pytest

from rm_assets.core.gold.combining import combined, disagreements, standardized

REWARDS = np.array([[1.0, 30.0], [3.0, 10.0], [5.0, 20.0]])


def test_mean_worst_case_and_weighted_mean() -> None:
    assert combined(REWARDS, "mean", [1, 1]).tolist() == [15.5, 6.5, 12.5]
    assert combined(REWARDS, "worst_case", [1, 1]).tolist() == [1.0, 3.0, 5.0]
    assert combined(REWARDS, "weighted", [3, 1]).tolist() == [8.25, 4.75, 8.75]


def test_standardized_columns_compare() -> None:
    found = standardized(REWARDS)
    unit = 1.5**0.5  # the standard deviation of 1, 3, 5 is (8 / 3) ** 0.5
    assert found == pytest.approx(np.array([[-unit, unit], [0, -unit], [unit, 0]]))
    # On raw scales the second scorer decides nothing; standardized, it is the worst case of the second response.
    assert combined(found, "worst_case", [1, 1]) == pytest.approx([-unit, -unit, 0])


def test_scorers_disagree_where_they_order_two_responses_differently() -> None:
    # 1-2: up and down; 1-3: up and down; 2-3: both up.
    assert disagreements(REWARDS) == (2, 3)
    assert disagreements(np.array([[1.0, 1.0], [1.0, 2.0]])) == (0, 1)  # a tie contradicts nobody
    assert disagreements(REWARDS[:1]) == (0, 0)
