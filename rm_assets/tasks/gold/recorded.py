"""Gold rewards or ranks that already exist, each checked to be of its response."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from rm_assets.core.errors import DataError
from rm_assets.core.recipe import RecordedGold
from rm_assets.core.records import GoldReward, Response
from rm_assets.storage.sources import SourceRow
from rm_assets.tasks.gold.labels import Labels
from rm_assets.tasks.recorded import align_rows, recorded_of_responses, require_all_rows
from rm_assets.tasks.session import Task

Recorded = tuple[str | None, float]
"""The response that a reward is of, where the record names it, and the reward."""


def label(task: Task, section: RecordedGold, settings: Mapping[str, Any], responses: Iterable[Response]) -> Labels:
    """The rewards of the record.

    Raises: DataError DATA_007 if number or order do not agree, DATA_008 if a reward is not finite.
    """
    require_all_rows(section, task.recipe.prompts)
    account = Counter[str]()
    return Labels(_rewards(task, section, responses, account), account)


def _rewards(
    task: Task, section: RecordedGold, responses: Iterable[Response], account: Counter[str]
) -> Iterator[GoldReward]:
    def values(row: SourceRow) -> Iterator[Recorded]:
        text = None if section.response_field is None else row.text(section.response_field, may_be_empty=True)
        return ((text, value) for field in section.reward_fields for value in _finite(row, field))

    rows = partial(align_rows, section, task.recipe.prompts)
    missing, num_responses = list[Response](), 0
    for its_responses, recorded in recorded_of_responses(task, rows, values, responses, account):
        num_responses += len(its_responses)
        for r, reward in zip(its_responses, _of_responses(its_responses, recorded, section), strict=True):
            if reward is None:
                missing.append(r)
            else:
                yield GoldReward(**vars(r), gold_reward=-reward if section.ranks else reward)
    if missing:
        raise DataError(
            "DATA_007",
            f"{len(missing)} of {num_responses} responses have no recorded reward, the first is "
            f"{missing[0].response!r:.60} to prompt {missing[0].prompt!r:.80}",
            fix="label them, or correct gold.response_field",
        )


def _finite(row: SourceRow, field: str) -> list[float]:
    values = row.numbers(field)
    for value in values:
        if not math.isfinite(value):
            raise DataError(
                "DATA_008",
                f"{row.where}: gold reward '{field}' is {value}",
                fix="remove the row, or label the response again",
            )
    return values


def _of_responses(responses: list[Response], recorded: list[Recorded], section: RecordedGold) -> Sequence[float | None]:
    """The reward of each response of a prompt, None where the record has none of its text."""
    shown = f"prompt {responses[0].prompt!r:.80}"
    if section.response_field is None:
        if len(recorded) != len(responses):
            raise DataError(
                "DATA_007",
                f"{shown} has {len(responses)} responses and {len(recorded)} recorded rewards",
                fix="record one reward for each response, or name gold.response_field so that rewards find theirs",
            )
        return [value for _, value in recorded]
    by_text: defaultdict[str | None, list[float]] = defaultdict(list)
    for text, value in recorded:
        by_text[text].append(value)
    num_same = Counter(r.response for r in responses)
    values: list[float | None] = []
    used: Counter[str] = Counter()
    for r in responses:
        found = by_text[r.response]
        if not found:
            values.append(None)
            continue
        if len(set(found)) > 1 and len(found) != num_same[r.response]:
            raise DataError(
                "DATA_007",
                f"{shown}: the response {r.response!r:.60} occurs {num_same[r.response]} times and has {len(found)} rewards",
                why="they contradict each other",
                fix="keep one reward for it, or one for each occurrence",
            )
        used[r.response] += 1
        values.append(found[min(used[r.response], len(found)) - 1])
    return values
