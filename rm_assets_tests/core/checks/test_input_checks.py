"""What the checks of a model's input say; the faults themselves are planted in backends/torch/test_examination.py."""

import json
from dataclasses import asdict
from typing import Any

import pytest

from rm_assets.core.checks.inputs import INPUT_CHECKS, TRAINING_CHECKS, Examination, judge
from rm_assets.core.recipe import CheckSettings, ChecksSection

SOUND: dict[str, Any] = {
    "num_rows": 20, "start_token": "<s>", "rows_by_starts": {"1": 20}, "pad_token": "<pad>", "end_token": "</s>",
    "num_train_pairs": 10, "num_test_rows": 4,
}  # fmt: skip
ANY = CheckSettings(severity="error")
COUNTS = {"pairs_trained": 7, "pairs_over_length": 1, "pairs_identical_after_tokenization": 1, "pairs_set_aside": 3}


def sentence(name: str, **changes: Any) -> str:
    """What the check says, after the word that it begins with: ok or fails."""
    finding = judge(name, Examination(**{**SOUND, **changes}), getattr(ChecksSection(), name))
    return f"{'ok' if finding.passed else 'fails'}: {finding.sentence}"


def test_every_failure_names_the_fault_and_what_to_change() -> None:
    said = sentence("one_start_token", rows_by_starts={"1": 15, "2": 5})
    assert said.startswith("fails: of 20 conversations 5 with 2 start tokens (<s>)") and "chat_template" in said
    said = sentence("template_ignores_the_clock", prints_date="always")
    assert said.startswith("fails: the chat template prints the day") and "chat_template" in said
    said = sentence("pad_is_not_the_end", pad_token="</s>")
    assert said.startswith("fails: the base pads with its end token (</s>)") and "pad_token" in said
    said = sentence("reward_is_read_at_the_end", num_rows_ending_with_pad=3)
    assert said.startswith("fails: 3 of 20 conversations end with the pad token") and "pad_token" in said
    said = sentence("scoring_ends_as_training", num_rows_with_another_end=20, other_end="</s>")
    assert said.startswith("fails: 20 of 20 conversations end with </s>") and "chat_template" in said
    said = sentence("pairs_fit_the_model", num_over_length=3, num_same_when_cut=2)
    assert "takes 7 and leaves out 3 over max_length (2 of them" in said and "raise training.max_length" in said


def test_what_the_product_handles_by_itself_passes_and_is_said() -> None:
    assert sentence("template_ignores_the_clock", prints_date="unless given").startswith(
        "ok: training and scoring give"
    )
    assert sentence("one_start_token", rows_by_starts={}, start_token="").startswith("ok: the tokenizer has no")
    assert sentence("one_start_token", rows_by_starts={"0": 20}).startswith("ok: neither")
    assert sentence("one_start_token", rows_by_starts={"0": 20}, writes_start=True).startswith("fails: ")
    assert sentence("one_start_token", rows_by_starts={"0": 2, "1": 18}).startswith(
        "fails: of 20 conversations 2 with 0"
    )


def test_one_fault_is_told_once_and_a_missing_base_is_no_fault() -> None:
    unreadable, missing = Examination(fault="[MODEL_003] no template"), Examination(missing="[DATA_001] nothing there")
    failed = [name for name in INPUT_CHECKS if not judge(name, unreadable, getattr(ChecksSection(), name)).passed]
    assert failed == ["base_can_read_pairs"] and judge(failed[0], unreadable, ANY).sentence == "[MODEL_003] no template"
    assert all(judge(name, missing, ANY).sentence.startswith("not examined: [DATA_001]") for name in INPUT_CHECKS)


def test_an_examination_is_the_same_when_it_is_read_again() -> None:
    found = Examination(**SOUND)
    assert Examination(**json.loads(json.dumps(asdict(found)))) == found


def test_the_account_of_training_is_a_sum_that_ends_in_the_pairs() -> None:
    find = TRAINING_CHECKS["training_pairs_add_up"].find
    finding = find(COUNTS, {"train_pairs": 12})
    assert finding.passed and finding.numbers["data/share_not_trained"] == 2 / 12
    assert (
        finding.sentence
        == "12 training pairs = 7 trained + 1 over length + 1 identical after tokenization + 3 set aside"
    )
    lost = find({**COUNTS, "pairs_trained": 5}, {"train_pairs": 12})
    assert not lost.passed and lost.sentence.endswith("+ 2 that nothing accounts for")
    assert not find({}, {"train_pairs": 12}).passed


@pytest.mark.parametrize(("difference", "passes"), [(0.001, True), (0.02, True), (0.021, False)])
def test_a_difference_counts_in_spreads_of_the_rewards(difference: float, passes: bool) -> None:
    measured = {"conversations": 8, "largest_difference": difference, "spread": 2.0}
    find = TRAINING_CHECKS["rewards_ignore_the_batch"].find
    assert find({"batch_comparison": measured}, 0.01).passed == passes
    constant = {"conversations": 8, "largest_difference": 0.0, "spread": 0.0}
    assert find({"batch_comparison": constant}, 0.01).passed
    assert not find({"batch_comparison": {**constant, "largest_difference": 0.1}}, 0.01).passed
    assert find({}, 0.01).passed  # made by an earlier version


def test_only_a_share_of_pairs_is_tolerated_unless_the_recipe_says_otherwise() -> None:
    section = ChecksSection()
    assert {name: getattr(section, name).severity for name in (*INPUT_CHECKS, *TRAINING_CHECKS)} == {
        "base_can_read_pairs": "error", "one_start_token": "error", "template_ignores_the_clock": "error",
        "pad_is_not_the_end": "error", "reward_is_read_at_the_end": "error", "scoring_ends_as_training": "error",
        "pairs_fit_the_model": "warn", "training_pairs_add_up": "error", "rewards_ignore_the_batch": "error",
    }  # fmt: skip
