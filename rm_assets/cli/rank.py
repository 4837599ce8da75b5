"""`rm-assets rank`: shows a prompt and its answers, takes a person's ranking, and keeps it at once.

Answers stand in an order drawn for each prompt and annotator, without the models that gave them.
"""

import csv
import io
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from rm_assets.core.digests import unit_interval
from rm_assets.core.errors import DataError, RecipeError
from rm_assets.core.gold.rankings import (
    Action,
    Entry,
    Ranking,
    format_ranking,
    labels,
    parse_ranking,
    ranking_of,
    standing,
    standing_by_prompt,
    text_id,
    verdict,
)
from rm_assets.core.recipe import FileSource, HumanGold, PromptsSection
from rm_assets.core.records import Prompt, Response, prompt_messages
from rm_assets.resources.recipes import recipe_book
from rm_assets.storage.files import whole_file
from rm_assets.storage.home import find_home
from rm_assets.storage.lineage import wanted
from rm_assets.storage.rankings import append_entry, read_entries
from rm_assets.storage.sources import SUFFIXES
from rm_assets.storage.store import Store
from rm_assets.storage.tables import Table
from rm_assets.tasks.prompt_rows import prompt_rows, responses_in

WIDTH = 100
FIXES = {
    "DATA_001": "correct the path; it starts at the working directory",
    "DATA_003": "correct the row, or name its columns with --prompt-field and --response-field",
}
"""Of a file that no recipe names, by code."""
HELP = """Type the letters from best to worst, tied answers with '=':  b > a = c
  =  all are equally good      a  of two answers, a is better
  s  skip this prompt          u  undo the last one
  q  stop; what is ranked is kept, the same command goes on"""


@dataclass(frozen=True)
class Question:
    """A prompt and the distinct texts of its responses, by text id."""

    prompt: Prompt
    texts: dict[str, str]


@dataclass(frozen=True)
class Work:
    """What there is to rank, where rankings go, what to do with them, and whether all have to be there for that."""

    questions: list[Question]
    rankings: Path
    next_step: str
    waits_for_all: bool


def is_file(what: str) -> bool:
    """Whether this is a file of rows, and no name of a recipe."""
    return what not in recipe_book().partition_keys() and (
        Path(what).is_file() or Path(what).suffix in (*SUFFIXES, ".gz", ".zst")
    )


def work_of_recipe(name: str, split: str | None) -> Work:
    """The responses of a recipe as it is now.

    Raises: RecipeError RECIPE_003 if its gold is not that of people, StoreError STORE_002 if responses are not made.
    """
    recipe = recipe_book().load(name)
    if not isinstance(recipe.gold, HumanGold):
        raise RecipeError(
            "RECIPE_003",
            f"gold.kind of recipe '{name}' is {recipe.gold.kind}, so no ranking would enter it",
            fix="write `gold: {kind: human, rankings: FILE.jsonl}`, or extend the recipe with one that does",
        )
    store = Store(find_home())
    responses = wanted(store, recipe, "gold_rewards").inputs["sampled_responses"]
    table = Table(store.folder("sampled_responses", responses.digest) / "responses.parquet", Response)
    rows = ((r, r.response) for r in table if split in (None, r.split))
    next_step = f"`rm-assets run {name}` builds with them"
    return Work(_questions(rows), Path(recipe.gold.rankings), next_step, recipe.gold.pending == "wait")


def work_of_file(file: Path, prompt_field: str, response_fields: Sequence[str], rankings: Path | None) -> Work:
    """The responses in the rows of a file; rankings go beside it. Raises: DataError DATA_001, DATA_002, DATA_003."""
    section = PromptsSection(source=FileSource(kind="files", files=[str(file)]), prompt_field=prompt_field)
    try:
        rows = [
            (prompt, text)
            for row, prompt in prompt_rows(section, section.source)
            if prompt is not None
            for field in response_fields
            for text in responses_in(row, field, prompt, None)
        ]
    except DataError as error:
        if error.code not in FIXES:
            raise
        raise DataError(error.code, error.what, why=error.why, fix=FIXES[error.code]) from None
    path = (rankings or file.with_name(f"{file.name}.rankings.jsonl")).absolute()
    return Work(_questions(rows), path, f"a recipe reads them with `gold: {{kind: human, rankings: {path}}}`", False)


def _questions(rows: Iterable[tuple[Prompt, str]]) -> list[Question]:
    """Prompts in the order of the rows; one whose responses are all the same text needs nobody."""
    found: dict[str, Question] = {}
    for prompt, text in rows:
        question = found.setdefault(prompt.prompt_id, Question(prompt, {}))
        question.texts[text_id(prompt.prompt_id, text)] = text
    return [question for question in found.values() if len(question.texts) > 1]


def export_csv(work: Work, path: Path) -> int:
    """Writes `prompt,answer,rank` for every prompt that is ranked, with the mean rank over annotators; the number of rows."""
    of_prompts = standing_by_prompt(read_entries(work.rankings))
    rows = [
        (question.prompt.prompt, question.texts[text], f"{-gold:g}")
        for question in work.questions
        if (found := verdict(of_prompts.get(question.prompt.prompt_id, []), question.texts)).state == "ranked"
        for text, gold in found.gold_rewards().items()
    ]
    with whole_file(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("prompt", "answer", "rank"), *rows])
    return len(rows)


