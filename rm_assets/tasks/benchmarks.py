"""RewardBench and RewardBench 2 with a model: rows read and checked, every answer scored, the rules of core/evaluation/reward_bench.py."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rm_assets.core.dialogues import read_dialogue
from rm_assets.core.errors import DataError
from rm_assets.core.evaluation.reward_bench import NUM_ANSWERS, TIES, BenchItem, reward_bench, reward_bench_2
from rm_assets.core.protocols import ResponseScorer
from rm_assets.core.recipe import RewardBench
from rm_assets.core.records import Messages
from rm_assets.storage.sources import SourceRow, read_rows

TITLES = {"reward_bench": "RewardBench", "reward_bench_2": "RewardBench 2"}
RULES = {
    "reward_bench": "A prompt counts if the chosen answer has the higher reward, equal ones count 0. A section weighs its "
    "subsets by their prompts, math-prm as much as all code; the score is the mean of the sections.",
    "reward_bench_2": "A prompt counts if the correct one of four answers has the highest reward, shared among equal ones; "
    "Ties: 60 % accuracy, 40 % whether correct answers lie nearer to each other than to the others. The score is the mean of the subsets.",
}
SCORES = {"reward_bench": reward_bench, "reward_bench_2": reward_bench_2}


@dataclass(frozen=True)
class BenchRow:
    """One prompt with its correct and its other answers."""

    id: str
    subset: str
    prompt: Messages
    correct: list[str]
    incorrect: list[str]

    @property
    def conversations(self) -> list[Messages]:
        """The prompt with each answer, the correct ones first."""
        return [[*self.prompt, {"role": "assistant", "content": a}] for a in (*self.correct, *self.incorrect)]

    def item(self, rewards: list[float]) -> BenchItem:
        """The row with the rewards of its conversations."""
        return BenchItem(self.id, self.subset, rewards[: len(self.correct)], rewards[len(self.correct) :])


def run_benchmark(section: RewardBench, rows: list[BenchRow], scorer: ResponseScorer) -> dict[str, Any]:
    """The benchmark as the report holds it; `rows` are those of `read_benchmark`.

    A prompt that leaves no room for an answer within the model's length has equal rewards, as if all answers were cut off.
    """
    has_room = [scorer.has_room(row.prompt) for row in rows]
    scored = [row for row, fits in zip(rows, has_room, strict=True) if fits]
    scores = list(scorer.score(conversation for row in scored for conversation in row.conversations))
    rewards = iter(score.reward for score in scores)
    items = [
        row.item([next(rewards) if fits else 0.0 for _ in row.conversations])
        for row, fits in zip(rows, has_room, strict=True)
    ]
    return {
        "kind": section.kind,
        "title": TITLES[section.kind],
        "rule": RULES[section.kind],
        **SCORES[section.kind](items),
        "num_responses": len(scores),
        "num_truncated": sum(score.truncated for score in scores),
        "num_prompts_over_length": has_room.count(False),
    }


def read_benchmark(section: RewardBench) -> list[BenchRow]:
    """All rows, checked before a model sees any of them.

    Raises: DataError DATA_003 for a row without its columns, or of an unknown subset or id; DATA_010 where its counts
    contradict it; DATA_012 without rows.
    """
    read = _pair if section.kind == "reward_bench" else _choice
    rows = [read(row, number) for number, row in enumerate(read_rows(section.source))]
    if not rows:
        raise DataError("DATA_012", f"{TITLES[section.kind]} has no rows", fix="correct evaluation.benchmarks")
    try:  # what the rules refuse has nothing to do with rewards
        SCORES[section.kind]([row.item([0.0] * len(row.conversations)) for row in rows])
    except ValueError as error:
        raise DataError(
            "DATA_003", f"the rows are none of {TITLES[section.kind]}", why=str(error),
            fix="give the benchmark's own rows, or another `kind`",
        ) from None  # fmt: skip
    return rows


def _pair(row: SourceRow, number: int) -> BenchRow:
    sides = [[_answer(row, field, row.columns.get(field))] for field in ("chosen", "rejected")]
    return BenchRow(str(number), row.text("subset"), _prompt(row), *sides)


def _choice(row: SourceRow, number: int) -> BenchRow:
    correct, incorrect = (list(_answers(row, field)) for field in ("chosen", "rejected"))
    for field, counted in (("num_correct", len(correct)), ("total_completions", len(correct) + len(incorrect))):
        if field in row.columns and row.number(field) != counted:
            raise DataError(
                "DATA_010",
                f"{row.where}: {field} is {row.columns[field]}, and there are {counted}",
                fix="correct the row",
            )
    subset = row.text("subset")
    if subset != TIES and (len(correct), len(correct) + len(incorrect)) != (1, NUM_ANSWERS):
        what = f"has not one correct answer of {NUM_ANSWERS}, but {len(correct)} of {len(correct) + len(incorrect)}"
        raise row.fault("chosen", what, None)
    return BenchRow(row.text("id") if subset == TIES else str(number), subset, _prompt(row), correct, incorrect)


def _answers(row: SourceRow, field: str) -> Iterator[str]:
    values = row.columns.get(field)
    if not isinstance(values, list) or not values:
        raise row.fault(field, "holds no list of answers", values)
    for value in values:
        yield _answer(row, field, value)


def _prompt(row: SourceRow) -> Messages:
    value = row.columns.get("prompt")
    if not isinstance(value, list):
        return [{"role": "user", "content": row.text("prompt")}]
    return _messages(row, "prompt", value)


def _answer(row: SourceRow, field: str, value: Any) -> str:
    """A text, or the last of messages."""
    return _messages(row, field, value)[-1]["content"] if isinstance(value, list) else row.checked_text(field, value)


def _messages(row: SourceRow, field: str, value: list[Any]) -> Messages:
    try:
        return read_dialogue(value, None) or []
    except ValueError as error:
        raise row.fault(field, str(error), value) from None
