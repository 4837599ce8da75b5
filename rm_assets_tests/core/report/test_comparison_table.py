"""Ensembles beside their members, and the sentence that a comparison ends with."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from rm_assets.core.evaluation.comparison import LENGTH
from rm_assets.core.recipe import EvaluationSection
from rm_assets.core.records import ProxyReward
from rm_assets.core.report.comparison_table import (
    HEADER,
    as_csv,
    compare_all,
    conclusion,
    disagreement_texts,
    text_rows,
)
from rm_assets.core.report.markdown import render_comparison
from rm_assets.core.report.plots import forest


def rows(reward: Callable[[int], float], num_prompts: int = 60) -> list[ProxyReward]:
    """Two responses a prompt, the second better: the first has reward 0, the second `reward(prompt)`; lengths say nothing."""
    return [
        ProxyReward(
            prompt_id=f"p{p}", response_id=f"p{p}r{side}", source="s", sample_index=side, num_characters=5,
            comparison=None, gold_reward=float(side), reward=side * reward(p),
        )
        for p in range(num_prompts)
        for side in (0, 1)
    ]  # fmt: skip


def right_in(number: int) -> list[ProxyReward]:
    return rows(lambda p: 1.0 if p < number else -1.0)


def test_an_ensemble_stands_beside_its_members() -> None:
    # Right in 40 and in 50 of 60: the first has three times the weight by its scale, which standardising takes away.
    one, two = rows(lambda p: 30.0 if p < 40 else -30.0), right_in(50)
    found = compare_all({"a@1": one, "a@2": two}, {"a": ["a@1", "a@2"]}, EvaluationSection())
    rates = {model["model"]: model["match_rate"]["value"] * 60 for model in found["models"]}
    assert (rates["a@1"], rates["a@2"], rates[LENGTH]) == (pytest.approx(40), pytest.approx(50), pytest.approx(30))
    # Worst case: of both wrong or one wrong, the wrong one's reward of the second response is below either's of the first.
    assert rates["a (worst case of 2)"] == pytest.approx(40) and rates["a (mean of 2)"] >= 40
    disagreement = found["ensembles"]["a"]["disagreement"]
    assert (disagreement["num_pairs_disputed"], disagreement["n"]) == (10, 60)
    assert "disagree on 10 of 60 pairs" in disagreement_texts(found)[0]


def test_the_conclusion_names_the_best_only_where_there_is_one() -> None:
    best = compare_all({"good": right_in(58), "bad": right_in(40)}, {}, EvaluationSection())
    assert conclusion(best) == "good is the best: significantly better than every other on the same 60 pairs."
    alone = compare_all({"good": right_in(58)}, {}, EvaluationSection())
    assert conclusion(alone) == "good is significantly better than length alone on the same 60 pairs."
    near = compare_all({"good": right_in(58), "fair": right_in(56)}, {}, EvaluationSection())
    more = next(model["behind"]["more_pairs"] for model in near["models"] if model["model"] == "fair")
    # Connor's formula, d = 2 / 60 and all of it apart: ((0.357838 + 0.151075) / d)² = 233.1, of which 60 are there.
    assert more == 234 - 60
    assert conclusion(near) == f"good leads, but is not told apart from fair: about {more} more test pairs would."
    equal = compare_all({"good": right_in(58), "same": right_in(58)}, {}, EvaluationSection())
    assert conclusion(equal).endswith("they are equally often right.")


def test_a_comparison_is_a_markdown_table_and_what_it_says_and_no_name_means_anything_to_markdown() -> None:
    lines = render_comparison(compare_all({"a|b": right_in(58), "bad": right_in(40)}, {}, EvaluationSection())).split(
        "\n"
    )
    assert lines[0].startswith("| model | match rate | 95 % interval | n |")
    assert lines[1] == "| :--- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    assert lines[2].startswith("| a\\|b | 96.7 % | ") and [line.count(" | ") for line in lines[:5]] == [7] * 5
    assert lines[6] == "a\\|b is the best: significantly better than every other on the same 60 pairs."


def test_a_recipe_is_the_best_though_its_seeds_are_alike() -> None:
    models = {"a@1": right_in(58), "a@2": right_in(57), "b@1": right_in(35), "b@2": right_in(34)}
    found = compare_all(models, {"a": ["a@1", "a@2"], "b": ["b@1", "b@2"]}, EvaluationSection())
    assert found["best"] is not None and found["best"].startswith("a")
    assert "the best: significantly better than every one that is not of its seeds" in conclusion(found)
    behind = {model["model"]: model["behind"] for model in found["models"] if model["model"] != found["leader"]}
    assert {name for name, each in behind.items() if each["is_rival"]} == {name for name in behind if name[0] != "a"}
    # Holm's family are the rivals: five of recipe b, and length.
    assert behind[LENGTH]["adjusted_p_value"] <= 6 * behind[LENGTH]["p_value"]
    assert compare_all(models, {}, EvaluationSection())["best"] is None


def test_length_that_is_ahead_is_named() -> None:
    longer = [replace(row, num_characters=int(row.gold_reward)) for row in right_in(40)]
    found = compare_all({"mine": longer}, {}, EvaluationSection())
    assert conclusion(found) == f"Length alone ({LENGTH}) is significantly better than mine."


def test_length_stands_in_the_direction_that_is_better_on_these_pairs() -> None:
    shorter = [replace(row, num_characters=9 - row.sample_index) for row in right_in(40)]
    found = compare_all({"mine": shorter}, {}, EvaluationSection())
    rates = {model["model"]: model["match_rate"]["value"] for model in found["models"]}
    assert found["length"] == "shorter is better" and rates["shorter is better"] == 1.0
    assert "Length alone (shorter is better) is significantly better than mine." in conclusion(found)


def test_rows_of_the_table_have_its_columns_and_csv_its_numbers() -> None:
    found = compare_all({"good": right_in(58), "bad": right_in(40)}, {}, EvaluationSection())
    table = text_rows(found)
    assert all(len(row) == len(HEADER) for row in table) and table[0][:2] == ("good", "96.7 %")
    assert table[1][0] == "bad" and table[1][4] == "30.0" and table[1][6:] == ("< 0.001", "told apart")
    lines = as_csv(found).splitlines()
    assert lines[0].startswith("model,value,low,high,n,behind_value") and len(lines) == 4
    assert lines[1].endswith("," * 8)  # the leader is behind nobody


def test_the_p_value_that_is_shown_is_the_one_that_decides() -> None:
    # Of "fair" 2 / 2**6 = 0.03125, of both others 2 / 2**20 or less: by Holm 0.03125 is the last and stays; of two
    # that have it, it is doubled.
    found = compare_all({"good": right_in(58), "fair": right_in(52), "same": right_in(52)}, {}, EvaluationSection())
    shown = {row[0]: row[6:] for row in text_rows(found)}
    assert found["models"][1]["behind"]["p_value"] == 2 / 2**6
    assert shown["fair"][0] == shown["same"][0] == "0.062" and "told apart" not in shown["fair"]


def test_the_plot_is_drawn_with_one_model_and_with_many() -> None:
    for number in (1, 12):
        models = {f"model {n} with $ _ and a long name " * 3: right_in(30 + n) for n in range(number)}
        assert forest(compare_all(models, {}, EvaluationSection()), length=LENGTH).startswith(b"\x89PNG")
