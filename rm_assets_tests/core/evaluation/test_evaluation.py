"""The report on small planted cases: every rate can be counted by hand."""

import json
import math
from collections.abc import Sequence
from typing import Any

import pytest

from rm_assets.core.errors import DataError, ModelError
from rm_assets.core.evaluation import ScoredResponse, build_report, compare_pairs
from rm_assets.core.recipe import EvaluationSection
from rm_assets.core.records import GoldReward, Pair, conversation

ALL = EvaluationSection(pairs="all")
RANDOM = EvaluationSection()


def scored(
    prompt: int,
    index: int,
    gold: float,
    reward: float,
    *,
    text: str = "same",
    source: str = "made",
    split: str = "test",
    components: dict[str, float] | None = None,
) -> ScoredResponse:
    row = GoldReward(
        prompt_id=f"p{prompt}", prompt=f"prompt {prompt}", system=None, reference=None, source=source, split=split,
        external_id=None, row=prompt, response_id=f"p{prompt}r{index}", sample_index=index, response=text, model="m",
        seed=0, num_tokens=1, finished=True, gold_reward=gold, components=components or {},
    )  # fmt: skip
    return ScoredResponse(gold=row, reward=reward, num_tokens=2)


def train_pair(index: int, chosen: str = "a long one", rejected: str = "short") -> Pair:
    return Pair(
        pair_id=f"t{index}", prompt_id=f"tp{index}", source="made", split="train",
        chosen=conversation("p", None, chosen), rejected=conversation("p", None, rejected),
        chosen_id="a", rejected_id="b", chosen_gold_reward=1.0, rejected_gold_reward=0.0, gold_margin=1.0,
    )  # fmt: skip


def report(
    test: Sequence[ScoredResponse],
    *,
    settings: EvaluationSection = RANDOM,
    train: Sequence[Pair] = (),
    train_margins: Sequence[float] = (),
    training: dict[str, Any] | None = None,
) -> dict[str, Any]:
    pairs = list(train) or [train_pair(index) for index in range(1000)]
    return build_report(
        test=test, scored_train_pairs=[(pair, m, 0.0) for pair, m in zip(pairs, train_margins, strict=False)],
        train_pairs=pairs, settings=settings, canaries=[{"messages": [], "text": "hello", "reward": 0.5}],
        training=training or {},
    )  # fmt: skip


def prompts(num: int, num_right: int, *, margin: float = 3.0, **fields: Any) -> list[ScoredResponse]:
    """`num` prompts of two responses of equal length, of which the model orders `num_right` as gold does."""
    return [
        scored(p, side, gold=float(side), reward=margin * side * (1 if p < num_right else -1), **fields)
        for p in range(num)
        for side in (0, 1)
    ]


def signs(found: dict[str, Any]) -> set[str]:
    return {sign["sign"] for sign in found["diagnosis"]}


GOOD: dict[str, Any] = {"train_margins": [3.0] * 500, "training": {"final_loss": 0.2, "validation_accuracy": 0.9}}


def test_match_rate_leaves_out_gold_ties_and_counts_equal_rewards_half() -> None:
    test = [
        *(scored(0, 0, 1.0, 2.0), scored(0, 1, 0.0, 1.0)),  # right
        *(scored(1, 0, 1.0, 1.0), scored(1, 1, 0.0, 2.0)),  # wrong
        *(scored(2, 0, 1.0, 1.0), scored(2, 1, 0.0, 1.0)),  # equal rewards
        *(scored(3, 0, 1.0, 1.0), scored(3, 1, 1.0, 2.0)),  # gold tie
        scored(4, 0, 1.0, 1.0),  # alone
    ]
    found = report(test)
    match = found["match_rate"]
    assert (match["value"], match["n"], match["num_ties"], match["tie_rate"]) == (0.5, 3, 1, 0.25)
    assert match["num_equal_rewards"] == 1 and "half" in match["tie_rule"] and "Wilson" in match["interval"]
    assert match["low"] < 0.5 < match["high"]
    assert (found["num_test_prompts"], found["num_test_responses"], found["num_single_response_prompts"]) == (5, 9, 1)


