"""Subjects that score: from conversations to rewards, in the product and in the plain loop over padded batches."""

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification
from transformers.utils import logging

from benchmarks.checkpoints import build_tokenizer, conversations
from benchmarks.measure import Cost, Stopwatch
from benchmarks.workloads import MAX_LENGTH, Item
from rm_assets.backends.torch.scorer import TorchScorer
from rm_assets.core.protocols import QuietReporter
from rm_assets.core.recipe import ExecutionSection, ModelRef
from rm_assets.core.records import Messages

ROWS_PER_BATCH = 32


@dataclass(frozen=True)
class Scored:
    """What one pass over all conversations took, and their rewards."""

    cost: Cost
    rewards: list[float]


class _Subject(ABC):
    def __init__(self, items: list[Item], checkpoint: Path, device: str, dtype: str) -> None:
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        warnings.simplefilter("ignore")
        self._conversations = [messages for item in items for messages in conversations(item)]
        self.load(checkpoint, device, dtype)
        self.rewards(self._conversations[:8])

    def run(self, *, round_number: int = 0) -> Scored:
        """One pass over all conversations."""
        watch = Stopwatch()
        rewards = self.rewards(self._conversations)
        return Scored(watch.cost(), rewards)

    @abstractmethod
    def load(self, checkpoint: Path, device: str, dtype: Any) -> None:
        """Once, untimed."""

    @abstractmethod
    def rewards(self, rows: list[Messages]) -> list[float]:
        """One a conversation, in their order."""


class Product(_Subject):
    """`TorchScorer` as the gold_rewards task calls it, with its default token budget."""

    def load(self, checkpoint: Path, device: str, dtype: Any) -> None:
        """The scorer."""
        self._scorer = TorchScorer(
            ModelRef(path=str(checkpoint)), max_length=MAX_LENGTH, dtype=dtype, device=torch.device(device),
            token_budget=ExecutionSection().forward_tokens("scoring", on_cpu=device == "cpu"), reporter=QuietReporter(),
        )  # fmt: skip

    def rewards(self, rows: list[Messages]) -> list[float]:
        """Through the public method."""
        return [score.reward for score in self._scorer.score(rows)]


class Plain(_Subject):
    """Batches of 32 in the order given, padded to the longest, SDPA."""

    def load(self, checkpoint: Path, device: str, dtype: Any) -> None:
        """Model and tokenizer."""
        self._tokenizer = build_tokenizer()
        self._model: Any = AutoModelForSequenceClassification.from_pretrained(
            checkpoint, attn_implementation="sdpa", dtype=getattr(torch, dtype)
        )
        self._model.to(device).eval()

    def rewards(self, rows: list[Messages]) -> list[float]:
        """Template, tokenizer, model."""
        rewards: list[float] = []
        with torch.inference_mode():
            for start in range(0, len(rows), ROWS_PER_BATCH):
                texts = self._tokenizer.apply_chat_template(rows[start : start + ROWS_PER_BATCH], tokenize=False)
                batch = self._tokenizer(
                    texts, add_special_tokens=False, padding=True, padding_side="right", return_tensors="pt"
                ).to(self._model.device)
                logits = self._model(
                    input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
                ).logits
                rewards += logits[:, 0].float().tolist()
        return rewards
