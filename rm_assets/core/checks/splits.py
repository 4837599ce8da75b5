"""The checks of splits: at every stage no prompt, opening or group of near-duplicates is on two sides, and none changes its side.

The groups are found again in the texts of each stage; nothing that an earlier stage wrote down about them is believed.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby

from rm_assets.core.checks.finding import DataCheck, Finding
from rm_assets.core.near_duplicates import near_duplicate_groups
from rm_assets.core.prompts import normalise, word_runs
from rm_assets.core.recipe import NearDuplicates
from rm_assets.core.records import GoldReward, Pair, Prompt, prompt_messages

RUN_OF_WORDS = 8
"""Words in a run; two texts that share runs this long were not written apart."""

Side = tuple[str, str]
"""An opening in its normal form, and its split."""


def overlap_of_splits(prompts: Iterable[Prompt], near_duplicates: NearDuplicates | None = None) -> Finding:
    """Passes if no prompt, no two dialogues that begin the same, and no two near-duplicates are in two splits."""
    return change_of_split((), prompts, near_duplicates)


def change_of_split(
    before: Iterable[Prompt], rows: Iterable[Prompt | Pair], near_duplicates: NearDuplicates | None = None
) -> Finding:
    """The same of `rows`, whose splits must also be those of the rows they are made from."""
    num_distinct, num_shared, first = _compare(_sides(before), _sides(rows), near_duplicates)
    sentence = (
        f"{num_shared} prompts are in two splits, the first is {first!r:.80}"
        if num_shared
        else f"{num_distinct} distinct prompts, none in two splits"
    )
    return Finding(not num_shared, sentence, {"data/num_prompts_in_two_splits": num_shared})


def evaluation_of_trained(
    trained_pair_ids: Iterable[str],
    pairs: Iterable[Pair],
    rewards: Iterable[GoldReward],
    near_duplicates: NearDuplicates | None = None,
) -> Finding:
    """Passes if no pair that was trained on, whatever its split is called, is of a prompt that evaluation uses."""
    trained, found = set(trained_pair_ids), set[str]()

    def trained_pairs() -> Iterator[Pair]:
        for pair in pairs:
            if pair.pair_id in trained:
                found.add(pair.pair_id)
                yield pair

    evaluated = ((said, "evaluation") for said, split in _sides(rewards) if split == "test")
    used = ((said, "training") for said, _ in _sides(trained_pairs()))
    num_distinct, num_shared, first = _compare(evaluated, used, near_duplicates)
    num_unknown = len(trained - found)
    sentence = f"{num_distinct} distinct prompts of training and evaluation, {num_shared} in both"
    sentence += f", the first is {first!r:.80}" if num_shared else ""
    sentence += f"; {num_unknown} trained pairs are not in the table of pairs" if num_unknown else ""
    return Finding(
        bool(trained) and not num_shared and not num_unknown,
        sentence,
        {"data/num_trained_prompts_in_evaluation": num_shared, "data/num_trained_pairs_unknown": num_unknown},
    )


def _sides(rows: Iterable[Prompt | Pair]) -> Iterator[Side]:
    """The side of each row; of rows in sequence that say the same, one."""
    for (said, split), _ in groupby((_said_first(row), row.split) for row in rows):
        yield normalise(said), split


def _said_first(row: Prompt | Pair) -> str:
    messages = row.chosen if isinstance(row, Pair) else prompt_messages(row)
    return next(message["content"] for message in messages if message["role"] == "user")


def _compare(
    known: Iterable[Side], sides: Iterable[Side], near_duplicates: NearDuplicates | None
) -> tuple[int, int, str]:
    """The number of distinct groups, of those `sides` that contradict `known` or an earlier one, and the first of these."""
    groups: Mapping[str, str] = {}
    if near_duplicates is not None:
        known, sides = list(dict.fromkeys(known)), list(dict.fromkeys(sides))
        groups = near_duplicate_groups((said for said, _ in [*known, *sides]), near_duplicates)
    split_of: dict[bytes, str] = {}
    for said, split in known:
        split_of.setdefault(_key(groups.get(said, said)), split)
    num_shared, first = 0, ""
    for said, split in sides:
        if split_of.setdefault(_key(groups.get(said, said)), split) != split:
            num_shared, first = num_shared + 1, first or said
    return len(split_of), num_shared, first


def _key(text: str) -> bytes:
    """16 bytes, whatever the length of the text."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def near_training(prompts: Iterable[Prompt], limit: float) -> Finding:
    """Passes if at most a share `limit` of the test prompts of 8 words or more has most runs of 8 words in training prompts.

    Stricter about the words and milder about the number than Brown et al. (2020, appendix C), for whom one shared run of 13
    words is a collision.
    """
    num_short, tests = 0, list[tuple[str, set[int]]]()
    for prompt in prompts:
        if prompt.split != "test":
            continue
        if len(normalise(prompt.prompt).split()) < RUN_OF_WORDS:
            num_short += 1
        else:
            tests.append((prompt.prompt, word_runs(prompt.prompt, RUN_OF_WORDS)))
    tested = {run for _, runs in tests for run in runs}
    trained = {
        run
        for prompt in prompts
        if prompt.split != "test"
        for run in word_runs(prompt.prompt, RUN_OF_WORDS)
        if run in tested
    }
    near = [text for text, runs in tests if 2 * len(runs & trained) > len(runs)]
    share = len(near) / len(tests) if tests else 0.0
    example = f", the first is {near[0]!r:.80}" if near else ""
    return Finding(
        share <= limit,
        f"{share:.1%} of {len(tests)} test prompts ({len(near)}) are mostly made of runs of {RUN_OF_WORDS} words that "
        f"training prompts have{example}; {num_short} more are too short to judge",
        {"data/share_near_training": share, "data/num_test_prompts_too_short": num_short},
    )


SPLIT_CHECKS: dict[str, DataCheck] = {
    "splits_are_disjoint": DataCheck("prompts", ("prompts", "near_duplicates"), overlap_of_splits),
    "test_prompts_are_new": DataCheck("prompts", ("prompts",), near_training),
    "responses_stay_in_their_split": DataCheck(
        "sampled_responses", ("prompts", "responses", "near_duplicates"), change_of_split
    ),
    "rewards_stay_in_their_split": DataCheck(
        "gold_rewards", ("responses", "rewards", "near_duplicates"), change_of_split
    ),
    "pairs_stay_in_their_split": DataCheck("implicit_pairs", ("rewards", "pairs", "near_duplicates"), change_of_split),
    "evaluation_is_not_trained_on": DataCheck(
        "reward_model", ("trained_pair_ids", "pairs", "rewards", "near_duplicates"), evaluation_of_trained
    ),
}
"""By name; severity, limit and description are those of the recipe's section `checks`."""