def test_one_random_draws_one_pair_a_prompt_without_looking_at_gold() -> None:
    test = [scored(p, k, float(k), 0.0) for p in range(200) for k in range(4)]
    shuffled_gold = [scored(p, k, float((k * 3 + p) % 4), 0.0) for p in range(200) for k in range(4)]

    def drawn(rows: Sequence[ScoredResponse], seed: int = 0) -> list[frozenset[str]]:
        pairs, _ = compare_pairs(rows, EvaluationSection(seed=seed))
        return [frozenset((pair.chosen.gold.response_id, pair.rejected.gold.response_id)) for pair in pairs]

    assert len(drawn(test)) == 200
    assert drawn(test) == drawn(shuffled_gold)
    assert sorted(map(sorted, drawn(test))) == sorted(map(sorted, drawn(test[::-1])))
    assert drawn(test) != drawn(test, seed=1)
    kinds = {tuple(sorted(name[-1] for name in pair)) for pair in drawn(test)}
    assert len(kinds) == 6  # every two of four responses occur


def test_all_takes_every_pair_with_an_interval_over_prompts() -> None:
    test = [scored(p, k, float(k), float(k if p else -k)) for p in range(4) for k in range(3)]
    match = report(test, settings=ALL)["match_rate"]
    assert (match["value"], match["n"]) == (0.75, 12)
    assert "bootstrap over prompts" in match["interval"]
    assert match["low"] < 0.5  # four prompts tell little, although there are twelve pairs


@pytest.mark.parametrize(
    ("train", "rule", "value"),
    [(("longer", "short"), "longer is better", 0.75), (("s", "longer"), "shorter is better", 0.25)],
)
def test_length_baseline_takes_its_direction_from_training_pairs(
    train: tuple[str, str], rule: str, value: float
) -> None:
    test = [
        *(scored(0, 0, 1.0, 1.0, text="long"), scored(0, 1, 0.0, 0.0, text="l")),
        *(scored(1, 0, 1.0, 1.0, text="same"), scored(1, 1, 0.0, 0.0, text="four")),
    ]
    baseline = report(test, train=[train_pair(0, *train)])["length_baseline"]
    assert (baseline["rule"], baseline["value"], baseline["n"], baseline["num_equal"]) == (rule, value, 2, 1)
    assert baseline["model_advantage"]["value"] == pytest.approx(1 - value)


def test_format_baseline_needs_the_component_on_every_response() -> None:
    inside, outside = {"format": 1.0}, {"format": 0.0}
    test = [
        *(scored(0, 0, 1.0, 1.0, components=inside), scored(0, 1, 0.0, 0.0, components=outside)),
        *(scored(1, 0, 1.0, 1.0, components=inside), scored(1, 1, 0.0, 0.0, components=inside)),
    ]
    assert report(test)["format_baseline"]["value"] == 0.75
    assert report([*test, scored(2, 0, 1.0, 1.0), scored(2, 1, 0.0, 0.0)])["format_baseline"] is None


def test_breakdowns_name_the_components_that_differ_and_the_source() -> None:
    perfect, no_lines = {"lines": 1.0, "exact": 1.0, "partial": 1.0}, {"lines": 0.5, "exact": 1.0, "partial": 1.0}
    wrong = {"lines": 1.0, "exact": 0.0, "partial": 0.2}
    test = [
        *(scored(0, 0, 1.0, 1.0, components=perfect), scored(0, 1, 0.0, 0.0, components=no_lines)),
        *(scored(1, 0, 1.0, 0.0, components=perfect), scored(1, 1, 0.0, 1.0, components=wrong)),
        *(scored(2, 0, 1.0, 1.0, components=perfect), scored(2, 1, 0.0, 0.0, components=wrong)),
        *(scored(3, 0, 1.0, 1.0, source="web"), scored(3, 1, 0.0, 0.0, source="web")),
    ]
    found = report(test)
    shares = {name: (rate["value"], rate["n"]) for name, rate in found["by_difference"].items()}
    assert shares == {"exact+partial": (0.5, 2), "lines": (1.0, 1), "none recorded": (1.0, 1)}
    assert next(iter(found["by_difference"])) == "exact+partial"  # the most frequent first
    assert {name: rate["n"] for name, rate in found["by_source"].items()} == {"made": 3, "web": 1}


