"""One gold reward from several scorers, each of which labels by itself."""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations, groupby
from math import nan
from typing import Any

import numpy as np
import numpy.typing as npt

from rm_assets.core.errors import DataError
from rm_assets.core.gold.combining import Rewards, combined, disagreements, standardized
from rm_assets.core.recipe import CombinedGold
from rm_assets.core.records import GoldReward, Response
from rm_assets.core.statistics import spearman
from rm_assets.tasks.gold import classifier, judge, recorded, verifier
from rm_assets.tasks.gold.labels import Labeller, Labels
from rm_assets.tasks.session import Task

Flags = npt.NDArray[np.bool_]
LABELLERS: dict[str, Labeller] = {
    "classifier": classifier.label,
    "verifier": verifier.label,
    "recorded": recorded.label,
    "judge": judge.label,
}
"""Of the kinds of gold that can be one of several scorers."""


def label(task: Task, section: CombinedGold, settings: Mapping[str, Any], responses: Iterable[Response]) -> Labels:
    """The scorers' labels, one after the other, as one. A response that one of them leaves without reward gets none.

    Counts, work and facts are each scorer's own, under its name; `over_length` is of the responses without reward.

    Raises: DataError DATA_014 if a scorer whose rewards are to be standardized gives every response the same.
    """
    account, work, facts, drops_long = Counter[str](), Counter[str](), dict[str, Any](), False
    columns, cuts = [], []
    for scorer, part in zip(section.scorers, settings["scorers"], strict=True):
        labels = LABELLERS[scorer.gold.kind](task, scorer.gold, part["gold"], responses)
        column, cut = _in_place(labels.rewards, responses)
        columns.append(column)
        cuts.append(cut)
        account.update({f"{scorer.name}_{count}": number for count, number in labels.account.items()})
        drops_long = drops_long or "over_length" in labels.account
        work.update({f"{kind} by {scorer.name}": number for kind, number in labels.work.items()})
        facts |= {f"{scorer.name}_{fact}": value for fact, value in labels.facts.items()}
    rewards = np.stack(columns, 1)  # (N, S), NaN where a scorer gives none
    has_all: Flags = ~np.logical_or.reduce(np.isnan(rewards), axis=1)  # (N,)
    truncated: Flags = np.logical_or.reduce(cuts)  # (N,)
    if drops_long:
        account["over_length"] = int((~has_all).sum())
    if not has_all.any():
        return Labels(iter(()), account, work, facts)
    gold = np.full(len(rewards), nan)
    gold[has_all] = _combined(section, rewards[has_all])
    facts |= _facts(section, rewards, has_all, responses)
    return Labels(_rewards(section, responses, rewards, gold, truncated), account, work, facts)


def _in_place(rewards: Iterator[GoldReward], responses: Iterable[Response]) -> tuple[Rewards, Flags]:
    """The reward of each response, NaN where there is none; and whether the scorer saw only its beginning."""
    values, truncated = array("d"), bytearray()
    waiting = next(rewards, None)
    for r in responses:
        found = waiting if waiting is not None and waiting.response_id == r.response_id else None
        values.append(nan if found is None else found.gold_reward)
        truncated.append(found is not None and found.truncated)
        waiting = waiting if found is None else next(rewards, None)
    assert waiting is None, "labels come in the order of the responses"
    return np.frombuffer(values), np.frombuffer(truncated, bool)


def _combined(section: CombinedGold, rewards: Rewards) -> Rewards:
    if section.standardize:
        constant = [s.name for s, spread in zip(section.scorers, np.ptp(rewards, 0), strict=True) if spread == 0]
        if constant:
            raise DataError(
                "DATA_014",
                f"scorer '{constant[0]}' gives all {len(rewards)} responses the same reward",
                why="a constant has no scale that could be brought to standard deviation 1, and tells no response apart",
                fix="remove the scorer from gold.scorers, or correct it",
            )
        rewards = standardized(rewards)
    return combined(rewards, section.combine, [scorer.weight for scorer in section.scorers])


def _facts(section: CombinedGold, rewards: Rewards, has_all: Flags, responses: Iterable[Response]) -> dict[str, Any]:
    """Rank correlation of each two scorers, and the share of pairs within a prompt on which scorers disagree."""
    names = enumerate(scorer.name for scorer in section.scorers)
    facts: dict[str, Any] = {
        f"spearman_{a}_{b}": spearman(rewards[has_all, i].tolist(), rewards[has_all, j].tolist())
        for (i, a), (j, b) in combinations(names, 2)
    }
    num_disagree = num_pairs = start = 0
    for _, group in groupby(r.prompt_id for r in responses):
        stop = start + sum(1 for _ in group)
        found = disagreements(rewards[start:stop][has_all[start:stop]])
        num_disagree, num_pairs, start = num_disagree + found[0], num_pairs + found[1], stop
    return facts | {"share_of_pairs_scorers_disagree_on": round(num_disagree / num_pairs, 4) if num_pairs else None}


def _rewards(
    section: CombinedGold, responses: Iterable[Response], rewards: Rewards, gold: Rewards, truncated: Flags
) -> Iterator[GoldReward]:
    names = [scorer.name for scorer in section.scorers]
    for r, row, value, cut in zip(responses, rewards, gold, truncated, strict=True):
        if not np.isnan(value):
            yield GoldReward(
                **vars(r),
                gold_reward=float(value),
                components=dict(zip(names, row.tolist(), strict=True)),
                truncated=bool(cut),
            )
