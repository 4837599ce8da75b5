"""The training loop in JAX: the pairs, batches, losses and updates of the native engine, one optimizer step after the other.

Shapes: P places for pairs, of which a micro-batch fills the first and gives the others no weight.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from rm_assets.backends import training_state
from rm_assets.backends.jax import packed_rows
from rm_assets.backends.jax.architecture import Architecture
from rm_assets.backends.jax.devices import by_rows, platform
from rm_assets.backends.jax.packed_rows import PackedRows, Tokens
from rm_assets.backends.jax.reward_forward import Parameters
from rm_assets.backends.jax.training_files import read_state, write_state
from rm_assets.backends.jax.training_step import (
    Model,
    add_gradients,
    clipping,
    first_state,
    losses_and_rewards,
    num_compilations,
    rewards_at_tokens,
    update,
    zeros,
)
from rm_assets.backends.pair_groups import pair_groups
from rm_assets.backends.pair_store import PairStore
from rm_assets.backends.prompt_groups import num_shared_tokens
from rm_assets.backends.step_control import LossGuard, rate_factor
from rm_assets.backends.token_budget import VALIDATION_BUDGET, TokenBudget
from rm_assets.backends.training_preparation import Prepared
from rm_assets.backends.training_progress import Misfit, Progress, StepLog, Sums
from rm_assets.core.protocols import Reporter
from rm_assets.core.recipe import ExecutionSection, TrainingSection
from rm_assets.core.training_order import Numbers, StepPairs

PROGRESS, STATE = "progress.json", "state.safetensors"
WORK_OF = {"add_gradients": "training", "rewards_at_tokens": "training", "losses_and_rewards": "scoring"}
"""Whose token budget the shapes of a function's rows are cut to."""
VALIDATION_WINDOW = 256
"""Pairs whose tokens are in memory at a time."""


@dataclass(frozen=True)
class Job:
    """One training, prepared."""

    ready: Prepared
    settings: TrainingSection
    execution: ExecutionSection
    seed: int
    mesh: Mesh
    work: Path
    reporter: Reporter
    architecture: Architecture

    @property
    def is_on_cpu(self) -> bool:
        """Whether the mesh is of processors, not of TPUs or GPUs."""
        return platform(self.mesh) == "cpu"

    def token_budget(self, work: Any) -> int:
        """Tokens in one forward pass of training or scoring, on each device."""
        return self.execution.forward_tokens(work, on_cpu=self.is_on_cpu)


@dataclass(frozen=True)
class MicroBatch:
    """What one forward pass computes, and the pairs that take their loss from it."""

    rows: PackedRows
    ends: "np.ndarray[Any, Any]"  # (P, 2) flat places of the last tokens of chosen and rejected
    numbers: Numbers  # of the pairs in the store
    num_pair_tokens: int


