"""Implicit pairs: two responses to one prompt, ordered by gold reward.

"Implicit" because nobody compared the two: the preference follows from the rewards that each got alone. A candidate is what
the pair policy proposes; every candidate is kept or counted with the one reason why not.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import combinations, pairwise

from rm_assets.core.digests import pair_id
from rm_assets.core.recipe import PairsSection
from rm_assets.core.records import GoldReward, Pair, conversation

REASONS = ("tie", "below_min_margin", "identical_text")


def candidates(rewards: list[GoldReward], policy: str) -> Iterator[tuple[GoldReward, GoldReward]]:
    """The two responses of each candidate pair of one prompt, better first (ties in order of their sample index).

    best_worst: one for K >= 2; all: K (K - 1) / 2; adjacent: the K - 1 neighbours in rank.
    """
    ranked = sorted(rewards, key=lambda r: (-r.gold_reward, r.sample_index))
    if policy == "all":
        yield from combinations(ranked, 2)
    elif policy == "adjacent":
        yield from pairwise(ranked)
    elif len(ranked) > 1:
        yield ranked[0], ranked[-1]


def make_pairs(groups: Iterable[list[GoldReward]], section: PairsSection) -> tuple[list[Pair], Counter[str]]:
    """The pairs of all prompts (one list of rewards a prompt), and the account: candidates = kept + the reasons."""
    pairs: list[Pair] = []
    account: Counter[str] = Counter(candidates=0, kept=0, **dict.fromkeys(REASONS, 0))
    for rewards in groups:
        for better, worse in candidates(rewards, section.policy):
            account["candidates"] += 1
            margin = round(better.gold_reward - worse.gold_reward, 9)  # 0.5 - 0.4 is no less than 0.1
            if better.response == worse.response:
                account["identical_text"] += 1
            elif margin == 0:
                account["tie"] += 1
            elif margin < section.min_margin:
                account["below_min_margin"] += 1
            else:
                account["kept"] += 1
                pairs.append(_pair(better, worse, margin))
    return pairs, account


def _pair(better: GoldReward, worse: GoldReward, margin: float) -> Pair:
    return Pair(
        pair_id=pair_id(better.response_id, worse.response_id),
        prompt_id=better.prompt_id,
        source=better.source,
        split=better.split,
        chosen=conversation(better.prompt, better.system, better.response),
        rejected=conversation(worse.prompt, worse.system, worse.response),
        chosen_id=better.response_id,
        rejected_id=worse.response_id,
        chosen_gold_reward=better.gold_reward,
        rejected_gold_reward=worse.gold_reward,
        gold_margin=margin,
    )
