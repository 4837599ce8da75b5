"""The logic of the asset checks: data in, one finding out."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from rm_assets.core.pairing import REASONS
from rm_assets.core.prompts import opening
from rm_assets.core.records import GoldReward, Prompt, Response


@dataclass(frozen=True)
class Finding:
    """Whether a check passed, the sentence that a person reads, and its numbers by metadata key."""

    passed: bool
    sentence: str
    numbers: dict[str, int | float] = field(default_factory=dict)


def overlap_of_splits(prompts: Iterable[Prompt]) -> Finding:
    """Passes if no prompt, and no two dialogues that begin the same, are in two splits."""
    split_of: dict[str, str] = {}
    shared = [p.prompt for p in prompts if split_of.setdefault(opening(p), p.split) != p.split]
    sentence = (
        f"{len(shared)} prompts are in two splits, the first is {shared[0]!r:.80}"
        if shared
        else f"{len(split_of)} distinct prompts, none in two splits"
    )
    return Finding(not shared, sentence, {"data/num_prompts_in_two_splits": len(shared)})


def order_of_rewards(responses: Iterable[Response], rewards: Iterable[GoldReward]) -> Finding:
    """Passes if the two tables name the same responses in the same order and every reward is finite."""
    num_rows = num_out_of_place = num_not_finite = 0
    for response, reward in zip_longest(responses, rewards):
        num_rows += 1
        same = (
            response is not None
            and reward is not None
            and (response.response_id, response.response) == (reward.response_id, reward.response)
        )
        num_out_of_place += not same
        num_not_finite += reward is not None and not math.isfinite(reward.gold_reward)
    return Finding(
        num_rows > 0 and not num_out_of_place and not num_not_finite,
        f"{num_rows} rows, {num_out_of_place} out of place, {num_not_finite} not finite",
        {"data/num_rewards_out_of_place": num_out_of_place, "data/num_rewards_not_finite": num_not_finite},
    )


def account_of_pairs(counts: Mapping[str, int]) -> Finding:
    """Passes if candidates = pairs + the reasons for loss."""
    candidates, pairs = counts.get("candidates", 0), counts.get("pairs", 0)
    lost = {reason: counts.get(reason, 0) for reason in REASONS}
    sentence = f"{candidates} candidates = {pairs} pairs + " + " + ".join(f"{n} {reason}" for reason, n in lost.items())
    return Finding(
        candidates > 0 and candidates == pairs + sum(lost.values()),
        sentence,
        {"data/num_pairs_unaccounted": candidates - pairs - sum(lost.values())},
    )


def advantage_over_length(report: Mapping[str, Any]) -> Finding:
    """Passes if the model's advantage over the length baseline is above 0 by its whole interval."""
    advantage = report["length_baseline"]["model_advantage"]
    sentence = f"match rate minus length baseline: {advantage['value']:.3f} ({advantage['low']:.3f} to {advantage['high']:.3f}, n = {advantage['n']})"
    return Finding(
        advantage["low"] > 0,
        sentence,
        {"rm/advantage_over_length": advantage["value"], "rm/advantage_over_length_low": advantage["low"]},
    )
