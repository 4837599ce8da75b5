"""Recorded responses: those of an existing file, found for each prompt."""

from collections import Counter
from collections.abc import Iterator

from rm_assets.core.digests import response_id
from rm_assets.core.errors import DataError
from rm_assets.core.recipe import RecordedResponses
from rm_assets.core.records import Prompt, Response
from rm_assets.storage.grouped_rows import GroupedRows
from rm_assets.storage.sources import SourceRow
from rm_assets.tasks.prompt_rows import responses_in
from rm_assets.tasks.recorded import align_rows
from rm_assets.tasks.session import Task


def recorded_responses(
    task: Task, section: RecordedResponses, prompts: list[Prompt], account: Counter[str]
) -> Iterator[Response]:
    """The recorded responses in order of the prompts, each prompt's in order of the file. `account` is complete at the end.

    Raises: DataError DATA_006 if prompts have none and the recipe does not drop those, DATA_010 if rows cannot be aligned.
    """
    if section.align == "row" and task.recipe.prompts.test is not None:
        raise DataError(
            "DATA_010",
            "recorded responses cannot be aligned by row",
            why="prompts come from two sources",
            fix="align by prompt or prompt_id",
        )
    account.update(prompts_without_response_dropped=0, rows_of_unknown_prompts=0)
    places = {prompt.prompt_id: place for place, prompt in enumerate(prompts)}
    with GroupedRows(task.folder / "work/recorded") as recorded:
        answered: set[int] = set()
        for row, prompt_id in align_rows(section, task.recipe.prompts, prompts):
            if prompt_id is None:
                account["rows_of_unknown_prompts"] += 1
                continue
            place = places[prompt_id]
            texts = [
                text
                for field in section.response_fields
                for text in responses_in(row, field, prompts[place], task.recipe.prompts.transcript)
            ]
            for text, model in zip(texts, _models(row, section.model_field, len(texts)), strict=True):
                recorded.add(place, (text, model))
                answered.add(place)
        _require_responses(section, prompts, answered)
        account["prompts_without_response_dropped"] = len(prompts) - len(answered)
        for place, prompt in enumerate(prompts):
            for index, (text, model) in enumerate(recorded.of(place)):
                yield Response(
                    **vars(prompt), response_id=response_id(prompt.prompt_id, index, text), sample_index=index,
                    response=text, model=model, seed=None, num_tokens=None, finished=None,
                )  # fmt: skip


def _require_responses(section: RecordedResponses, prompts: list[Prompt], answered: set[int]) -> None:
    num_without = len(prompts) - len(answered)
    if num_without and (section.missing == "error" or not answered):
        first = next(prompt for place, prompt in enumerate(prompts) if place not in answered)
        raise DataError(
            "DATA_006",
            f"{num_without} of {len(prompts)} prompts have no recorded response, the first is {first.prompt!r:.80}",
            fix="record them, correct sampling.align and sampling.prompt_field, or set sampling.missing to 'drop'",
        )


def _models(row: SourceRow, field: str | None, num_responses: int) -> list[str]:
    """The name of the model for each response of a row."""
    value = row.columns.get(field) if field else None
    if field and isinstance(value, list):
        if len(value) != num_responses:
            raise row.fault(field, f"holds {len(value)} names for {num_responses} responses", value)
        return [row.checked_text(field, name) for name in value]
    return [row.optional_text(field) or "recorded"] * num_responses
