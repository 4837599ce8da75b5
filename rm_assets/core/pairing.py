"""Implicit pairs: two responses to one prompt, ordered by gold reward.

"Implicit" because nobody compared the two: the preference follows from the rewards that each got alone. A candidate is what
the pair policy proposes; every candidate is kept or counted with the one reason why not.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import combinations, groupby, pairwise

from rm_assets.core.digests import pair_id
from rm_assets.core.errors import DataError
from rm_assets.core.recipe import PairsSection
from rm_assets.core.records import GoldReward, Pair, response_messages

REASONS = ("tie", "below_min_margin", "identical_text", "duplicate")


def candidates(rewards: list[GoldReward], policy: str) -> Iterator[tuple[GoldReward, GoldReward]]:
    """The two responses of each candidate pair of one prompt, better first (ties in order of their sample index).

    best_worst: one for K >= 2; all: K (K - 1) / 2; adjacent: the K - 1 neighbours in rank. Where rewards come from several
    comparisons, each of them counts as a prompt of its own.
    """
    comparisons: dict[str | None, list[GoldReward]] = {}
    for reward in rewards:
        comparisons.setdefault(reward.comparison, []).append(reward)
    for comparable in comparisons.values():
        ranked = sorted(comparable, key=lambda r: (-r.gold_reward, r.sample_index))
        if policy == "all":
            yield from combinations(ranked, 2)
        elif policy == "adjacent":
            yield from pairwise(ranked)
        elif len(ranked) > 1:
            yield ranked[0], ranked[-1]


def by_prompt(rewards: Iterable[GoldReward]) -> Iterator[list[GoldReward]]:
    """The rewards of each prompt, which lie side by side: of all prompts, only one is in memory.

    Raises: DataError DATA_010 where they do not, since pairs between the parts of a prompt would be lost.
    """
    seen: set[bytes] = set()
    for prompt_id, group in groupby(rewards, key=lambda r: r.prompt_id):
        key = hashlib.blake2b(prompt_id.encode(), digest_size=8).digest()
        if key in seen:
            raise DataError(
                "DATA_010",
                f"the gold rewards of prompt {prompt_id} are not side by side",
                why="pairs are made prompt by prompt, and some of this one's would be lost",
                fix="remove the gold rewards and run again",
            )
        seen.add(key)
        yield list(group)


def make_pairs(groups: Iterable[list[GoldReward]], section: PairsSection) -> tuple[Iterator[Pair], Counter[str]]:
    """The pairs of all prompts (one list of rewards a prompt) as a stream, and the account: candidates = kept + the reasons.

    The account is complete once the last pair has been taken.
    """
    account: Counter[str] = Counter(candidates=0, kept=0, **dict.fromkeys(REASONS, 0))
    return _kept_pairs(groups, section, account), account


def _kept_pairs(groups: Iterable[list[GoldReward]], section: PairsSection, account: Counter[str]) -> Iterator[Pair]:
    for rewards in groups:
        seen: set[tuple[str, str]] = set()
        for better, worse in candidates(rewards, section.policy):
            account["candidates"] += 1
            margin = round(better.gold_reward - worse.gold_reward, 9)  # 0.5 - 0.4 is no less than 0.1
            texts = better.response, worse.response
            if texts[0] == texts[1]:
                account["identical_text"] += 1
            elif margin == 0:
                account["tie"] += 1
            elif margin < section.min_margin:
                account["below_min_margin"] += 1
            elif texts in seen and section.duplicates == "drop":
                account["duplicate"] += 1
            else:
                seen.add(texts)
                account["kept"] += 1
                yield _pair(better, worse, margin)


def _pair(better: GoldReward, worse: GoldReward, margin: float) -> Pair:
    return Pair(
        pair_id=pair_id(better.response_id, worse.response_id),
        prompt_id=better.prompt_id,
        source=better.source,
        split=better.split,
        chosen=response_messages(better),
        rejected=response_messages(worse),
        chosen_id=better.response_id,
        rejected_id=worse.response_id,
        chosen_gold_reward=better.gold_reward,
        rejected_gold_reward=worse.gold_reward,
        gold_margin=margin,
    )
