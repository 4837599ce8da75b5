"""What an engine is handed and what it gives back, and the figures of pairs that both engines report."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from rm_assets.backends.pair_store import PairStore
from rm_assets.backends.rendering import Renderer
from rm_assets.backends.token_budget import VALIDATION_BUDGET, TokenBudget
from rm_assets.backends.torch.devices import takes_small_batches
from rm_assets.backends.torch.objectives import pair_losses
from rm_assets.backends.torch.reward_forward import RewardForward
from rm_assets.backends.torch.training_batches import micro_batches, pair_rewards
from rm_assets.backends.training_progress import Sums
from rm_assets.backends.training_state import State
from rm_assets.core.protocols import Reporter
from rm_assets.core.recipe import ExecutionSection, TrainingSection
from rm_assets.core.training_order import Numbers, StepPlan

VALIDATION_WINDOW = 256
"""Pairs whose tokens are in memory at a time."""


@dataclass(frozen=True)
class FitJob:
    """One training, prepared: the engine needs nothing else."""

    store: PairStore
    validation: PairStore
    plan: StepPlan
    settings: TrainingSection
    execution: ExecutionSection
    seed: int
    device: torch.device
    renderer: Renderer
    work: Path
    state: State | None
    reporter: Reporter

    @property
    def token_budget(self) -> int:
        """Tokens in one forward pass."""
        return self.execution.forward_tokens("training", on_cpu=takes_small_batches(self.device))

    @cached_property
    def validation_budget(self) -> TokenBudget:
        """Tokens in one forward pass over validation pairs."""
        tokens = self.execution.forward_tokens("scoring", on_cpu=takes_small_batches(self.device))
        return TokenBudget(tokens, self.reporter, VALIDATION_BUDGET)


@dataclass(frozen=True)
class Fitted:
    """The trained model and the record of its training."""

    model: PreTrainedModel
    num_optimizer_steps: int
    num_tokens: int
    num_pair_tokens: int
    history: list[dict[str, float]]
    facts: dict[str, int] = field(default_factory=dict)


def add_pairs(
    sums: Sums, losses: torch.Tensor, rewards: torch.Tensor, weights: torch.Tensor | None = None
) -> None:  # fmt: skip
    """Adds (B,) losses, (B, 2) rewards and (B,) weights, of 1 each when not given."""
    margins, weights = rewards[:, 0] - rewards[:, 1], torch.ones_like(losses) if weights is None else weights
    right = (margins > 0) + 0.5 * (margins == 0)
    parts = torch.stack([weights.sum(), (losses * weights).sum(), right.sum(), margins.sum()])
    weight, loss, num_right, margin = (
        parts.detach().cpu().double().tolist()
    )  # one wait for the device, which may have no float64
    sums.merge(Sums(weight, loss, len(margins), num_right, margin))


def pair_figures(job: FitJob, forward: RewardForward) -> dict[str, float]:
    """Loss, accuracy and margin of the validation pairs, each of which weighs the same."""

    def compute(token_budget: int) -> Sums:
        sums = Sums()
        with torch.no_grad():
            for rewards, gold in _validation_rewards(job, forward, token_budget):
                add_pairs(sums, pair_losses(rewards, gold, job.settings.objective, job.settings.centering), rewards)
        return sums

    budget = job.validation_budget
    if job.execution.num_processes > 1:  # the others could not know that this one begins again
        return compute(budget.tokens).figures()
    return budget.spend(compute).figures()


def _validation_rewards(
    job: FitJob, forward: RewardForward, budget: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:  # fmt: skip
    """(B, 2) rewards and gold rewards."""
    for start in range(0, len(job.validation), VALIDATION_WINDOW):
        numbers = np.arange(start, min(start + VALIDATION_WINDOW, len(job.validation)))
        for batch in micro_batches(forward, job.validation, numbers, budget):
            yield pair_rewards(forward, batch, job.device), gold_of(job.validation, batch.numbers, job.device)


def gold_of(store: PairStore, numbers: Numbers, device: torch.device) -> torch.Tensor:
    """(B, 2) float32 gold rewards of chosen and rejected."""
    return torch.from_numpy(store.gold(numbers).copy()).to(device)
