"""Rewards of any reward model, kept by content: what one scorer gave to a conversation is not computed twice."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rm_assets.core.digests import digest
from rm_assets.core.protocols import LogReporter, Reporter, Score
from rm_assets.core.recipe import ExecutionSection, ModelRef
from rm_assets.core.records import Messages
from rm_assets.storage.shards import ShardLog

if TYPE_CHECKING:
    from rm_assets.backends.torch.scorer import TorchScorer

ROWS_VERSION = 1
"""To be raised when these rows are computed otherwise; those of another version are not taken."""
SHARD_SIZE = 1_024
"""Conversations that are committed together: the unit of resume."""


@dataclass(frozen=True)
class KeptScore:
    """A reward by the hash of its conversation, within the log of one model."""

    key: str
    reward: float
    num_tokens: int
    truncated: bool


class KeptScorer:
    """A scorer that loads its model's weights only where something is missing.

    `weights` is the fingerprint of a local folder, None for the Hub, whose commit is found when the model is looked at.
    `max_length` is lowered to what the model can read.
    """

    def __init__(
        self,
        home: Path,
        model: ModelRef,
        weights: str | None,
        *,
        max_length: int,
        execution: ExecutionSection,
        reporter: Reporter,
    ) -> None:
        from rm_assets.backends.tokenization import context_length, load_config, load_renderer
        from rm_assets.backends.torch.checkpoints import identity
        from rm_assets.backends.torch.devices import pick_device
        from rm_assets.backends.torch.scorer import FORWARD_VERSION

        self._model, self._execution, self._reporter = model, execution, reporter
        config, self._renderer = load_config(model), load_renderer(model)
        self.max_length = min(max_length, context_length(config, self._renderer.tokenizer) or max_length)
        self._device = pick_device(execution.device)
        scorer = {
            "weights": weights or model.hub_id,
            "max_length": self.max_length,
            "pad_token": self._renderer.tokenizer.pad_token,
            "forward": FORWARD_VERSION,
            "rows": ROWS_VERSION,
            **identity(config, self._renderer, "float32", self._device),
        }
        self._log = ShardLog(home, "rewards", scorer, KeptScore)
        self._scorer: TorchScorer | None = None
        self.num_scored = 0

    def has_room(self, prompt: Messages) -> bool:
        """Whether the prompt leaves room for a response within `max_length`."""
        return len(self._renderer.encode_prompts([prompt])[0]) < self.max_length

    def score(self, conversations: Iterable[Messages]) -> Iterator[Score]:
        """As `TorchScorer.score`."""
        keyed = [(digest(messages), messages) for messages in conversations]
        rows, num_missing = self._log.complete(
            lambda: ((key, (key, messages)) for key, messages in keyed), self._compute, SHARD_SIZE
        )
        self.num_scored += num_missing
        for key, _ in keyed:
            yield Score(rows[key].reward, rows[key].num_tokens, rows[key].truncated)

    def _compute(self, items: list[tuple[str, Messages]]) -> list[KeptScore]:
        from rm_assets.backends.torch.devices import takes_small_batches
        from rm_assets.backends.torch.scorer import TorchScorer

        if self._scorer is None:
            budget = self._execution.forward_tokens("scoring", on_cpu=takes_small_batches(self._device))
            self._scorer = TorchScorer(
                self._model, max_length=self.max_length, dtype="float32", device=self._device, token_budget=budget,
                reporter=LogReporter(self._reporter),
            )  # fmt: skip
        scores = list(self._scorer.score(messages for _, messages in items))
        return [KeptScore(key, s.reward, s.num_tokens, s.truncated) for (key, _), s in zip(items, scores, strict=True)]
