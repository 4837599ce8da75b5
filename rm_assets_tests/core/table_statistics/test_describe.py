"""Statistics of a few rows, by hand; a picture of them."""

import json
import math
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest

from rm_assets.core.records import GoldReward, Pair, Prompt, conversation
from rm_assets.core.table_statistics.describe import (
    describe,
    distribution_rows,
    key_figures,
    rate_by_level,
    section_rows,
)
from rm_assets.core.table_statistics.histograms import histograms_svg
from rm_assets.core.table_statistics.numbers import gather


def reward(prompt: int, index: int, gold: float, text: str) -> GoldReward:
    return GoldReward(
        prompt_id=f"p{prompt}", prompt="q", system=None, reference=None, source=f"s{prompt}", split="train" if prompt else "test",
        external_id=None, row=prompt, response_id=f"r{prompt}.{index}", sample_index=index, response=text, model="m", seed=None,
        num_tokens=None, finished=None, gold_reward=gold,
    )  # fmt: skip


REWARDS = [
    reward(0, 0, 1.0, "a"), reward(0, 1, 1.0, "a"), reward(0, 2, 3.0, "aaa"),
    reward(1, 0, 5.0, "aaaa"), reward(1, 1, 4.0, "aaaaa"),
]  # fmt: skip


def test_gold_rewards_have_ties_spread_duplicates_and_correlation_with_length() -> None:
    stats = describe(gather("gold_rewards", REWARDS))
    figures = stats["all"]["figures"]
    assert figures["duplicates"] == {"value": 1, "n": 5}
    assert figures["share_truncated"] == {"value": 0.0, "n": 5}
    assert figures["tie_rate"] == {"value": 0.25, "n": 4}  # of three pairs of p0 and one of p1
    assert figures["gold_sd_within_prompts"] == pytest.approx(
        {"value": (math.sqrt(4 / 3) + math.sqrt(0.5)) / 2, "n": 2}
    )
    assert figures["length_correlation_within"] == pytest.approx({"value": 0.0, "n": 2}, abs=1e-12)  # 1 and -1
    # Ranks of gold 1.5, 1.5, 3, 5, 4 and of length 1.5, 1.5, 3, 4, 5.
    assert figures["length_correlation"] == pytest.approx({"value": 8.5 / 9.5, "n": 5})
    assert stats["by_split"]["test"]["figures"]["tie_rate"] == pytest.approx({"value": 1 / 3, "n": 3})
    assert stats["all"]["distributions"]["gold_reward"]["mean"] == pytest.approx(2.8)
    assert "response_tokens" not in stats["all"]["distributions"]  # none of the rows has them


def test_ties_are_told_by_the_prompts_mean_where_rewards_of_different_prompts_compare() -> None:
    def levels(rows: list[GoldReward]) -> list[object]:
        return list(describe(gather("gold_rewards", rows))["tie_rate_by_mean_gold"])

    rows = [*REWARDS, reward(2, 0, 9.0, "a"), reward(2, 1, 9.0, "b")]
    assert levels(rows) == [
        {"from": pytest.approx(5 / 3), "to": pytest.approx(5 / 3), "value": pytest.approx(1 / 3), "n": 3},
        {"from": 4.5, "to": 4.5, "value": 0.0, "n": 1},
        {"from": 9.0, "to": 9.0, "value": 1.0, "n": 1},
    ]
    assert levels([replace(row, comparison="c") for row in rows]) == []  # preferences
    thirds = [[0.1, 0.2, 1.2], [0.0, 0.5, 1.0], [1 / 3, 1 / 6, 1.0]]  # a judge: the mean is 0.5 up to rounding
    assert levels([reward(p, i, gold, "a") for p, golds in enumerate(thirds) for i, gold in enumerate(golds)]) == []


def test_rewards_compare_only_within_their_comparison() -> None:
    rows = [replace(row, comparison=str(row.sample_index % 2)) for row in REWARDS[:3]]
    assert describe(gather("gold_rewards", rows))["all"]["figures"]["tie_rate"] == {"value": 0.0, "n": 1}
    assert gather("gold_rewards", [*rows, *REWARDS[3:]]).group.tolist() == [0, 1, 0, 2, 2]  # the next prompt is another


@pytest.mark.parametrize("golds", [[0.3, 0.1 + 0.2], [-1e308, 1e308], [1e308, 1.1e308], [1e300] * 2, [5e-324, 0.0]])
def test_rewards_at_the_ends_of_the_floats_have_statistics_and_a_picture(golds: list[float]) -> None:
    stats = describe(gather("gold_rewards", [reward(0, i, gold, "a") for i, gold in enumerate(golds)]))
    assert stats["all"]["distributions"]["gold_reward"]["mean"] == pytest.approx(golds[0] / 2 + golds[1] / 2)
    assert sum(stats["histograms"]["gold_reward"]["counts"]) == 2
    assert json.loads(json.dumps(stats, allow_nan=False)) == stats
    assert "nan" not in histograms_svg(stats)