def test_distributions_and_compression_of_hand_computed_pairs() -> None:
    test = [
        *(scored(0, 0, 4.0, 2.0), scored(0, 1, 0.0, 0.0)),
        *(scored(1, 0, 2.0, 0.05), scored(1, 1, 0.0, 0.0)),
    ]
    spread = report(test)["distributions"]
    assert spread["reward"]["mean"] == pytest.approx(0.5125) and spread["gold_reward"]["n"] == 4
    assert spread["within_prompt_sd"]["gold_reward"] == {"value": pytest.approx(3 / math.sqrt(2)), "n": 2}
    small = spread["compression"]
    assert small["mean_abs_reward_margin"] == pytest.approx(1.025)
    assert small["barely_separated"] == {"value": 0.5, "threshold": 0.1, "n": 2}
    assert small["implied_match_rate"] == pytest.approx((1 / (1 + math.exp(-2)) + 1 / (1 + math.exp(-0.05))) / 2)
    assert small["margin_sd_ratio"] == pytest.approx(1.95 / 2)
    assert spread["loss"]["value"] == pytest.approx((math.log1p(math.exp(-2)) + math.log1p(math.exp(-0.05))) / 2)


def test_huge_margins_do_not_overflow() -> None:
    found = report(prompts(4, 2, margin=1e6))
    assert found["distributions"]["loss"]["value"] == pytest.approx(5e5)
    assert found["distributions"]["compression"]["implied_match_rate"] == pytest.approx(1.0)


def test_worst_mistakes_come_in_order_of_confidence_and_show_both_texts() -> None:
    test = [
        *(scored(0, 0, 1.0, 0.0, text="better"), scored(0, 1, 0.0, 1.0, text="worse")),
        *(scored(1, 0, 1.0, 0.0), scored(1, 1, 0.0, 5.0)),
        *(scored(2, 0, 1.0, 5.0), scored(2, 1, 0.0, 0.0)),
        *(scored(3, 0, 1.0, 0.0), scored(3, 1, 0.0, 0.0)),
    ]
    found = report(test)["worst_mistakes"]
    assert [mistake["prompt_id"] for mistake in found] == ["p1", "p0"]
    last = found[-1]
    assert (last["prompt"], last["chosen"], last["rejected"]) == ("prompt 0", "better", "worse")
    assert (last["chosen_reward"], last["rejected_reward"], last["reward_margin"]) == (0.0, 1.0, -1.0)
    assert (last["chosen_gold_reward"], last["rejected_gold_reward"], last["source"]) == (1.0, 0.0, "made")
    assert len(report(test, settings=EvaluationSection(num_worst_mistakes=1))["worst_mistakes"]) == 1


def test_report_is_json_without_nan_even_when_training_is_not() -> None:
    training = {"final_loss": math.nan, "history": [{"step": 1, "loss": math.inf}]}
    found = report(prompts(20, 18), training=training)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["training"]["history"] == [{"step": 1, "loss": None}]
    assert found["canaries"] == [{"messages": [], "text": "hello", "reward": 0.5}]
    assert found["train_accuracy"] == {"value": None, "low": 0.0, "high": 1.0, "n": 0}


def test_a_good_model_gets_no_diagnosis_and_a_verdict_with_its_figures() -> None:
    found = report(prompts(500, 450), **GOOD | {"train_margins": [3.0] * 460 + [-3.0] * 40})
    assert found["diagnosis"] == []
    for figure in (
        "90.0 % of 500 test pairs",
        "87.1 % to 92.3 %",
        "40.0 points above",
        "longer is better",
        "good stand",
    ):
        assert figure in found["verdict"]


def exploited() -> list[ScoredResponse]:
    """500 prompts of eight responses: the model likes the better of two best, but one in eight that gold rejects most of all."""
    golds = (6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0, -9.0)
    rewards = (1.2, 1.0, 0.8, 0.6, 0.4, 0.2, 0.0, 1.4)
    return [
        scored(p, index, gold, 2.0 * reward)
        for p in range(500)
        for index, (gold, reward) in enumerate(zip(golds, rewards, strict=True))
    ]


