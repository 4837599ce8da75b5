"""Gold rewards from a sequence classifier."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import ceil

from rm_assets.core.digests import digest
from rm_assets.core.protocols import QuietReporter
from rm_assets.core.recipe import ClassifierGold
from rm_assets.core.records import GoldReward, Messages, Response, response_messages
from rm_assets.storage.shards import ShardLog
from rm_assets.tasks.gold.labels import Labels
from rm_assets.tasks.session import Task

ROWS_VERSION = 1
"""To be raised when a gold model's rewards are computed otherwise; committed shards of another version are not taken."""


@dataclass(frozen=True)
class ScoredRow:
    """A gold reward by its content key: the hash of the conversation, within the log of one gold model."""

    key: str
    reward: float
    truncated: bool


def label(task: Task, section: ClassifierGold, responses: Iterable[Response]) -> Labels:
    """Scores what no earlier run has scored with this very gold model."""
    from rm_assets.backends.torch.checkpoints import pick_device
    from rm_assets.backends.torch.scorer import TorchScorer

    execution, reporter = task.recipe.execution, task.reporter
    device = pick_device(execution.device)
    with task.store.device(reporter.log):
        scorer = TorchScorer(
            section.model,
            max_length=section.max_length,
            dtype=section.dtype,
            device=device,
            token_budget=execution.forward_tokens("scoring", on_cpu=device.type == "cpu"),
            reporter=QuietReporter(),
        )
        log = ShardLog(task.store.home, "gold", {**task.settings, **scorer.identity, "rows": ROWS_VERSION}, ScoredRow)
        progress = Counter[str]()

        def score_shard(items: list[tuple[str, Messages]]) -> list[ScoredRow]:
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
    rewards = (
        GoldReward(**vars(r), gold_reward=rows[key].reward, truncated=rows[key].truncated)
        for r, key, _ in _keyed(responses)
    )
    work = Counter({"responses scored": num_scored, "tokens forwarded": scorer.num_tokens_forwarded})
    return Labels(rewards, work=work)


def _keyed(responses: Iterable[Response]) -> Iterator[tuple[Response, str, Messages]]:
    for response in responses:
        messages = response_messages(response)
        yield response, digest(messages), messages
