"""Spread, ties and rank correlation of many prompts at once, against hand-computed values and one prompt at a time."""

from statistics import fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rm_assets.core.table_statistics import within_prompts

GROUPS = np.array([0, 2, 0, 1, 0, 2])
GOLD = np.array([1.0, 5.0, 1.0, 3.0, 2.0, 4.0])  # of prompt 0: 1, 1, 2; of prompt 1: 3; of prompt 2: 5, 4


def test_ties_are_counted_among_the_pairs_of_a_prompt() -> None:
    pairs, equal = within_prompts.ties(GOLD, GROUPS)
    assert pairs.tolist() == [3, 0, 1] and equal.tolist() == [1, 0, 0]


def test_spread_is_the_mean_standard_deviation_of_prompts_with_several_rewards() -> None:
    assert within_prompts.spread(GOLD, GROUPS) == pytest.approx({"value": (3**-0.5 + 2**-0.5) / 2, "n": 2})


def test_rank_correlation_leaves_out_prompts_where_one_side_is_constant() -> None:
    lengths = np.array([10.0, 2.0, 20.0, 7.0, 30.0, 1.0])
    # Prompt 0: ranks 1.5, 1.5, 3 against 1, 2, 3; prompt 1 has one response; prompt 2: the longer is better.
    found = within_prompts.rank_correlation(GOLD, lengths, GROUPS)
    assert found == pytest.approx({"value": (1.5 / 3**0.5 + 1) / 2, "n": 2})
    assert within_prompts.rank_correlation(GOLD, np.ones(6), GROUPS) == {"value": None, "n": 0}


def test_nothing_has_no_figures() -> None:
    nothing, groups = np.array([]), np.array([], dtype=np.int64)
    assert within_prompts.spread(nothing, groups) == {"value": None, "n": 0}
    assert within_prompts.rank_correlation(nothing, nothing, groups) == {"value": None, "n": 0}
    assert [len(of) for of in within_prompts.ties(nothing, groups)] == [0, 0]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-3, 3), st.integers(0, 5)), min_size=1, max_size=40))
def test_all_prompts_at_once_agree_with_one_prompt_at_a_time(rows: list[tuple[int, int, int]]) -> None:
    groups, first, second = (np.array(column) for column in zip(*rows, strict=True))
    expected = [
        stats.spearmanr(first[groups == g], second[groups == g]).statistic
        for g in set(groups.tolist())
        if len(set(first[groups == g])) > 1 and len(set(second[groups == g])) > 1
    ]
    found = within_prompts.rank_correlation(first.astype(float), second.astype(float), groups)
    assert found["n"] == len(expected)
    assert found["value"] == (pytest.approx(fmean(expected), abs=1e-9) if expected else None)
