"""Which pairs are trained on and in which order: a function of the seed and the epoch alone, so that every process knows it."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from rm_assets.core.digests import unit_interval
from rm_assets.core.planning.arithmetic import num_optimizer_steps, num_warmup_steps
from rm_assets.core.recipe import TrainingSection

Numbers = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class StepPlan:
    """How N pairs become optimizer steps."""

    num_pairs: int
    pairs_per_step: int
    num_optimizer_steps: int
    num_warmup_steps: int

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass over the pairs; the last of them may have fewer pairs."""
        return math.ceil(self.num_pairs / self.pairs_per_step)

    @property
    def log_every(self) -> int:
        """Steps between two logs: at least 50 logs where there are so many steps."""
        return max(1, min(10, self.num_optimizer_steps // 50))


def make_plan(num_pairs: int, settings: TrainingSection) -> StepPlan:
    """Optimizer and warm-up steps of a training."""
    num_steps = num_optimizer_steps(num_pairs, settings.pairs_per_step, settings.num_epochs)
    if settings.max_optimizer_steps is not None:
        num_steps = min(num_steps, settings.max_optimizer_steps)
    return StepPlan(num_pairs, settings.pairs_per_step, num_steps, num_warmup_steps(num_steps, settings.warmup_ratio))


def is_in_share(prompt_id: str, share: float, *, seed: int) -> bool:
    """Whether a training prompt is among the share that is trained on.

    It depends on no other prompt: a larger share contains a smaller one, and a new prompt changes nothing for the rest.
    """
    return share == 1 or unit_interval("share of prompts", seed, prompt_id) < share


def epoch_order(prompts: Numbers, *, seed: int, epoch: int, shuffle: str) -> Numbers:
    """(N,) pair numbers in the order of one epoch. `prompts` (N,) numbers each pair's prompt from 0.

    "pairs" shuffles pairs; "prompts" shuffles prompts and keeps the pairs of a prompt together.
    """
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch])))
    if shuffle == "pairs":
        return rng.permutation(len(prompts))
    place = rng.permutation(int(prompts.max()) + 1).astype(np.int32)
    return np.argsort(place[prompts], kind="stable")


def step_slice(plan: StepPlan, step: int) -> tuple[int, slice]:
    """Epoch of an optimizer step (from 0), and the places of its pairs in the order of that epoch."""
    epoch, index = divmod(step, plan.steps_per_epoch)
    start = index * plan.pairs_per_step
    return epoch, slice(start, min(start + plan.pairs_per_step, plan.num_pairs))


class StepPairs:
    """The pairs of each optimizer step, and what each of them weighs in the step's loss."""

    def __init__(self, prompts: Numbers, plan: StepPlan, settings: TrainingSection, *, seed: int) -> None:
        """`prompts` as in `epoch_order`."""
        self._prompts, self._plan, self._shuffle, self._seed = prompts, plan, settings.shuffle, seed
        self._num_of_prompt = np.bincount(prompts) if settings.weighting == "prompt" else None
        self._epoch, self._order = -1, np.zeros(0, np.int64)

    def of_step(self, step: int) -> Numbers:
        """(B,) pair numbers of a step, counted from 0."""
        epoch, where = step_slice(self._plan, step)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = epoch_order(self._prompts, seed=self._seed, epoch=epoch, shuffle=self._shuffle)
        return self._order[where]

    def weights(self, numbers: Numbers) -> Numbers:
        """(B,) weight of each pair: 1, or 1 / number of its prompt's pairs."""
        if self._num_of_prompt is None:
            return np.ones(len(numbers))
        weights: Numbers = 1.0 / self._num_of_prompt[self._prompts[numbers]]
        return weights
