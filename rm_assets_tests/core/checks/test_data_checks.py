"""Planted faults: each makes the declared checks fail and no other; on sound data none fails."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from rm_assets.core.checks.data import DATA_CHECKS
from rm_assets.core.checks.drift import DRIFT_CHECKS
from rm_assets.core.checks.finding import EarlierTable
from rm_assets.core.checks.inputs import INPUT_CHECKS, TRAINING_CHECKS
from rm_assets.core.checks.splits import SPLIT_CHECKS, near_training
from rm_assets.core.pairing import by_prompt, make_pairs
from rm_assets.core.recipe import ChecksSection, LimitedCheck, NearDuplicates, PairsSection, ShareCheck
from rm_assets.core.records import GoldReward, Pair, Prompt, Response, conversation

NUM_TRAIN, NUM_TEST = 450, 40
WORDS = [
    "apple",
    "pear",
    "plum",
    "fig",
    "date",
    "lime",
    "kiwi",
    "mango",
    "peach",
    "grape",
    "melon",
    "berry",
    "olive",
    "quince",
    "papaya",
    "cherry",
]
Tables = dict[str, Any]
ALL_CHECKS = {**SPLIT_CHECKS, **DATA_CHECKS, **DRIFT_CHECKS}


def text(number: int, length: int) -> str:
    """Words that no other number has in this order."""
    return " ".join(
        WORDS[(number * 7 + step * step + number // (step + 1)) % len(WORDS)] + str(number + step)
        for step in range(length)
    )


def sound() -> Tables:
    """Tables of all four assets: four responses a prompt with distinct gold rewards, whichever is longer."""
    prompts, responses, rewards = [], [], []
    for number in range(NUM_TRAIN + NUM_TEST):
        split = "train" if number < NUM_TRAIN else "test"
        values = {"prompt_id": f"p{number}", "prompt": text(number * 50, 12), "system": None, "reference": None,
                  "source": f"s{number % 2}", "split": split, "external_id": None, "row": number}  # fmt: skip
        prompts.append(Prompt(**values))
        for index in range(4):
            row = Response(
                **values, response_id=f"r{number}.{index}", sample_index=index, response=text(number + index, 3 + (number + index) % 4),
                model="m", seed=1, num_tokens=5, finished=True,
            )  # fmt: skip
            responses.append(row)
            rewards.append(GoldReward(**vars(row), gold_reward=float((number + 3 * index) % 4)))
    return with_pairs({"prompts": prompts, "responses": responses, "rewards": rewards, "near_duplicates": None})


def with_pairs(tables: Tables, section: PairsSection = PairsSection()) -> Tables:  # noqa: B008 - frozen
    stream, account = make_pairs(by_prompt(tables["rewards"]), section)
    pairs = list(stream)
    trained = [p.pair_id for p in pairs if p.split == "train"]
    counts = dict(account) | {"pairs": account["kept"], "train_pairs": len(trained)}
    counts |= {"gold_rewards": len(tables["rewards"]), "truncated": 0, "over_length": 0}
    counts |= {"judged_pairs": 100, "unreadable_judgements": 4, "unreadable_pairs": 4, "orders_disagree": 38}
    return tables | {"pairs": pairs, "trained_pair_ids": trained, "counts": counts, "pairs_section": section}


def failing(tables: Tables) -> set[str]:
    """The checks that fail at the limits that every recipe begins with."""
    failed = set()
    for name, check in ALL_CHECKS.items():
        settings = getattr(ChecksSection(), name)
        finding = check.find(*(tables.get(source) for source in check.reads), *settings.limits)
        assert finding.sentence and all(math.isfinite(number) for number in finding.numbers.values())
        if not finding.passed:
            failed.add(name)
    return failed


def change(tables: Tables, table: str, edit: Callable[[Any], Any], every: int = 1) -> Tables:
    """Edits every n-th row; what is made of the table stays as it was."""
    rows = [edit(row) if place % every == 0 else row for place, row in enumerate(tables[table])]
    return tables | {table: rows}


def relabelled(tables: Tables, gold: Callable[[GoldReward], float]) -> Tables:
    """Other gold rewards, and the pairs that follow from them."""
    return with_pairs(change(tables, "rewards", lambda r: replace(r, gold_reward=gold(r))))


def swapped_rewards(tables: Tables) -> Tables:
    rows = list(tables["rewards"])
    rows[0], rows[1] = rows[1], rows[0]
    return tables | {"rewards": rows}


def flipped(pair: Pair) -> Pair:
    """The label of a pair turned round, its gold rewards left."""
    return replace(pair, chosen=pair.rejected, rejected=pair.chosen)


def leaked(tables: Tables) -> Tables:
    """Test prompts that are training prompts with other first words."""
    train = [p.prompt for p in tables["prompts"] if p.split == "train"]
    numbers = iter(range(len(tables["prompts"])))
    return change(
        tables, "prompts", lambda p: replace(p, prompt=f"Please {train[next(numbers)]}") if p.split == "test" else p
    )  # fmt: skip


def in_two_splits(tables: Tables) -> Tables:
    rows = tables["prompts"]
    return tables | {"prompts": [*rows[:-1], replace(rows[-1], prompt=f"  {rows[0].prompt.upper()} ")]}


def nearly_in_two_splits(tables: Tables) -> Tables:
    """The last test prompt everywhere that of a training prompt with one word more: 11 of 12 runs of two words are the same."""
    near = f"{tables['prompts'][0].prompt} indeed"

    def said(row: Any) -> Any:
        return replace(row, prompt=near) if row.prompt_id == f"p{NUM_TRAIN + NUM_TEST - 1}" else row

    changed = {name: [said(row) for row in tables[name]] for name in ("prompts", "responses", "rewards")}
    return with_pairs(tables | changed) | {"near_duplicates": NearDuplicates(words=2)}


def other_split(tables: Tables, table: str) -> Tables:
    """The rows of the last test prompt in the training split, from this table on."""
    return change(
        tables, table, lambda r: replace(r, split="train") if r.prompt_id == tables[table][-1].prompt_id else r
    )


def pair_in_two_splits(tables: Tables) -> Tables:
    return tables | {"pairs": [*tables["pairs"][:-1], replace(tables["pairs"][-1], chosen=tables["pairs"][0].chosen)]}


def trained_on_a_test_pair(tables: Tables) -> Tables:
    return tables | {"trained_pair_ids": [*tables["trained_pair_ids"], tables["pairs"][-1].pair_id]}


def longer_is_better(tables: Tables) -> Tables:
    return relabelled(tables, lambda r: len(r.response) + r.sample_index / 10)


def counted(tables: Tables, **counts: int) -> Tables:
    """Other counts, everything else as it was."""
    return tables | {"counts": tables["counts"] | counts}


def few(tables: Tables) -> Tables:
    kept = {f"p{number}" for number in (*range(100), *range(NUM_TRAIN, NUM_TRAIN + NUM_TEST))}
    rows = {name: [r for r in tables[name] if r.prompt_id in kept] for name in ("prompts", "responses", "rewards")}
    return with_pairs(tables | rows)


def with_responses(tables: Tables, edit: Callable[[str], str], every: int) -> Tables:
    """Every n-th response edited, and what follows from it."""
    for table in ("responses", "rewards"):
        tables = change(tables, table, lambda r: replace(r, response=edit(r.response)), every)
    return with_pairs(tables)


def before(tables: Tables, table: str, edit: Callable[[Any], Any]) -> Tables:
    """An earlier version of a table."""
    return tables | {f"earlier {table}": EarlierTable(change(tables, table, edit)[table], "2026-01-01T12:00:00+00:00")}


FAULTS: dict[str, tuple[Callable[[Tables], Tables], set[str]]] = {
    "a prompt in two splits": (in_two_splits, {"splits_are_disjoint"}),
    "a near-duplicate in two splits": (nearly_in_two_splits, {
        "splits_are_disjoint", "responses_stay_in_their_split", "rewards_stay_in_their_split",
        "pairs_stay_in_their_split", "evaluation_is_not_trained_on",
    }),
    "responses that changed their split": (
        lambda t: other_split(t, "responses"), {"responses_stay_in_their_split", "rewards_stay_in_their_split"},
    ),
    "rewards that changed their split": (
        lambda t: other_split(t, "rewards"), {"rewards_stay_in_their_split", "pairs_stay_in_their_split"},
    ),
    "pairs that changed their split": (lambda t: other_split(t, "pairs"), {"pairs_stay_in_their_split"}),
    "a test pair that was trained on": (trained_on_a_test_pair, {"evaluation_is_not_trained_on"}),
    "a trained pair that nobody knows": (
        lambda t: t | {"trained_pair_ids": [*t["trained_pair_ids"], "unknown"]}, {"evaluation_is_not_trained_on"},
    ),
    "leaked test prompts": (leaked, {"test_prompts_are_new"}),
    "one source for nearly all": (
        lambda t: change(t, "prompts", lambda p: replace(p, source="s0" if p.row % 50 else "s1")), {"sources_are_balanced"},
    ),
    "empty responses": (
        lambda t: change(change(t, "responses", lambda r: replace(r, response=" "), 20), "rewards", lambda r: replace(r, response=" "), 20),
        {"responses_are_not_empty", "response_lengths_are_usual", "pairs_agree_with_gold"},
    ),
    "responses cut by the limit": (lambda t: change(t, "responses", lambda r: replace(r, finished=False), 3), {"responses_are_whole"}),
    "swapped rewards": (swapped_rewards, {"rewards_follow_responses"}),
    "a reward missing": (
        lambda t: t | {"rewards": t["rewards"][:-1]}, {"rewards_follow_responses", "pairs_agree_with_gold", "pairs_add_up"},
    ),
    "a reward that is no number": (
        lambda t: t | {"rewards": [replace(t["rewards"][0], gold_reward=math.nan), *t["rewards"][1:]]},
        {"rewards_follow_responses", "pairs_agree_with_gold"},
    ),
    "responses too long for gold": (lambda t: counted(t, truncated=40), {"gold_saw_whole_responses"}),
    "responses too long for gold, dropped": (
        lambda t: counted(t | {"rewards": t["rewards"][:-40]}, gold_rewards=1920, over_length=40),
        {"gold_saw_whole_responses", "pairs_agree_with_gold", "pairs_add_up"},
    ),
    "a judge that prefers what stands first": (lambda t: counted(t, orders_disagree=39), {"judge_agrees_with_itself"}),
    "a judge that chats": (lambda t: counted(t, unreadable_judgements=5), {"judge_is_readable"}),
    "gold that says the same of all": (
        lambda t: relabelled(t, lambda r: 1.0 if r.row % 10 < 6 else float(r.sample_index)), {"gold_tells_responses_apart", "ties_are_few"},
    ),
    "a pair that no reason accounts for": (lambda t: t | {"counts": t["counts"] | {"pairs": t["counts"]["pairs"] - 1}}, {"pairs_add_up"}),
    "a table of pairs that was cut": (
        lambda t: t | {"pairs": t["pairs"][:-7]}, {"pairs_add_up"},
    ),
    "a candidate that was never counted": (
        lambda t: counted(t, candidates=t["counts"]["candidates"] - 1, pairs=t["counts"]["pairs"] - 1) | {"pairs": t["pairs"][:-1]},
        {"pairs_add_up"},
    ),
    "another prompt before the responses of a pair": (
        lambda t: change(t, "pairs", lambda p: replace(p, chosen=conversation("", "Be bad.")[:1] + p.chosen), 50), {"pairs_agree_with_gold"},
    ),
    "another margin than the gold rewards have": (
        lambda t: change(t, "pairs", lambda p: replace(p, gold_margin=p.gold_margin + 0.001), 50), {"pairs_agree_with_gold"},
    ),
    "a quarter of the labels flipped": (lambda t: change(t, "pairs", flipped, 4), {"pairs_agree_with_gold"}),
    "another gold reward in the pairs": (
        lambda t: change(t, "pairs", lambda p: replace(p, chosen_gold_reward=p.chosen_gold_reward + 1), 50), {"pairs_agree_with_gold"},
    ),
    "a pair in two splits": (pair_in_two_splits, {"pairs_stay_in_their_split", "pairs_agree_with_gold"}),
    "too few pairs": (few, {"enough_pairs"}),
    "duplicate responses": (
        lambda t: with_pairs(
            change(change(t, "rewards", lambda r: replace(r, response="the same")if r.sample_index > 1 else r),
                   "responses", lambda r: replace(r, response="the same") if r.sample_index > 1 else r),
            PairsSection(duplicates="keep"),
        ),
        {"pairs_are_distinct"},
    ),
    "the longer response is always better": (longer_is_better, {"length_does_not_decide"}),
    "prompts a third as long before": (
        lambda t: before(t, "prompts", lambda p: replace(p, prompt=p.prompt[: len(p.prompt) // 3])), {"prompts_have_not_drifted"},
    ),
    "another mixture of sources before": (
        lambda t: before(t, "prompts", lambda p: replace(p, source="s0" if p.row % 10 else "s1")), {"prompts_have_not_drifted"},
    ),
    "responses twice as long before": (
        lambda t: before(t, "responses", lambda r: replace(r, response=r.response * 2)), {"responses_have_not_drifted"},
    ),
    "lower gold rewards before": (
        lambda t: before(t, "rewards", lambda r: replace(r, gold_reward=r.gold_reward - 2)), {"rewards_have_not_drifted"},
    ),
    "wider margins before": (
        lambda t: before(t, "pairs", lambda p: replace(p, gold_margin=p.gold_margin * 10)), {"pairs_have_not_drifted"},
    ),
    "some prompts far too long": (lambda t: change(t, "prompts", lambda p: replace(p, prompt=p.prompt * 40), 25), {"prompt_lengths_are_usual"}),
    "some responses far too long": (lambda t: with_responses(t, lambda text: text * 100, 25), {"response_lengths_are_usual"}),
    "some rewards far too high": (
        lambda t: relabelled(t, lambda r: r.gold_reward + 1000 * (r.row % 8 == r.sample_index == 0)), {"rewards_are_usual"},
    ),
}  # fmt: skip


def test_no_check_fails_on_sound_data() -> None:
    assert failing(sound()) == set()


def test_no_check_fails_where_the_version_before_was_the_same() -> None:
    tables = sound()
    for table in ("prompts", "responses", "rewards", "pairs"):
        tables |= before(tables, table, lambda row: row)
    assert failing(tables) == set()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_fails_its_checks_and_no_other(fault: str) -> None:
    plant, expected = FAULTS[fault]
    assert failing(plant(sound())) == expected


def test_a_response_without_reward_needs_a_reason() -> None:
    tables = sound()
    some = [r for number, r in enumerate(tables["rewards"]) if number not in (0, 7, 8)]
    check = DATA_CHECKS["rewards_follow_responses"]
    assert check.find(tables["responses"], some, {"responses_pending": 2, "over_length": 1}).passed
    assert not check.find(tables["responses"], some, {"responses_pending": 2}).passed
    assert not check.find(tables["responses"], some, {"responses_pending": 4}).passed
    assert not check.find(tables["responses"], some[::-1], {"responses_pending": 3}).passed


def test_pairs_of_equal_length_say_nothing_of_length() -> None:
    pair = sound()["pairs"][0]

    def sides(chosen: str, rejected: str) -> Pair:
        return replace(pair, chosen=conversation("q", None, chosen), rejected=conversation("q", None, rejected))

    pairs = [sides("longer", "short"), sides("short", "longer"), *[sides("same", "size")] * 8]
    finding = DATA_CHECKS["length_does_not_decide"].find(pairs, 0.5)
    assert finding.passed and finding.numbers == {"data/share_chosen_longer_in_training": 0.5}
    assert finding.sentence == "the longer response is chosen in 50.0% of 2 training pairs of unequal length"


def test_without_a_judge_its_checks_pass_and_say_so() -> None:
    for name in ("judge_agrees_with_itself", "judge_is_readable"):
        finding = DATA_CHECKS[name].find({"gold_rewards": 3}, 0.0)
        assert finding.passed and finding.sentence == "no judge"


def test_of_several_judges_the_worst_decides() -> None:
    sound = {"judged_pairs": 100, "unreadable_judgements": 0, "unreadable_pairs": 0, "orders_disagree": 6}
    counts = {f"good_{name}": number for name, number in sound.items()}
    counts |= {f"bad_{name}": n for name, n in {**sound, "unreadable_judgements": 20, "orders_disagree": 70}.items()}
    for check, limit, words in (
        ("judge_agrees_with_itself", 0.4, "70 (70.0%)"),
        ("judge_is_readable", 0.06, "20 of 200"),
    ):
        finding = DATA_CHECKS[check].find(counts, limit)
        assert not finding.passed and words in finding.sentence and "the judge 'bad'" in finding.sentence


def test_every_check_has_a_fault_that_it_finds_and_an_entry_in_the_recipe() -> None:
    assert set().union(*(expected for _, expected in FAULTS.values())) == set(ALL_CHECKS)
    assert set(ChecksSection.model_fields) == {*ALL_CHECKS, *INPUT_CHECKS, *TRAINING_CHECKS}
    assert all(
        str(ChecksSection.model_fields[name].description).startswith(f"{check.asset}: ")
        for name, check in (ALL_CHECKS | TRAINING_CHECKS).items()
    )


@pytest.mark.parametrize(
    ("counts", "end"),
    [
        ({"truncated": 0, "over_length": 0}, "0 of 10 (0.0%) responses were too long for the gold model"),
        ({"truncated": 2}, "too long for the gold model, which saw the beginning of 2"),
        ({"over_length": 2}, "too long for the gold model, which left 2 without reward"),
        ({"truncated": 1, "over_length": 1}, "which saw the beginning of 1 and left 1 without reward"),
    ],
)
def test_only_what_became_of_too_long_responses_is_named(counts: dict[str, int], end: str) -> None:
    found = ALL_CHECKS["gold_saw_whole_responses"].find({"gold_rewards": 10, **counts}, 0.5)
    assert found.sentence.endswith(end)


def test_a_check_without_anything_to_look_at_says_so() -> None:
    assert not ALL_CHECKS["judge_is_readable"].find({}, 0.5).looked
    assert not ALL_CHECKS["prompts_have_not_drifted"].find((), None, 0.5, 0.5).looked
    assert ALL_CHECKS["gold_saw_whole_responses"].find({"gold_rewards": 10}, 0.5).looked


def test_a_recipe_changes_a_limit_and_keeps_the_severity() -> None:
    section = ChecksSection.model_validate({"ties_are_few": {"limit": 0.9}, "enough_pairs": {"severity": "error"}})
    assert section.ties_are_few == ShareCheck(severity="warn", limit=0.9)
    assert section.enough_pairs == LimitedCheck(severity="error", limit=1000)


def test_pairs_of_a_dialogue_are_judged_by_what_was_said_first() -> None:
    history = conversation("opening", None, "hm")
    prompt = Prompt(prompt_id="p", prompt="yes", system=None, reference=None, source="s", split="test", external_id=None, row=0, history=history)  # fmt: skip
    other = replace(prompt, prompt_id="q", history=conversation("another opening", None, "hm"), split="train")
    disjoint = ALL_CHECKS["splits_are_disjoint"].find
    assert disjoint([prompt, other]).passed
    assert not disjoint([prompt, replace(other, history=history)]).passed


def test_near_training_counts_runs_of_eight_words() -> None:
    def prompt(said: str, split: str) -> Prompt:
        return Prompt(prompt_id=said, prompt=said, system=None, reference=None, source="s", split=split, external_id=None, row=0)  # fmt: skip

    train = prompt("a b c d e f g h i j", "train")  # three runs
    near, far = prompt("a b c d e f g h i x", "test"), prompt("x b c d e f g h i y", "test")
    # Of the three runs of `near`, the first two are known; of those of `far`, one.
    assert near_training([train, near], 0.0).numbers["data/share_near_training"] == 1.0
    assert near_training([train, far], 0.0).numbers["data/share_near_training"] == 0.0
    assert near_training([train, near, far], 0.5).passed
    # Prompts of fewer words cannot be judged, so they cannot hide the others.
    short = [prompt(f"short {number}", "test") for number in range(96)]
    found = near_training([train, near, *short], 0.05)
    assert not found.passed
    assert found.numbers == {"data/share_near_training": 1.0, "data/num_test_prompts_too_short": 96}
    assert "100.0% of 1 test prompts" in found.sentence and "96 more are too short to judge" in found.sentence