@pytest.mark.parametrize(
    ("test", "changes", "sign"),
    [
        (prompts(500, 450, margin=0.05), {}, "compressed rewards"),
        (prompts(500, 450), {"training": {"final_loss": 0.6}}, "the loss has hardly fallen"),
        (prompts(500, 450), {"training": {"final_loss": 0.4}}, "the loss could fall further"),
        (prompts(500, 450), {"training": {"final_loss": math.nan}}, "training diverged"),
        (
            prompts(500, 390, margin=1.5),
            {"train_margins": [1.0] * 390 + [-1.0] * 110},
            "the model does not fit its training pairs",
        ),
        (prompts(500, 450), {"train_margins": [1.0] * 340 + [-1.0] * 160}, "training failed"),
        (prompts(500, 400, margin=2.0), {"train_margins": [3.0] * 500}, "the model does not generalize"),
        (prompts(500, 400, margin=9.0), {"train_margins": [3.0] * 400 + [-3.0] * 100}, "too sure of itself"),
        (exploited(), {"train_margins": [3.0] * 400 + [-3.0] * 100}, "gold falls where the model is pushed"),
        (prompts(500, 450), {"train": [train_pair(0)] * 999}, "few training pairs"),
        (prompts(500, 450), {"training": {"num_pairs": {"trained": 640}}}, "few training pairs"),
        (prompts(100, 88), {"train_margins": [3.0] * 88 + [-3.0] * 12}, "too few test pairs to tell"),
    ],
)
def test_a_planted_defect_gives_exactly_its_sign(
    test: list[ScoredResponse], changes: dict[str, Any], sign: str
) -> None:
    accurate = {"train_margins": [3.0] * 460 + [-3.0] * 40}
    found = report(test, **GOOD | accurate | changes)
    assert signs(found) == {sign}
    assert all(set(each) == {"sign", "severity", "evidence", "remedy"} for each in found["diagnosis"])


@pytest.mark.parametrize(
    "objective",
    [{"kind": "soft_bradley_terry"}, {"kind": "regression"}, {"kind": "bradley_terry", "margin_scale": 0.5}],
)
def test_a_loss_that_is_not_0_for_a_perfect_model_is_not_judged(objective: dict[str, Any]) -> None:
    training = {"final_loss": 0.6, "settings": {"objective": objective}}
    accurate = {"train_margins": [3.0] * 460 + [-3.0] * 40}
    assert signs(report(prompts(500, 450), **GOOD | accurate | {"training": training})) == set()


def test_a_model_that_only_knows_length_is_told_so() -> None:
    test = [
        scored(p, side, float(side), 3.0 * side * (1 if p < 450 else -1), text="xx" if side == (p < 450) else "x")
        for p in range(500)
        for side in (0, 1)
    ]
    found = report(test, **GOOD)
    assert "not shown to be better than length alone" in signs(found)
    assert "not shown to know more than length" in found["verdict"]


def test_a_model_that_only_knows_format_is_told_so() -> None:
    test = [
        scored(
            p, side, float(side), 3.0 * side * (1 if p < 450 else -1), components={"format": float(side == (p < 450))}
        )
        for p in range(500)
        for side in (0, 1)
    ]
    assert "not shown to be better than format alone" in signs(report(test, **GOOD))


def test_a_model_that_guesses_is_told_so_and_problems_come_before_hints() -> None:
    found = report(prompts(60, 30), train=[train_pair(0)], **GOOD)
    assert "not shown to be better than chance" in signs(found) and "better than chance" in found["verdict"]
    severities = [sign["severity"] for sign in found["diagnosis"]]
    assert severities == sorted(severities, reverse=True) and set(severities) == {"problem", "hint"}


def test_what_no_report_can_be_built_on_is_an_error_with_a_fix() -> None:
    cases: list[tuple[str, list[ScoredResponse]]] = [
        ("DATA_004", []),
        ("DATA_005", [scored(0, 0, 1.0, 1.0), scored(0, 1, 1.0, 2.0)]),
        ("DATA_005", [scored(0, 0, 1.0, 1.0), scored(1, 0, 0.0, 2.0)]),
        ("DATA_008", [scored(0, 0, math.nan, 1.0)]),
    ]
    for code, test in cases:
        with pytest.raises(DataError) as caught:
            report(test)
        assert caught.value.code == code and caught.value.fix


def test_a_reward_that_is_not_finite_and_a_foreign_split_are_refused() -> None:
    with pytest.raises(ModelError, match="MODEL_006"):
        report([scored(0, 0, 1.0, math.inf)])
    with pytest.raises(ValueError, match="test responses only"):
        report([scored(0, 0, 1.0, 1.0, split="train")])
