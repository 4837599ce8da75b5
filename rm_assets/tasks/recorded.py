"""Recorded responses and rewards: finding the prompt that a row of an existing file belongs to."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rm_assets.core.errors import DataError
from rm_assets.core.recipe import RecordedGold, RecordedResponses
from rm_assets.core.records import Prompt
from rm_assets.storage.sources import SourceRow, read_rows

AnyPrompt = TypeVar("AnyPrompt", bound=Prompt)


def align_rows(
    section: RecordedResponses | RecordedGold, prompts: Iterable[AnyPrompt]
) -> Iterator[tuple[SourceRow, str | None]]:
    """Each row of the section's source with the prompt_id it belongs to, None where the graph has no such prompt.

    Raises: DataError DATA_010 if a row could belong to two prompts, DATA_003 if the aligning column is missing.
    """
    index: dict[str, str] = {}
    for prompt in prompts:
        key = _key(section, prompt)
        if index.setdefault(key, prompt.prompt_id) != prompt.prompt_id:
            raise DataError(
                "DATA_010",
                f"two prompts share {section.align} {key!r:.60}",
                why="recorded rows would belong to both",
                fix="align by another column, or make the ids distinct",
            )
    for number, row in enumerate(read_rows(section.source)):
        key = str(number) if section.align == "row" else row.text(section.prompt_field)
        yield row, index.get(key)


def _key(section: RecordedResponses | RecordedGold, prompt: Prompt) -> str:
    if section.align == "row":
        return str(prompt.row)
    if section.align == "prompt":
        return prompt.prompt
    if prompt.external_id is None:
        raise DataError(
            "DATA_003",
            f"prompt {prompt.prompt!r:.60} has no id of yours",
            why="align is 'prompt_id'",
            fix="name the id's column in prompts.id_field",
        )
    return prompt.external_id