def test_prompts_are_duplicates_if_system_message_and_earlier_turns_are_the_same_too() -> None:
    row = Prompt(prompt_id="p", prompt="go on", system=None, reference=None, source="s", split="train", external_id=None, row=0)  # fmt: skip
    others = [replace(row, system="Be short."), replace(row, history=conversation("Hello", None, "Hi"))]
    assert describe(gather("prompts", [row, *others]))["all"]["figures"]["duplicates"] == {"value": 0, "n": 3}
    assert describe(gather("prompts", [row, *others, others[1]]))["all"]["figures"]["duplicates"]["value"] == 1


def test_pairs_have_the_share_of_longer_chosen_by_margin() -> None:
    def pair(number: int, chosen: str, rejected: str) -> Pair:
        sides = [conversation("q", None, text) for text in (chosen, rejected)]
        return Pair(
            pair_id=f"x{number}", prompt_id=f"p{number}", source="s", split="train", chosen=sides[0], rejected=sides[1], chosen_id="c",
            rejected_id="r", chosen_gold_reward=float(number), rejected_gold_reward=0.0, gold_margin=float(number),
        )  # fmt: skip

    stats = describe(gather("implicit_pairs", [pair(1, "aa", "a"), pair(2, "a", "aa"), pair(3, "b", "a")]))
    assert stats["all"]["figures"]["share_chosen_longer"] == {"value": 0.5, "n": 2}  # the third are equally long
    assert stats["chosen_longer_by_margin"] == [
        {"from": 1.0, "to": 1.0, "value": 1.0, "n": 1}, {"from": 2.0, "to": 2.0, "value": 0.0, "n": 1},
    ]  # fmt: skip
    assert stats["outliers"] is None


def test_levels_are_five_bins_with_about_as_many_each_and_equal_levels_together() -> None:
    levels = np.array([1.0] * 5 + [2.0, 3.0, 4.0, 5.0, 6.0])
    bins = rate_by_level(levels, np.arange(10.0), np.ones(10))
    assert [(b["from"], b["to"], b["n"]) for b in bins] == [(1, 1, 5), (2, 2, 1), (3, 4, 2), (5, 6, 2)]
    assert [b["value"] for b in bins] == [2.0, 5.0, 6.5, 8.5]


def test_what_is_no_number_counts_as_none_and_statistics_are_strict_json() -> None:
    table = gather("gold_rewards", [replace(REWARDS[0], gold_reward=math.nan), *REWARDS[1:]])
    stats = describe(table)
    assert stats["all"]["distributions"]["gold_reward"]["n"] == 4
    assert json.loads(json.dumps(stats, allow_nan=False)) == stats


def test_no_rows_have_statistics_all_the_same() -> None:
    stats = describe(gather("gold_rewards", []))
    json.dumps(stats, allow_nan=False)
    assert stats["all"]["n"] == 0 and key_figures(stats) == {"duplicates": 0}
    assert ET.fromstring(histograms_svg(stats)).tag.endswith("svg")


def test_sources_beyond_the_twentieth_are_together() -> None:
    rows = [reward(number, 0, 1.0, "a") for number in [*range(23), 5]]
    by_source = describe(gather("gold_rewards", rows))["by_source"]
    assert len(by_source) == 21 and by_source["s5"]["n"] == 2
    assert by_source["3 other sources"]["n"] == 3


def test_tables_for_people_have_a_row_a_figure_and_a_column_a_split() -> None:
    stats = describe(gather("gold_rewards", REWARDS))
    rows = {row.pop(""): row for row in section_rows(stats, "by_split")}
    assert rows["tie rate"] == {"all rows": "0.25", "train": "0", "test": "0.3333"}
    assert rows["gold reward, median"] == {"all rows": "3", "train": "4.5", "test": "1"}
    distributions = {row.pop(""): row for row in distribution_rows(stats["all"])}
    assert list(distributions) == ["n", "mean", "sd", "least", "5%", "25%", "50%", "75%", "95%", "greatest"]
    assert distributions["50%"] == {"gold reward": "3", "response chars": "3"}


def test_the_picture_has_a_panel_a_distribution_with_bars_of_all_rows() -> None:
    stats = describe(gather("gold_rewards", REWARDS))
    picture = ET.fromstring(histograms_svg(stats))
    texts = [element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert "gold_reward, n = 5" in texts and "response_chars, n = 5" in texts and "median 3" in texts
    assert sum(stats["histograms"]["gold_reward"]["counts"]) == 5
    places = [float(element.get("x", "0")) for element in picture.iter("{http://www.w3.org/2000/svg}rect")]
    assert max(places) < float(picture.get("width", "0"))
