"""Gold rewards from a sequence classifier."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Any

from rm_assets.backends.ray.pool import WorkerPool
from rm_assets.core.digests import digest
from rm_assets.core.errors import ModelError
from rm_assets.core.protocols import LogReporter
from rm_assets.core.recipe import ClassifierGold
from rm_assets.core.records import GoldReward, Messages, Response, response_messages
from rm_assets.storage.shards import ShardLog
from rm_assets.tasks.gold.labels import Labels
from rm_assets.tasks.scorers import load_scorer
from rm_assets.tasks.session import Task
from rm_assets.tasks.workers import scoring_workers

if TYPE_CHECKING:
    from rm_assets.backends.scoring import ConversationScorer

ROWS_VERSION = 1
"""To be raised when a gold model's rewards are computed otherwise; committed shards of another version are not taken."""


@dataclass(frozen=True)
class ScoredRow:
    """A gold reward by its content key: the hash of the conversation, within the log of one gold model."""

    key: str
    reward: float
    truncated: bool


def label(task: Task, section: ClassifierGold, settings: Mapping[str, Any], responses: Iterable[Response]) -> Labels:
    """Scores what no earlier run has scored with this very gold model.

    Raises: ModelError MODEL_005 if a response is too long and the recipe says `error`.
    """
    execution, reporter = task.recipe.execution, task.reporter
    workers = scoring_workers(task, section, partial(_score, section.over_length))
    with workers or task.store.device(reporter.waiting):
        scorer = workers or load_scorer(
            section.model, section.backend, max_length=section.max_length, dtype=section.dtype, execution=execution,
            reporter=LogReporter(reporter),
        )  # fmt: skip
        # The policy for long responses is applied to the rows, whichever it was when they were computed.
        of_model = {key: value for key, value in settings.items() if key != "over_length"}
        log = ShardLog(task.store.home, "gold", {**of_model, **scorer.identity, "rows": ROWS_VERSION}, ScoredRow)
        progress = Counter[str]()

        def passed(rows: list[ScoredRow]) -> list[ScoredRow]:
            progress["done"] += len(rows)
            reporter.progress(progress["done"], progress["wanted"], "rewards")
            return rows

        def score_shard(items: list[tuple[str, Messages]]) -> list[ScoredRow]:
            assert not isinstance(scorer, WorkerPool)
            return passed(_score(section.over_length, scorer, items))

        def score_shards(shards: Iterator[list[tuple[str, Messages]]]) -> Iterator[list[ScoredRow]]:
            assert isinstance(scorer, WorkerPool)
            return (passed(rows) for _, rows in scorer.each(shards))

        counts = task.inputs["sampled_responses"].counts
        rows, num_scored = log.complete(
            lambda: ((key, (key, messages)) for _, key, messages in _keyed(responses)),
            score_shard,
            execution.shard_prompts * ceil(counts["responses"] / counts["prompts"]),
            before=lambda done, wanted: progress.update(done=done, wanted=wanted),
            spread=score_shards if isinstance(scorer, WorkerPool) else None,
        )
    if section.over_length == "error":
        _require_whole(section, rows, responses)
    account = Counter[str](over_length=0) if section.over_length == "drop" else Counter[str]()

    def rewards() -> Iterator[GoldReward]:
        for r, key, _ in _keyed(responses):
            row = rows.get(key)
            if row is None or (row.truncated and section.over_length == "drop"):
                account["over_length"] += 1
            else:
                yield GoldReward(**vars(r), gold_reward=row.reward, truncated=row.truncated)

    work = Counter({"responses scored": num_scored, "tokens forwarded": scorer.num_tokens_forwarded})
    return Labels(rewards(), account, work, dict(scorer.facts))


def _score(over_length: str, scorer: "ConversationScorer", items: list[tuple[str, Messages]]) -> list[ScoredRow]:
    """The rows of a shard, here or in a worker. What is not even begun within max_length has no row, unless it is to be cut."""
    if over_length != "cut":
        items = [(key, messages) for key, messages in items if scorer.has_room(messages[:-1])]
    scores = list(scorer.score([messages for _, messages in items]))
    return [ScoredRow(key, s.reward, s.truncated) for (key, _), s in zip(items, scores, strict=True)]


def _require_whole(section: ClassifierGold, rows: Mapping[str, ScoredRow], responses: Iterable[Response]) -> None:
    too_long = [messages for _, key, messages in _keyed(responses) if key not in rows or rows[key].truncated]
    if too_long:
        from rm_assets.backends.tokenization import load_renderer

        num_tokens = [len(row.ids) for row in load_renderer(section.model).encode(too_long)]
        raise ModelError(
            "MODEL_005",
            f"{len(too_long)} responses are too long for the gold model, the longest with its prompt has "
            f"{max(num_tokens)} tokens",
            why=f"gold.max_length is {section.max_length} and gold.over_length is 'error'",
            fix="raise max_length if the model's context allows it, or set over_length to cut or drop",
        )


def _keyed(responses: Iterable[Response]) -> Iterator[tuple[Response, str, Messages]]:
    for response in responses:
        messages = response_messages(response)
        yield response, digest(messages), messages
