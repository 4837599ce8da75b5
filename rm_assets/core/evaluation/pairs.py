"""What a reward model is judged on: scored test responses, and the pairs of them that are compared."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

from rm_assets.core import digests
from rm_assets.core.errors import DataError, ModelError
from rm_assets.core.recipe import EvaluationSection
from rm_assets.core.records import GoldReward, Pair

ScoredPair = tuple[Pair, float, float]
"""A training pair, the reward of its chosen and the reward of its rejected response."""
NO_COMPONENTS = "none recorded"
"""What pairs differ in whose gold rewards have no components."""


@dataclass(frozen=True, kw_only=True)
class ScoredResponse:
    """A labelled response with the model's `reward` (log odds, up to a constant) and the tokens the model read."""

    gold: GoldReward
    reward: float
    num_tokens: int


@dataclass(frozen=True, kw_only=True)
class ComparedPair:
    """Two responses to a test prompt; `chosen` has the higher gold reward."""

    chosen: ScoredResponse
    rejected: ScoredResponse

    @property
    def prompt_id(self) -> str:
        """The prompt that both respond to."""
        return self.chosen.gold.prompt_id

    @property
    def reward_margin(self) -> float:
        """Reward of chosen minus reward of rejected, in log odds; below 0 the model contradicts gold."""
        return self.chosen.reward - self.rejected.reward

    @property
    def gold_margin(self) -> float:
        """Gold reward of chosen minus that of rejected, in units of the gold reward; above 0."""
        return self.chosen.gold.gold_reward - self.rejected.gold.gold_reward

    @property
    def difference(self) -> str:
        """Names of the verifier's components in which the two differ, joined by "+"."""
        one, two = self.chosen.gold.components, self.rejected.gold.components
        if not one or not two:
            return NO_COMPONENTS
        names = sorted(name for name in {*one, *two} if one.get(name) != two.get(name))
        return "+".join(names) or "no component differs"


def group_by_prompt(test: Sequence[ScoredResponse]) -> list[list[ScoredResponse]]:
    """The responses of each prompt in order of their index, prompts in order of first appearance."""
    groups: dict[str, list[ScoredResponse]] = {}
    for response in test:
        groups.setdefault(response.gold.prompt_id, []).append(response)
    return [sorted(group, key=lambda r: (r.gold.sample_index, r.gold.response_id)) for group in groups.values()]


def comparable(groups: Sequence[Sequence[ScoredResponse]]) -> list[list[ScoredResponse]]:
    """The groups again, each cut into the responses whose gold rewards compare."""
    parts: dict[tuple[str, str | None], list[ScoredResponse]] = {}
    for group in groups:
        for response in group:
            parts.setdefault((response.gold.prompt_id, response.gold.comparison), []).append(response)
    return list(parts.values())


class Labelled(Protocol):
    """A response with its gold reward."""

    @property
    def prompt_id(self) -> str: ...
    @property
    def response_id(self) -> str: ...
    @property
    def sample_index(self) -> int: ...
    @property
    def comparison(self) -> str | None: ...
    @property
    def gold_reward(self) -> float: ...


def draw_pairs(rows: Sequence[Labelled], settings: EvaluationSection) -> tuple[list[tuple[int, int]], int]:
    """Places in `rows` of (better, worse) for each pair that models are judged on, and the number of gold ties left out.

    With "one_random" the pair of a prompt depends on the seed, the prompt's id and its number of responses alone.
    """
    places: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault(row.prompt_id, []).append(place)
    pairs: list[tuple[int, int]] = []
    num_ties = 0
    for prompt_id, of_prompt in places.items():
        of_prompt.sort(key=lambda place: (rows[place].sample_index, rows[place].response_id))
        candidates = [(a, b) for a, b in combinations(of_prompt, 2) if rows[a].comparison == rows[b].comparison]
        if settings.pairs == "one_random" and candidates:
            drawn = digests.unit_interval("test pair", settings.seed, prompt_id)
            candidates = [candidates[int(drawn * len(candidates))]]
        for one, two in candidates:
            margin = rows[one].gold_reward - rows[two].gold_reward
            num_ties += margin == 0
            if margin:
                pairs.append((one, two) if margin > 0 else (two, one))
    return pairs, num_ties


def compare_pairs(test: Sequence[ScoredResponse], settings: EvaluationSection) -> tuple[list[ComparedPair], int]:
    """The pairs that the model is judged on, and the number of gold ties left out.

    Raises: DataError DATA_004 without test responses, DATA_005 without a pair; ModelError MODEL_006, DataError
    DATA_008 for a reward or gold reward that is not finite; ValueError for a response that is not of the test split.
    """
    _check(test)
    drawn, num_ties = draw_pairs([response.gold for response in test], settings)
    pairs = [ComparedPair(chosen=test[better], rejected=test[worse]) for better, worse in drawn]
    if not pairs:
        raise DataError(
            "DATA_005",
            "no test pair is left to judge the model on",
            why=f"{num_ties} pairs have equal gold rewards" if num_ties else "no test prompt has two responses",
            fix="raise sampling.num_test_responses, use more test prompts, set evaluation.pairs to 'all', "
            "or choose a gold scorer that tells responses apart",
        )
    return pairs, num_ties


def _check(test: Sequence[ScoredResponse]) -> None:
    """Raises what `compare_pairs` says of its input."""
    if not test:
        raise DataError(
            "DATA_004",
            "the test split has no responses",
            why="the match rate is measured on test prompts only",
            fix="give a larger prompts.split.test, more prompts, or prompts.test",
        )
    for response in test:
        gold = response.gold
        name = f"response {gold.response_id} to prompt {gold.prompt_id}"
        if gold.split != "test":
            raise ValueError(f"{name} is of split {gold.split!r}; pass test responses only")
        if not math.isfinite(response.reward):
            raise ModelError(
                "MODEL_006", f"{name} has the reward {response.reward}", fix="lower training.learning_rate"
            )
        if not math.isfinite(gold.gold_reward):
            raise DataError("DATA_008", f"{name} has the gold reward {gold.gold_reward}", fix="correct or drop the row")