class Session:
    """One sitting of one annotator."""

    def __init__(self, work: Work, annotator: str | None, *, ask_skipped: bool, console: Console) -> None:
        """Raises: DataError DATA_002 or DATA_003 if the file of rankings is damaged."""
        self._work, self._annotator, self._console = work, annotator, console
        self._questions = {question.prompt.prompt_id: question for question in work.questions}
        entries = standing(read_entries(work.rankings))
        self._mine = {prompt_id: entry for (prompt_id, by), entry in entries.items() if by == annotator}
        self._waiting = [
            question
            for question in work.questions
            if not self._is_ranked(question) and (ask_skipped or not self._is_skipped(question))
        ]

    def run(self) -> None:
        """Asks until all is ranked, or the person stops by q, Ctrl-D or Ctrl-C."""
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="replace")  # what is no text is no ranking either, and is asked again
        if not self._questions:
            self._say("no prompt here has two different answers, so there is nothing to rank")
            return
        self._say(f"{self._progress()}; they are kept in {self._work.rankings}")
        shown = None
        try:
            while self._waiting:
                if shown is not (question := self._waiting[0]):
                    self._show(question)
                    shown = question
                typed = input("ranking (? for help): ").strip()
                if typed.lower() == "q":
                    break
                self._take(question, typed)
        except (EOFError, KeyboardInterrupt):
            print()
        self._say(f"{self._progress()}, kept in {self._work.rankings}")
        self._say("the same command goes on" if self._waiting else "nothing is left to rank")
        if self._mine and not (self._waiting and self._work.waits_for_all):
            self._say(f"next: {self._work.next_step}")

    def _take(self, question: Question, typed: str) -> None:
        match typed.lower():
            case "?" | "":
                print(HELP)
            case "u":
                self._undo()
            case "s":
                self._keep(question, "skip")
                self._waiting.pop(0)
            case _:
                texts = self._in_order(question)
                try:
                    ranking = parse_ranking(typed, list(texts))
                except ValueError as error:
                    print(error)
                    return
                self._keep(question, "rank", tuple(tuple(texts[name] for name in group) for group in ranking))
                self._waiting.pop(0)
                print(f"kept: {format_ranking(ranking)}")

    def _undo(self) -> None:
        """Takes back what was said last, in this sitting or an earlier one, and asks it next."""
        known = [prompt_id for prompt_id in self._mine if prompt_id in self._questions]
        if not known:
            print("there is nothing to undo")
            return
        question = self._questions[known[-1]]
        self._keep(question, "undo")
        self._waiting = [question, *(other for other in self._waiting if other is not question)]

    def _keep(self, question: Question, action: Action, ranking: Ranking = ()) -> None:
        prompt_id, now = question.prompt.prompt_id, datetime.now(UTC).isoformat(timespec="seconds")
        entry = Entry(prompt_id=prompt_id, action=action, ranking=ranking, annotator=self._annotator, at=now)
        append_entry(self._work.rankings, entry)
        self._mine.pop(prompt_id, None)
        if action != "undo":
            self._mine[prompt_id] = entry

    def _in_order(self, question: Question) -> dict[str, str]:
        """Text ids by the letter that they are shown under."""
        ids = sorted(question.texts, key=lambda text: unit_interval("order of answers", self._annotator, text))
        return dict(zip(labels(len(ids)), ids, strict=True))

    def _is_ranked(self, question: Question) -> bool:
        entry = self._mine.get(question.prompt.prompt_id)
        return entry is not None and ranking_of(entry.ranking, question.texts) is not None

    def _is_skipped(self, question: Question) -> bool:
        entry = self._mine.get(question.prompt.prompt_id)
        return entry is not None and entry.action == "skip"

    def _progress(self) -> str:
        num_ranked, num_skipped = (
            sum(map(is_it, self._work.questions)) for is_it in (self._is_ranked, self._is_skipped)
        )
        return f"{num_ranked} of {len(self._work.questions)} prompts ranked" + (
            f", {num_skipped} skipped" if num_skipped else ""
        )

    def _show(self, question: Question) -> None:
        width = min(self._console.width, WIDTH)
        self._console.print()
        self._console.rule(self._progress(), style="dim")
        for message in prompt_messages(question.prompt):
            self._console.print(Text(f"{message['role']}: ", "bold") + _visible(message["content"]), width=width)
        for label, text in self._in_order(question).items():
            answer = _visible(question.texts[text]) if question.texts[text].strip() else Text("(no text)", "dim")
            self._console.print(Panel(answer, title=f"[bold]{label}", title_align="left", width=width))

    def _say(self, sentence: str) -> None:
        self._console.print(sentence, soft_wrap=True, markup=False, highlight=False)


def _visible(text: str) -> Text:
    """The text without what would steer the terminal."""
    return Text(
        "".join(c if c in "\r\n\t" or unicodedata.category(c) != "Cc" else "\N{REPLACEMENT CHARACTER}" for c in text)
    )
