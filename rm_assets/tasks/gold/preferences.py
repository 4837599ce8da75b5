"""Gold rewards from preferences: which of the two responses in a row of the prompts is better."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from rm_assets.core.errors import DataError
from rm_assets.core.recipe import PreferenceGold
from rm_assets.core.records import GoldReward, Response
from rm_assets.storage.sources import SourceRow
from rm_assets.tasks.gold.labels import Labels
from rm_assets.tasks.recorded import recorded_of_responses, rows_of_prompts
from rm_assets.tasks.session import Task


def label(task: Task, section: PreferenceGold, settings: Mapping[str, Any], responses: Iterable[Response]) -> Labels:
    """The two rewards of each row, which compare with each other alone.

    Raises: DataError DATA_003 for a label that the recipe does not know, DATA_007 if a row has not two responses,
    DATA_008 for a margin that is negative or not finite.
    """
    account = Counter[str](tied_rows=0)
    return Labels(_rewards(task, section, responses, account), account)


def _rewards(
    task: Task, section: PreferenceGold, responses: Iterable[Response], account: Counter[str]
) -> Iterator[GoldReward]:
    def values(row: SourceRow) -> tuple[float, float]:
        pair = two_rewards(section, row)
        account["tied_rows"] += pair[0] == pair[1]
        return pair

    rows = partial(rows_of_prompts, task.recipe.prompts)
    for its_responses, golds in recorded_of_responses(task, rows, values, responses, account):
        if len(its_responses) != len(golds):
            raise DataError(
                "DATA_007",
                f"prompt {its_responses[0].prompt!r:.80} has {len(its_responses)} responses in {len(golds) // 2} rows of preferences",
                why="a preference is between two responses",
                fix="name two columns in sampling.response_fields, or use gold.kind recorded for rows with more",
            )
        for index, (r, gold) in enumerate(zip(its_responses, golds, strict=True)):
            yield GoldReward(**vars(r), gold_reward=gold, comparison=str(index // 2))


def two_rewards(section: PreferenceGold, row: SourceRow) -> tuple[float, float]:
    """The rewards of a row's first and second response. Raises: DataError DATA_003, DATA_008 as `label` does."""
    margin = 1.0 if section.margin_field is None else row.number(section.margin_field)
    if not math.isfinite(margin) or margin < 0:
        raise DataError(
            "DATA_008",
            f"{row.where}: the margin '{section.margin_field}' is {margin}",
            fix="give a number of at least 0: how much better the preferred response is",
        )
    if section.winner_field is None:
        return margin, 0.0
    label = row.optional_text(section.winner_field)
    if label in section.ties:
        return 0.0, 0.0
    if label not in section.winners:
        raise row.fault(section.winner_field, f"is none of {', '.join([*section.winners, *section.ties])}", label)
    return (margin, 0.0) if label == section.winners[0] else (0.0, margin)
