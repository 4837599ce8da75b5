"""`rm-assets score`, `compare-responses` and `interactive`: rewards at the command line."""

import io
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import tee
from pathlib import Path
from typing import Annotated

import typer

from rm_assets.cli.models import Device, DtypeName, MaxLength, Model, Revision, load
from rm_assets.core.dialogues import prompt_of_messages, read_dialogue
from rm_assets.core.errors import DataError, RmAssetsError
from rm_assets.core.protocols import Score
from rm_assets.core.recipe import FileSource
from rm_assets.serving.reward_model import Prompt, RewardModel
from rm_assets.storage.files import whole_file
from rm_assets.storage.sources import SourceRow, read_json_lines, read_rows

JSON = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@dataclass(frozen=True)
class Asked:
    """One response whose reward is wanted: which one of which row of the input, both counted from 0."""

    row: int
    index: int
    prompt: Prompt
    response: str


def score(
    model: Model,
    prompt: Annotated[str | None, typer.Option(help="What the user says.")] = None,
    response: Annotated[list[str] | None, typer.Option(help="A response to it; give the option several times.")] = None,
    file: Annotated[
        str | None,
        typer.Option(help="File, glob or URL of rows with `prompt`, and `response` or a list `responses`; - for JSON lines from standard input."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Write JSON lines here, all or none.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
    revision: Revision = None,
    device: Device = "auto",
    dtype: DtypeName = "float32",
    max_length: MaxLength = None,
) -> None:  # fmt: skip
    """The reward of each response: of texts, of a file of any size, or of standard input."""
    if (file is None) == (prompt is None) or (prompt is None) != (not response):
        raise typer.BadParameter("give --prompt and one or more --response, or --file")
    loaded = load(model, revision=revision, device=device, dtype=dtype, max_length=max_length)
    given = (Asked(0, index, prompt or "", text) for index, text in enumerate(response or []))
    scored = _scored(loaded, given if file is None else _of_rows(_rows(file)))
    if output is not None:
        with whole_file(output) as temporary, open(temporary, "w", encoding="utf-8") as written:
            written.writelines(_as_json(*each) + "\n" for each in scored)
        return
    for number, each in enumerate(scored):
        if number == 0 and not as_json:
            print(f"{'row':>7} {'response':>8} {'reward':>10} {'tokens':>7}")
        print(_as_json(*each) if as_json else _as_line(*each))


def compare_responses(
    model: Model,
    prompt: Annotated[str, typer.Option(help="What the user says.")],
    a: Annotated[str, typer.Argument(help="A response.")],
    b: Annotated[str, typer.Argument(help="Another response to the same prompt.")],
    as_json: JSON = False,
    revision: Revision = None,
    device: Device = "auto",
    dtype: DtypeName = "float32",
    max_length: MaxLength = None,
) -> None:
    """The probability that response A is better than response B."""
    loaded = load(model, revision=revision, device=device, dtype=dtype, max_length=max_length)
    found = loaded.compare(prompt, a, b)
    if as_json:
        print(json.dumps(asdict(found)))
        return
    better, probability = ("A", found.probability) if found.margin >= 0 else ("B", 1 - found.probability)
    print(f"{better} is better with probability {probability:.3f}: rewards {found.reward_a:.4f} (A) and "
          f"{found.reward_b:.4f} (B), margin {found.margin:.4f}")  # fmt: skip


def interactive(
    model: Model,
    revision: Revision = None,
    device: Device = "auto",
    dtype: DtypeName = "float32",
    max_length: MaxLength = None,
) -> None:
    """Type a prompt and responses to it, see their rewards."""
    loaded = load(model, revision=revision, device=device, dtype=dtype, max_length=max_length)
    print(
        f"{loaded.location}, {loaded.max_length} tokens. An empty response ends a prompt's responses, an empty prompt ends all."
    )
    try:
        while prompt := input("prompt> ").strip():
            responses = list(iter(lambda: input("response> ").strip(), ""))
            if responses:
                _print_rewards(loaded, prompt, responses)
    except (EOFError, KeyboardInterrupt):
        print()
    print("bye")


def _print_rewards(model: RewardModel, prompt: str, responses: list[str]) -> None:
    try:
        scores = list(model.score_all((prompt, response) for response in responses))
    except RmAssetsError as error:
        print(f"error: {error}")
        return
    best = max(score.reward for score in scores)
    for response, found in zip(responses, scores, strict=True):
        mark = "*" if found.reward == best else " "
        print(f"{mark} {found.reward:>10.4f}  {_excerpt(response)}{_cut(found)}")


def _rows(file: str) -> Iterator[SourceRow]:
    if file != "-":
        yield from read_rows(FileSource(kind="files", files=[file]))
        return
    name = "standard input"
    try:
        yield from read_json_lines(name, io.TextIOWrapper(sys.stdin.buffer, "utf-8-sig", newline=""))
    except UnicodeDecodeError as error:
        raise DataError("DATA_002", f"{name} is not UTF-8 text", why=str(error), fix="convert it to UTF-8") from None


def _of_rows(rows: Iterable[SourceRow]) -> Iterator[Asked]:
    """Raises: DataError DATA_003."""
    for number, row in enumerate(rows):
        prompt = _prompt(row)
        field = "responses" if "responses" in row.columns else "response"
        value = row.columns.get(field)
        if isinstance(value, list) and not value:
            raise row.fault(field, "holds no response", value)
        for index, text in enumerate(value if isinstance(value, list) else [value]):
            yield Asked(number, index, prompt, row.checked_text(field, text))


def _prompt(row: SourceRow) -> Prompt:
    value = row.columns.get("prompt")
    if not isinstance(value, list):
        return row.text("prompt")
    try:
        messages = read_dialogue(value, None) or []
        prompt_of_messages(messages)
    except ValueError as error:
        raise row.fault("prompt", str(error), value) from None
    return messages


def _scored(model: RewardModel, asked: Iterable[Asked]) -> Iterator[tuple[Asked, Score]]:
    """What was asked, with its score, as a stream: only a window of it is in memory."""
    kept, read = tee(asked)
    return zip(kept, model.score_all((each.prompt, each.response) for each in read), strict=True)


def _as_json(asked: Asked, found: Score) -> str:
    return json.dumps(asdict(asked) | asdict(found), ensure_ascii=False)


def _as_line(asked: Asked, found: Score) -> str:
    return (
        f"{asked.row:>7} {asked.index:>8} {found.reward:>10.4f} {found.num_tokens:>7}  "
        f"{_excerpt(asked.response)}{_cut(found)}"
    )


def _excerpt(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else line[:57] + "..."


def _cut(found: Score) -> str:
    return "  (too long: the reward is that of its beginning)" if found.truncated else ""
