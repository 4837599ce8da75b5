"""Gold rewards from people's rankings, for as many prompts as they have ranked."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from rm_assets.core.errors import DataError
from rm_assets.core.gold.rankings import Agreement, Entry, standing_by_prompt, text_id, verdict
from rm_assets.core.recipe import HumanGold
from rm_assets.core.records import GoldReward, Response
from rm_assets.storage.rankings import read_entries
from rm_assets.tasks.gold.labels import Labels
from rm_assets.tasks.session import Task


def label(task: Task, section: HumanGold, settings: Mapping[str, Any], responses: Iterable[Response]) -> Labels:
    """Minus the mean rank of each response, of the prompts that are ranked; the others are counted.

    Raises: DataError DATA_013 if prompts wait for a person and the recipe waits with them, or if none is ranked;
    DATA_002, DATA_003 for a damaged file of rankings.
    """
    account = Counter[str](ranked_prompts=0, pending_prompts=0, skipped_prompts=0, one_text_prompts=0)
    account.update(responses_pending=0, responses_skipped=0, stale_rankings=0, rankings_of_unknown_prompts=0)
    facts: dict[str, float] = {}
    rewards = _rewards(read_entries(Path(section.rankings)), responses, account, facts)
    return Labels(_complete(rewards, section, task.recipe.name, account), account, facts=facts)


def _rewards(
    entries: Iterable[Entry], responses: Iterable[Response], account: Counter[str], facts: dict[str, float]
) -> Iterator[GoldReward]:
    of_prompts, agreement = standing_by_prompt(entries), Agreement()
    for prompt_id, group in groupby(responses, key=lambda r: r.prompt_id):
        its_responses = [(r, text_id(prompt_id, r.response)) for r in group]
        found = verdict(of_prompts.pop(prompt_id, []), {text for _, text in its_responses})
        account[f"{found.state}_prompts"] += 1
        account["stale_rankings"] += found.num_stale
        if found.state in ("pending", "skipped"):
            account[f"responses_{found.state}"] += len(its_responses)
            continue
        agreement.add(found.rankings)
        golds = found.gold_rewards()
        for r, text in its_responses:
            yield GoldReward(**vars(r), gold_reward=golds[text])
    account["rankings_of_unknown_prompts"] = sum(map(len, of_prompts.values()))
    facts.update(agreement.facts())


def _complete(
    rewards: Iterator[GoldReward], section: HumanGold, recipe: str, account: Mapping[str, int]
) -> Iterator[GoldReward]:
    """The rewards as they are; raises at their end, so that no table is written."""
    yield from rewards
    ranked, pending, skipped = (account[f"{state}_prompts"] for state in ("ranked", "pending", "skipped"))
    if ranked and not (pending and section.pending == "wait"):
        return
    stale = account["stale_rankings"]
    raise DataError(
        "DATA_013",
        f"{pending} of {ranked + pending + skipped} prompts wait for a person ({ranked} ranked, {skipped} skipped)",
        why=f"rankings of responses that have changed since: {stale}" if stale else "",
        fix=f"rank them with `rm-assets rank {recipe}`"
        + ("; to build with what is ranked, set gold.pending: drop" if ranked else ""),
    )
