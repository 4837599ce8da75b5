"""Gold rewards from a sequence classifier."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

from rm_assets.core.digests import digest
from rm_assets.core.errors import ModelError
from rm_assets.core.protocols import LogReporter
from rm_assets.core.recipe import ClassifierGold
from rm_assets.core.records import GoldReward, Messages, Response, response_messages
from rm_assets.storage.shards import ShardLog
from rm_assets.tasks.gold.labels import Labels
from rm_assets.tasks.scorers import load_scorer
from rm_assets.tasks.session import Task

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
    with task.store.device(reporter.waiting):
        scorer = load_scorer(
            section.model, section.backend, max_length=section.max_length, dtype=section.dtype, execution=execution,
            reporter=LogReporter(reporter),
        )  # fmt: skip
        # The policy for long responses is applied to the rows, whichever it was when they were computed.
        of_model = {key: value for key, value in settings.items() if key != "over_length"}
        log = ShardLog(task.store.home, "gold", {**of_model, **scorer.identity, "rows": ROWS_VERSION}, ScoredRow)
        progress = Counter[str]()

        def score_shard(items: list[tuple[str, Messages]]) -> list[ScoredRow]:
            if section.over_length != "cut":  # what is not even begun within max_length has no row
                items = [(key, messages) for key, messages in items if scorer.has_room(messages[:-1])]
            scores = list(scorer.score([messages for _, messages in items]))
            progress["done"] += len(scores)
            reporter.progress(progress["done"], progress["wanted"], "rewards")
            return [ScoredRow(key, s.reward, s.truncated) for (key, _), s in zip(items, scores, strict=True)]

        counts = task.inputs["sampled_responses"].counts
        rows, num_scored = log.complete(
            lambda: ((key, (key, messages)) for _, key, messages in _keyed(responses)),
            score_shard,
            execution.shard_prompts * ceil(counts["responses"] / counts["prompts"]),
            before=lambda done, wanted: progress.update(done=done, wanted=wanted),
        )
    if section.over_length == "error":
        _require_whole(section, scorer, rows, responses)
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


def _require_whole(
    section: ClassifierGold, scorer: "ConversationScorer", rows: Mapping[str, ScoredRow], responses: Iterable[Response]
) -> None:
    too_long = [messages for _, key, messages in _keyed(responses) if key not in rows or rows[key].truncated]
    if too_long:
        raise ModelError(
            "MODEL_005",
            f"{len(too_long)} responses are too long for the gold model, the longest with its prompt has "
            f"{max(map(scorer.num_tokens, too_long))} tokens",
            why=f"gold.max_length is {section.max_length} and gold.over_length is 'error'",
            fix="raise max_length if the model's context allows it, or set over_length to cut or drop",
        )


def _keyed(responses: Iterable[Response]) -> Iterator[tuple[Response, str, Messages]]:
    for response in responses:
        messages = response_messages(response)
        yield response, digest(messages), messages