class TrainingLoop:
    """A training that is taken step by step, saved and resumed."""

    def __init__(self, job: Job, parameters: Parameters, *, dtype: Any) -> None:
        self._job, self.parameters = job, parameters
        self._compiled_before = num_compilations()
        settings, recompute = job.settings, job.execution.gradient_checkpointing
        is_recomputed = recompute == "always" or (recompute == "auto" and not job.is_on_cpu)
        self._model = Model(job.architecture, dtype, job.mesh, is_recomputed, settings.objective, settings.centering)
        self._state = first_state(job.mesh, settings.weight_decay, parameters)
        self._guard = LossGuard(settings.max_loss_spike)
        self._pairs = StepPairs(job.ready.store.prompt, job.ready.plan, settings, seed=job.seed)
        self.progress, self._budget = Progress(), TokenBudget(job.token_budget("training"), job.reporter)
        self._validation_budget = TokenBudget(job.token_budget("scoring"), job.reporter, VALIDATION_BUDGET)
        if job.ready.state is not None:
            self._resume(job.ready.state.folder)
        self._log = StepLog(self.progress, job.ready.plan.num_optimizer_steps, job.reporter)

    def run(self) -> None:
        """Takes every step that is left, or until validation says stop; then the best weights are there where validation chose them."""
        job, progress = self._job, self.progress
        while progress.step < job.ready.plan.num_optimizer_steps and not progress.is_over:
            self._take_step()
        if progress.best_step is not None:
            self.parameters = read_state(self.parameters, training_state.best_file(job.work, progress.best_step))
            job.reporter.log(f"kept the weights of step {progress.best_step}")

    @property
    def _longest(self) -> int:
        """Tokens of a group at most: two rows of a pair that share nothing. Attention takes the square of a row's tokens."""
        return 2 * self._job.settings.max_length

    @property
    def facts(self) -> dict[str, int]:
        """What else a manifest says of the training."""
        return self._budget.facts | self._validation_budget.facts

    @property
    def num_compilations(self) -> dict[str, int]:
        """How often XLA has compiled each function for this training; what the process had compiled before is not in it."""
        return {name: number - self._compiled_before[name] for name, number in num_compilations().items()}

    def _check_compilations(self) -> None:
        """Shapes are a fixed set: of rows as many as there can be, of weights one."""
        most = {
            name: sum(packed_rows.most_shapes(self._longest, budget) for budget in self._budgets(work))
            for name, work in WORK_OF.items()
        }
        for name, number in self.num_compilations.items():
            assert number <= most.get(name, 1), f"{name} was compiled {number} times"

    def _budgets(self, work: str) -> set[int]:
        """The token budgets that there have been: the recipe's, and half of it for want of memory."""
        now = self._budget if work == "training" else self._validation_budget
        return {self._job.token_budget(work), now.tokens}

    def _take_step(self) -> None:
        job, progress, plan = self._job, self.progress, self._job.ready.plan
        numbers = self._pairs.of_step(progress.step)
        loss, gradients, sums = self._backward(numbers)
        factor, norm = clipping(gradients, job.settings.max_grad_norm)
        rate = job.settings.learning_rate * rate_factor(progress.step, plan, job.settings.schedule)
        progress.step += 1
        if self._guard.accepts(progress.step, loss, norm):
            self.parameters, self._state = update(
                job.mesh, job.settings.weight_decay, self.parameters, self._state, gradients, factor, rate
            )
        else:
            job.reporter.log(f"step {progress.step} skipped: its loss is {loss:.4g}")
        progress.sums.merge(sums)
        is_last = progress.step == plan.num_optimizer_steps
        figures = self._validate(is_last)
        if progress.step % plan.log_every == 0 or is_last or figures:
            self._log.tell(progress, {"grad_norm": norm, "learning_rate": rate, **figures})
        if progress.step % job.execution.save_every_steps == 0 or is_last or progress.is_over:
            self._save()

    def _backward(self, numbers: Numbers) -> tuple[float, Parameters, Sums]:
        """A step's loss, its gradients, and sums over its pairs; begins again with half the token budget for want of memory."""
        progress = self.progress
        before = progress.num_tokens, progress.num_pair_tokens

        def attempt(token_budget: int) -> tuple[float, Parameters, Sums]:
            progress.num_tokens, progress.num_pair_tokens = before
            return self._backward_within(token_budget, numbers)

        return self._budget.spend(attempt)

    def _backward_within(self, token_budget: int, numbers: Numbers) -> tuple[float, Parameters, Sums]:
        job, sums = self._job, Sums()
        total = float(self._pairs.weights(numbers).sum())
        gradients = zeros(job.mesh, self.parameters)
        store, most = job.ready.store, job.settings.pairs_per_step
        for batch in self._micro_batches(store, numbers, token_budget, most):
            weights = self._pairs.weights(batch.numbers)
            shares = _filled(weights / total, most)
            gold = _filled(store.gold(batch.numbers), most)
            gradients, losses, sides = add_gradients(
                self._model, self.parameters, gradients, self._placed(batch.rows.tokens), batch.ends, gold, shares
            )
            self.progress.num_tokens += batch.rows.num_tokens
            self.progress.num_pair_tokens += batch.num_pair_tokens
            _add(sums, losses, sides, weights)
        self._check_compilations()
        return sums.loss / total, gradients, sums

    def rewards(self, tokens: Tokens) -> "np.ndarray[Any, Any]":
        """(B, T) rewards by the weights of this moment."""
        return np.asarray(rewards_at_tokens(self._model, self.parameters, self._placed(tokens)))

    def pair_figures(self) -> dict[str, float]:
        """Loss, accuracy and margin of the validation pairs, each of which weighs the same."""
        return self._validation_budget.spend(self._validation_sums).figures()

    def _validation_sums(self, token_budget: int) -> Sums:
        sums, store = Sums(), self._job.ready.validation
        for start in range(0, len(store), VALIDATION_WINDOW):
            numbers = np.arange(start, min(start + VALIDATION_WINDOW, len(store)))
            for batch in self._micro_batches(store, numbers, token_budget, VALIDATION_WINDOW):
                gold = _filled(store.gold(batch.numbers), VALIDATION_WINDOW)
                losses, sides = losses_and_rewards(
                    self._model, self.parameters, self._placed(batch.rows.tokens), batch.ends, gold
                )  # fmt: skip
                _add(sums, losses, sides, np.ones(len(batch.numbers)))
        return sums

    def _validate(self, is_last: bool) -> dict[str, float]:
        """Figures of the validation pairs where they are due; keeps the best weights and says when to stop."""
        job, progress, wanted = self._job, self.progress, self._job.settings.validation
        if wanted is None or not len(job.ready.validation) or (progress.step % wanted.every_steps and not is_last):
            return {}
        figures = self.pair_figures()
        if progress.look(wanted, figures, job.reporter):
            write_state(self.parameters, training_state.best_file(job.work, progress.step))
            training_state.keep_best(job.work, progress.step)
        return {f"validation_{name}": figures[name] for name in ("loss", "accuracy")}

    def _micro_batches(self, store: PairStore, numbers: Numbers, budget: int, most: int) -> Iterator[MicroBatch]:
        """The pairs `numbers`, each with both of its sides in one micro-batch."""
        groups = pair_groups(store, numbers, num_shared_tokens, min(budget, self._longest))
        rows = [group.rows for group in groups]
        for batch in packed_rows.batches(rows, budget, self._job.mesh.size):
            packed = packed_rows.pack(rows, batch, int(self._job.ready.renderer.tokenizer.pad_token_id))
            sides, taken, num_pair_tokens = [], [], 0
            members = [groups[place] for row in batch.rows for place in row]
            for group, ends in zip(members, packed.ends, strict=True):
                for number, chosen, rejected in group.pairs:
                    sides.append((ends[chosen], ends[rejected]))
                    taken.append(number)
                    num_pair_tokens += len(group.rows[chosen].ids) + len(group.rows[rejected].ids)
            yield MicroBatch(packed, _filled(np.array(sides, np.int32), most), np.array(taken), num_pair_tokens)

    def _placed(self, tokens: Tokens) -> Tokens:
        placed: Tokens = jax.device_put(tokens, by_rows(self._job.mesh))
        return placed

    def _save(self) -> None:
        """A state to resume from; it counts only once it is marked as complete."""
        work, progress = self._job.work, self.progress
        progress.guard, progress.num_spikes = self._guard.state(), self._guard.num_spikes
        folder = work / f"checkpoint-{progress.step}"
        write_state((self.parameters, self._state), folder / STATE)
        progress.write(folder / PROGRESS)
        best = [] if progress.best_step is None else [training_state.best_file(work, progress.best_step)]
        training_state.mark_complete(folder, *best)
        training_state.keep_newest(work, 2)

    def _resume(self, folder: Path) -> None:
        """Goes on exactly where a state was saved. A state that does not fit is dropped: training begins anew."""
        job = self._job
        try:
            progress = Progress.read(folder / PROGRESS)
            self.parameters, self._state = read_state((self.parameters, self._state), folder / STATE)
        except Misfit as misfit:
            job.reporter.log(f"starting from step 0, because {folder.name} does not fit: {misfit}")
            training_state.discard(job.work)
            return
        self.progress = progress
        self._guard = LossGuard(job.settings.max_loss_spike, progress.guard, progress.num_spikes)


def _filled(values: "np.ndarray[Any, Any]", most: int) -> "np.ndarray[Any, Any]":
    """The values with zeros behind them, so that XLA sees one shape."""
    filled = np.zeros((most, *values.shape[1:]), values.dtype)
    filled[: len(values)] = values
    return filled


def _add(sums: Sums, losses: jax.Array, sides: jax.Array, weights: Numbers) -> None:
    """Adds the pairs of a micro-batch, which are the first as many as there are weights."""
    own, rewards = (np.asarray(values)[: len(weights)].astype(np.float64) for values in (losses, sides))
    margins = rewards[:, 0] - rewards[:, 1]
    num_right = float((margins > 0).sum() + 0.5 * (margins == 0).sum())
    sums.merge(
        Sums(float(weights.sum()), float((own * weights).sum()), len(weights), num_right, float(margins.sum()))
    )  # fmt: skip
