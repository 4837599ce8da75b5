"""The training loop: each prompt and each response of an optimizer step is computed once.

A step is the recipe's number of pairs, cut into micro-batches of a token budget; its loss is the weighted sum over the
pairs divided by the sum of the weights, so the update is that of one large padded batch.
"""

import math
import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState

from rm_assets.backends import training_state
from rm_assets.backends.step_control import LossGuard, rate_factor
from rm_assets.backends.token_budget import TokenBudget
from rm_assets.backends.torch import distributed
from rm_assets.backends.torch.checkpoints import DTYPES, load_base_for_reward
from rm_assets.backends.torch.distributed import World
from rm_assets.backends.torch.fit import FitJob, Fitted, add_pairs, gold_of, pair_figures
from rm_assets.backends.torch.lora import Adapter
from rm_assets.backends.torch.memory import recomputes_activations
from rm_assets.backends.torch.objectives import pair_losses
from rm_assets.backends.torch.optimization import build_optimizer
from rm_assets.backends.torch.reward_forward import RewardForward
from rm_assets.backends.torch.step_profile import FIRST_STEP, StepProfile, memory_figures
from rm_assets.backends.torch.trained_weights import (
    OPTIMIZER,
    WEIGHTS,
    Weights,
    check,
    load_optimizer,
    load_weights,
    save_optimizer,
    save_weights,
    whole,
)
from rm_assets.backends.torch.training_batches import MicroBatch, micro_batches, pair_rewards
from rm_assets.backends.training_progress import Misfit, Progress, StepLog, Sums
from rm_assets.core.protocols import ADAPTER
from rm_assets.core.training_order import Numbers, StepPairs

PROGRESS, PROFILE = "progress.json", "profile"
MIXED_PRECISION = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}


def fit(job: FitJob) -> Fitted:
    """Trains to the last step, or until validation says stop."""
    if job.execution.num_processes == 1:
        return train_to_the_end(job).finish()
    distributed.run(job)
    state = training_state.newest(job.work)
    assert state is not None, "the last step saves a state"
    loop = TrainingLoop(job)
    loop.take_over(state.folder)
    return loop.finish()


def train_to_the_end(job: FitJob) -> "TrainingLoop":
    """Takes every step that is left."""
    loop = TrainingLoop(job)
    if job.state is not None:
        loop.resume(job.state.folder)
    while loop.progress.step < job.plan.num_optimizer_steps and not loop.progress.is_over:
        loop.take_step()
    loop.end_profile()
    return loop


