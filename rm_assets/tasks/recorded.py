"""Recorded responses and rewards: finding the prompt that a row of an existing file belongs to."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import Any

from rm_assets.core.errors import DataError
from rm_assets.core.recipe import FileSource, PromptsSection, RecordedGold, RecordedResponses, RowSource
from rm_assets.core.records import Prompt, Response
from rm_assets.storage.grouped_rows import GroupedRows
from rm_assets.storage.sources import SourceRow, read_rows
from rm_assets.storage.tables import Table
from rm_assets.tasks.prompt_rows import prompt_rows, rows_as_ingested
from rm_assets.tasks.session import Task


def prompts_of_responses(task: Task) -> list[Prompt]:
    """The prompts of sampled_responses, in their order there."""
    rows = Table(task.input("sampled_responses", "responses.parquet"), Prompt)
    return [next(group) for _, group in groupby(rows, key=lambda r: r.prompt_id)]


AlignedRows = Iterator[tuple[SourceRow, str | None]]
"""Rows of a file, each with the prompt_id it belongs to, None where the graph has no such prompt."""


def recorded_of_responses(
    task: Task,
    rows: Callable[[list[Prompt]], AlignedRows],
    values: Callable[[SourceRow], Iterable[Any]],
    responses: Iterable[Response],
    account: Counter[str],
) -> Iterator[tuple[list[Response], list[Any]]]:
    """The responses of each prompt, and the values of all rows that belong to it. `account` counts the rows."""
    prompts = prompts_of_responses(task)
    places = {prompt.prompt_id: place for place, prompt in enumerate(prompts)}
    account.update(recorded_rows=0, recorded_rows_of_unknown_prompts=0)
    with GroupedRows(task.folder / "work/recorded") as recorded:
        for row, prompt_id in rows(prompts):
            account["recorded_rows"] += 1
            if prompt_id is None:
                account["recorded_rows_of_unknown_prompts"] += 1
                continue
            for value in values(row):
                recorded.add(places[prompt_id], value)
        for place, (_, group) in enumerate(groupby(responses, key=lambda r: r.prompt_id)):
            yield list(group), recorded.of(place)


def rows_of_prompts(section: PromptsSection, prompts: Iterable[Prompt]) -> AlignedRows:
    """Each row of the prompts' own sources with its prompt_id, None where the graph has no such prompt of that source.

    Test prompts that have a source of their own take no row of the other one, nor the other way round.
    """
    splits = {prompt.prompt_id: prompt.split for prompt in prompts}
    for place, source in enumerate(section.sources):
        for row, prompt in rows_as_ingested(section, source):
            split = splits.get(prompt.prompt_id) if prompt is not None else None
            is_its_source = section.test is None or (split == "test") == (place == 1)
            yield row, prompt.prompt_id if prompt is not None and split is not None and is_its_source else None


def align_rows(
    section: RecordedResponses | RecordedGold, of_prompts: PromptsSection, prompts: Iterable[Prompt]
) -> AlignedRows:
    """Each row of the section's source with the prompt_id it belongs to, None where the graph has no such prompt.

    Without a source of its own, the rows are those of the prompts.

    Raises: DataError DATA_010 if a row could belong to two prompts, DATA_003 if the aligning column is missing.
    """
    if section.source is None:
        yield from rows_of_prompts(of_prompts, prompts)
        return
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
        key = str(number) if section.align == "row" else _text_or_number(row, section.prompt_field)
        yield row, index.get(key)


def _text_or_number(row: SourceRow, field: str) -> str:
    return row.optional_text(field) or row.text(field)


def require_all_rows(section: RecordedGold, prompts: PromptsSection) -> None:
    """Raises DataError DATA_007 if rewards are aligned by row and there are more or fewer of them than prompts."""
    source = prompts.source
    if section.align != "row" or prompts.max_prompts is not None or section.source is None:
        return
    num_prompts = sum(1 for _ in prompt_rows(prompts, source))
    num_rows = sum(1 for _ in read_rows(section.source))
    if num_rows != num_prompts:
        raise DataError(
            "DATA_007",
            f"{_named(section.source)} has {num_rows} rows of rewards, and the prompts' source has {num_prompts} rows",
            why="align is 'row', so row n of one belongs to row n of the other",
            fix="bring both to one length, or align by prompt or prompt_id",
        )


def _named(source: RowSource) -> str:
    return ", ".join(source.files) if isinstance(source, FileSource) else source.dataset


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
