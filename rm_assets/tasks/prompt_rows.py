"""What the rows of the prompts' sources say: the prompt of each row, and where preference data is read, its responses."""

from collections.abc import Iterator

from rm_assets.core.dialogues import PromptTurns, answer_of, common_prompt, prompt_of_messages, read_dialogue
from rm_assets.core.digests import prompt_id
from rm_assets.core.recipe import GeneratorSource, MixtureSource, PromptSource, PromptsSection
from rm_assets.core.records import Messages, Prompt, prompt_messages
from rm_assets.storage.sources import SourceRow, read_rows

Transcript = tuple[str, str] | None


def prompt_rows(
    section: PromptsSection, source: PromptSource, name: str | None = None
) -> Iterator[tuple[SourceRow, Prompt | None]]:
    """Every row with its prompt, whose split is assigned later; None where the row's dialogues part before the last answer.

    `name` is that of a mixture's part, and stands in place of `source_field`.

    Raises: DataError DATA_003 for a row without a prompt.
    """
    if isinstance(source, GeneratorSource):
        yield from _generated(section, source)
    elif isinstance(source, MixtureSource):
        for part in source.parts:
            yield from prompt_rows(section, part.source, part.name)
    else:
        for index, row in enumerate(read_rows(source)):
            yield row, _prompt(section, row, index, name or row.optional_text(section.source_field) or "unnamed")


def rows_as_ingested(section: PromptsSection, source: PromptSource) -> Iterator[tuple[SourceRow, Prompt | None]]:
    """The rows up to where the prompts of this source were read: before the prompt that would be one more than `max_prompts`."""
    if isinstance(source, MixtureSource):
        for part in source.parts:
            yield from _until(part.max_prompts, prompt_rows(section, part.source, part.name))
    else:
        yield from _until(section.max_prompts, prompt_rows(section, source))


def _until(
    most: int | None, rows: Iterator[tuple[SourceRow, Prompt | None]]
) -> Iterator[tuple[SourceRow, Prompt | None]]:
    seen: set[str] = set()
    for row, prompt in rows:
        if prompt is not None and most is not None:
            if len(seen) == most and prompt.prompt_id not in seen:
                return
            seen.add(prompt.prompt_id)
        yield row, prompt


def _prompt(section: PromptsSection, row: SourceRow, index: int, source: str) -> Prompt | None:
    turns = _turns(section, row)
    if turns is None:
        return None
    system = turns.system
    if system is None:
        system = row.optional_text(section.system_field) if section.system_field else section.system
    return Prompt(
        prompt_id=prompt_id(turns.prompt, system, turns.history),
        prompt=turns.prompt,
        system=system,
        history=turns.history,
        reference=row.optional_text(section.reference_field),
        source=source,
        split="",
        external_id=row.optional_text(section.id_field),
        row=index,
    )


def _turns(section: PromptsSection, row: SourceRow) -> PromptTurns | None:
    if section.dialogue_fields:
        return common_prompt([_dialogue(section, row, field) for field in section.dialogue_fields])
    field = section.prompt_field
    value = row.columns.get(field)
    if value is None or (isinstance(value, str) and not section.transcript):
        return PromptTurns(row.text(field), None, [])
    try:
        dialogue = read_dialogue(value, section.transcript)
        return prompt_of_messages(dialogue) if dialogue else PromptTurns(row.text(field), None, [])
    except ValueError as error:
        raise row.fault(field, str(error), value) from None


def _dialogue(section: PromptsSection, row: SourceRow, field: str) -> Messages:
    value = row.columns.get(field)
    if value is None:
        raise row.fault(field, "holds nothing" if field in row.columns else "is missing", None)
    try:
        dialogue = read_dialogue(value, section.transcript)
    except ValueError as error:
        raise row.fault(field, str(error), value) from None
    if dialogue is None:
        what = "is a text; say in prompts.transcript what stands before each turn"
        raise row.fault(field, what if section.transcript is None else "begins with neither text of transcript", value)
    return dialogue


def responses_in(row: SourceRow, field: str, prompt: Prompt, transcript: Transcript) -> list[str]:
    """The responses that a column holds: a text, a dialogue that ends with it, or a list of either.

    Raises: DataError DATA_003 if there is none, or if a dialogue is one to another prompt.
    """
    value = row.columns.get(field)
    is_list_of_responses = isinstance(value, list) and not any(isinstance(item, dict) for item in value)
    found = []
    for item in value if isinstance(value, list) and is_list_of_responses else [value]:
        try:
            dialogue = None if item is None else read_dialogue(item, transcript)
            found.append(
                row.encodable(field, answer_of(dialogue, prompt_messages(prompt)))
                if dialogue
                else row.checked_text(field, item)
            )
        except ValueError as error:
            raise row.fault(field, str(error), item) from None
    return found


def _generated(section: PromptsSection, source: GeneratorSource) -> Iterator[tuple[SourceRow, Prompt]]:
    from rm_assets.embedded.task import generate_prompts

    for index, (prompt, reference) in enumerate(generate_prompts(source.num_prompts, source.seed)):
        yield (
            SourceRow("generator", {"prompt": prompt, "reference": reference}),
            Prompt(
                prompt_id=prompt_id(prompt, section.system), prompt=prompt, system=section.system, history=[],
                reference=reference, source="embedded", split="", external_id=None, row=index,
            ),
        )  # fmt: skip