class TrainingLoop:
    """A training that can be taken step by step, saved and resumed."""

    def __init__(self, job: FitJob) -> None:
        self._job, settings = job, job.settings
        if job.execution.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS refuses
        torch.use_deterministic_algorithms(job.execution.deterministic)
        # Accelerate keeps precision and accumulation for the whole process; an earlier training must not reach in here.
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        self._accelerator = Accelerator(
            cpu=job.device.type == "cpu", mixed_precision=MIXED_PRECISION[settings.dtype]
        )  # fmt: skip
        model = load_base_for_reward(settings.base, seed=job.seed, device=job.device, tokenizer=job.renderer.tokenizer)
        disable_dropout(model)
        self._adapter = settings.lora and Adapter(model, settings.lora, seed=job.seed, dtype=settings.dtype)
        if recomputes_activations(
            model, job.execution.gradient_checkpointing, device=job.device, reporter=job.reporter,
            tokens_per_forward=max(job.token_budget, 2 * job.store.longest), activation_bytes=DTYPES[settings.dtype].itemsize,
        ):  # fmt: skip
            model.activation_checkpointing_enable()
        self._model = model.train()
        self._world = World()
        forward = RewardForward(model, int(job.renderer.tokenizer.pad_token_id))
        self._world.shard(forward)
        # For evaluation, as Accelerate calls it: it sets up the precision and leaves sharding alone.
        self._forward = self._accelerator.prepare_model(forward, evaluation_mode=True)
        self._optimizer = self._accelerator.prepare_optimizer(build_optimizer(forward, settings))
        self._guard = LossGuard(settings.max_loss_spike)
        self._pairs = StepPairs(job.store.prompt, job.plan, settings, seed=job.seed)
        self.progress, self._budget = Progress(), TokenBudget(job.token_budget, job.reporter)
        self._profile = None
        if job.execution.profile and self._world.rank == 0:
            self._profile = StepProfile(job.work / PROFILE, job.device)
        self._log = StepLog(self.progress, job.plan.num_optimizer_steps, job.reporter)

    def take_step(self) -> None:
        """One optimizer step, with what is due after it: log, validation, state."""
        job, progress = self._job, self.progress
        if self._profile:
            self._profile.step_begins()
        loss, grad_norm, sums = self.backward(self._pairs.of_step(progress.step))
        rate = job.settings.learning_rate * rate_factor(progress.step, job.plan, job.settings.schedule)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        progress.step += 1
        is_scaled = job.settings.dtype == "float16"
        if self._guard.accepts(progress.step, loss, None if is_scaled else grad_norm):
            self._optimizer.step()
        else:
            if self._accelerator.scaler is not None:
                self._accelerator.scaler.update()  # it has seen the gradients of this step
            job.reporter.log(f"step {progress.step} skipped: its loss is {loss:.4g}")
        self._optimizer.zero_grad()
        self._mark("update")
        if self._profile:
            self._profile.step_ended()
        progress.sums.merge(sums)
        is_last = progress.step == job.plan.num_optimizer_steps
        figures = self._validate(is_last)
        if progress.step % job.plan.log_every == 0 or is_last or figures:
            # In float16 the norm may overflow; the scaler then skips the step by itself.
            norm = {"grad_norm": grad_norm} if math.isfinite(grad_norm) else {}
            self._log.tell(progress, {**norm, "learning_rate": rate, **figures}, memory_figures(job.device))
        if progress.step % job.execution.save_every_steps == 0 or is_last or progress.is_over:
            self._save()

    def backward(self, numbers: Numbers) -> tuple[float, float, Sums]:
        """Gradients of a step's loss; the loss, the gradient's norm before clipping, and sums over its pairs."""
        if self._world.size > 1:  # the others could not know that this one begins again
            return self._backward(numbers, self._budget.tokens)
        progress = self.progress
        before = progress.num_tokens, progress.num_pair_tokens

        def attempt(token_budget: int) -> tuple[float, float, Sums]:
            progress.num_tokens, progress.num_pair_tokens = before
            self._optimizer.zero_grad()
            return self._backward(numbers, token_budget)

        return self._budget.spend(attempt)

    def _backward(self, numbers: Numbers, token_budget: int) -> tuple[float, float, Sums]:
        job, sums = self._job, Sums()
        total = float(self._pairs.weights(numbers).sum())
        batches = micro_batches(self._forward, job.store, numbers, token_budget)
        for batch, counts in self._own(batches):
            self._mark("input")
            rewards = pair_rewards(self._forward, batch, job.device)
            gold = gold_of(job.store, batch.numbers, job.device)
            losses = pair_losses(rewards, gold, job.settings.objective, job.settings.centering)
            weights = torch.from_numpy(self._pairs.weights(batch.numbers)).to(losses)
            self._mark("forward")
            # Gradients are averaged over the processes.
            share = counts * self._world.size / total
            self._accelerator.backward((losses * weights).sum() * share)
            self._mark("backward")
            if counts:
                add_pairs(sums, losses, rewards, weights)
        sums.set(self._world.total(sums.values(), job.device))
        norm = whole(self._accelerator.clip_grad_norm_(self._forward.parameters(), job.settings.max_grad_norm))
        return sums.loss / total, float(norm), sums

    def _own(self, batches: Iterator[MicroBatch]) -> Iterator[tuple[MicroBatch, bool]]:
        """This process's micro-batches, and whether each counts; tokens are those of all processes."""
        counted = self._counted(batches)
        return ((batch, True) for batch in counted) if self._world.size == 1 else iter(self._world.share(list(counted)))

    def _counted(self, batches: Iterator[MicroBatch]) -> Iterator[MicroBatch]:
        while True:
            with self._profile.waiting() if self._profile else nullcontext():
                batch = next(batches, None)
            if batch is None:
                return
            self.progress.num_tokens += batch.rows.num_tokens
            self.progress.num_pair_tokens += batch.num_pair_tokens
            yield batch

    def end_profile(self) -> None:
        """Says what the profile found, where one was asked for."""
        if self._profile:
            self._profile.finish()
            self._job.reporter.log(
                self._profile.sentence or f"no profile: it needs more than {FIRST_STEP} optimizer steps"
            )

    def _mark(self, what: str) -> None:
        if self._profile:
            self._profile.mark(what)

    def _validate(self, is_last: bool) -> dict[str, float]:
        """Figures of the validation pairs where they are due; keeps the best weights and says when to stop."""
        job, progress, wanted = self._job, self.progress, self._job.settings.validation
        if wanted is None or not len(job.validation) or (progress.step % wanted.every_steps and not is_last):
            return {}
        self._model.train(False)
        figures = pair_figures(job, self._forward)
        self._model.train(True)
        # The processes may differ in the last digit, and all have to take part where weights are saved.
        figures[wanted.metric] = self._world.of_first(figures[wanted.metric], job.device)
        if progress.look(wanted, figures, job.reporter):
            save_weights(self._trained(), training_state.best_file(job.work, progress.step))
            if self._world.rank == 0:
                training_state.keep_best(job.work, progress.step)
        return {f"validation_{name}": figures[name] for name in ("loss", "accuracy")}

    def _save(self) -> None:
        """A state to resume from; it counts only once it is marked as complete."""
        work, progress = self._job.work, self.progress
        progress.guard, progress.num_spikes = self._guard.state(), self._guard.num_spikes
        folder = work / f"checkpoint-{progress.step}"
        save_weights(self._trained(), folder / WEIGHTS)
        save_optimizer(self._optimizer, self._trained(), folder / OPTIMIZER)
        if self._world.rank == 0:
            progress.write(folder / PROGRESS)
            best = [] if progress.best_step is None else [training_state.best_file(work, progress.best_step)]
            training_state.mark_complete(folder, *best)
            training_state.keep_newest(work, 2)

    def resume(self, folder: Path) -> None:
        """Goes on exactly where a state was saved. A state that does not fit is dropped: training begins anew."""
        job, misfit = self._job, ""
        try:
            progress = Progress.read(folder / PROGRESS)
            check(self._trained(), folder / WEIGHTS, folder / OPTIMIZER)
        except Misfit as found:
            misfit = str(found)
        # All have looked at the state before the first one removes it.
        if self._world.total([float(bool(misfit))], job.device)[0]:
            job.reporter.log(f"starting from step 0, because {folder.name} does not fit: {misfit}")
            if self._world.rank == 0:
                training_state.discard(job.work)
            return
        load_weights(self._trained(), folder / WEIGHTS)
        load_optimizer(self._optimizer, self._trained(), folder / OPTIMIZER)
        self.progress = progress
        self._guard = LossGuard(job.settings.max_loss_spike, progress.guard, progress.num_spikes)
        self._log = StepLog(progress, job.plan.num_optimizer_steps, job.reporter)

    def take_over(self, folder: Path) -> None:
        """What `finish` needs of a training that other processes have taken to its end."""
        load_weights(self._trained(), folder / WEIGHTS)
        self.progress = Progress.read(folder / PROGRESS)

    def finish(self) -> Fitted:
        """The trained model: the best one where validation chose it."""
        job, progress = self._job, self.progress
        if progress.best_step is not None:
            load_weights(self._trained(), training_state.best_file(job.work, progress.best_step))
            job.reporter.log(f"kept the weights of step {progress.best_step}")
        if self._adapter:
            self._adapter.save(job.work / ADAPTER)
        model = self._adapter.merged() if self._adapter else self._model
        return Fitted(
            model, progress.step, progress.num_tokens, progress.num_pair_tokens, progress.history, self._budget.facts
        )  # fmt: skip

    def _trained(self) -> Weights:
        return {name: weight for name, weight in self._model.named_parameters() if weight.requires_grad}


def disable_dropout(model: torch.nn.Module) -> None:
    """Rewards of a pair are compared, so noise that differs between the two is left out, as in TRL.

    Some models keep the rate as a number of their own, or read it from the config in every forward pass.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for holder in (*model.modules(), model.config):
        for name, value in vars(holder).items():
            if "drop" in name and isinstance(value, float):
                setattr(holder, name, 0.0)
