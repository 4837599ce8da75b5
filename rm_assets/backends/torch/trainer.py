"""Training of a reward model: pairs to token ids, an engine that fits, validation, and the checkpoint.

Two engines fit: native_engine.py, and trl_engine.py with TRL's RewardTrainer, which is kept as the reference. Both get
the same token ids in the same order. Imports of PyTorch are inside the functions: naming the trainer costs nothing.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rm_assets.core.errors import ModelError, RecipeError
from rm_assets.core.protocols import ADAPTER, Reporter, TrainingResult
from rm_assets.core.recipe import ExecutionSection, TrainingSection
from rm_assets.core.records import Pair

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from transformers import PreTrainedModel

    from rm_assets.backends.rendering import Renderer
    from rm_assets.backends.torch.fit import FitJob, Fitted

STATE_PACKAGES = ("torch", "transformers", "accelerate", "peft")
"""Packages of which another version may continue a training differently, or name its weights differently."""


class TorchTrainer:
    """Pairs to a reward model with PyTorch."""

    def train(
        self,
        pairs: Iterable[Pair],
        validation_pairs: Iterable[Pair],
        *,
        settings: TrainingSection,
        execution: ExecutionSection,
        seed: int,
        checkpoint: Path,
        work: Path,
        reporter: Reporter,
    ) -> TrainingResult:
        """Trains, resuming from `work` if it holds a state of this very training, and writes `checkpoint`.

        The adapter of a LoRA training is left beside it. `work` lies on the file system of `checkpoint`. It can be removed once `trained_pair_ids`, which are read from
        there when they are taken, are used.
        Raises: ModelError MODEL_001 to MODEL_010, DataError DATA_005 if no pair is left.
        """
        from rm_assets.backends import loading_errors, tokenization, training_state
        from rm_assets.backends.room import require_room_to_train
        from rm_assets.backends.torch.batch_comparison import compare_batches
        from rm_assets.backends.torch.devices import device_name
        from rm_assets.backends.torch.fit import FitJob, pair_figures
        from rm_assets.backends.torch.memory import room_on
        from rm_assets.backends.torch.reward_forward import RewardForward, check_rope
        from rm_assets.backends.training_preparation import prepare

        device = _device(settings, execution)
        config = tokenization.load_config(settings.base)
        check_rope(config, settings.max_length)
        num_processes = 1 if settings.engine == "trl" else execution.num_processes
        require_room_to_train(config, settings, room_on(device, num_processes), reporter)
        ready = prepare(
            pairs, validation_pairs, settings=settings, seed=seed, work=work, reporter=reporter, packages=STATE_PACKAGES
        )
        store, validation, plan, renderer = ready.store, ready.validation, ready.plan, ready.renderer
        reporter.training_begins(plan.num_optimizer_steps, device_name(device, execution.num_processes))
        job = FitJob(store, validation, plan, settings, execution, seed, device, renderer, work, ready.state, reporter)
        with loading_errors.quiet_transformers():
            fitted = _engine(settings.engine)(job)
            fitted.model.train(False)
            forward = RewardForward(fitted.model, int(renderer.tokenizer.pad_token_id))
            accuracy = pair_figures(job, forward)["accuracy"] if len(validation) else None
            comparison = compare_batches(forward, renderer.tokenizer, store, job.token_budget)
            write_model(fitted.model, renderer, checkpoint, work / training_state.WRITING)
            _keep_adapter(work / ADAPTER, checkpoint.parent / ADAPTER)
        return TrainingResult(
            num_pairs=store.counts,
            trained_pair_ids=store.pair_ids(),
            num_optimizer_steps=fitted.num_optimizer_steps,
            num_tokens=fitted.num_tokens,
            num_pair_tokens=fitted.num_pair_tokens,
            final_loss=fitted.history[-1]["loss"],
            validation_accuracy=accuracy,
            batch_comparison=comparison,
            history=fitted.history,
            facts=fitted.facts | job.validation_budget.facts,
        )


def _engine(name: str) -> "Callable[[FitJob], Fitted]":
    if name == "trl":
        from rm_assets.backends.torch import trl_engine

        return trl_engine.fit
    from rm_assets.backends.torch import native_engine

    return native_engine.fit


def _device(settings: TrainingSection, execution: ExecutionSection) -> "torch.device":
    from rm_assets.backends.torch.devices import pick_device

    device = pick_device(execution.device)
    if settings.dtype == "float16" and device.type != "cuda":
        raise RecipeError(
            "RECIPE_003",
            f"training.dtype is float16, which cannot train on {device.type}",
            fix="set training.dtype to float32 or bfloat16",
        )
    return device


def write_model(model: "PreTrainedModel", renderer: "Renderer", checkpoint: Path, temporary: Path) -> None:
    """Model, tokenizer and configuration under a temporary name, then renamed. Raises: ModelError MODEL_006."""
    broken = [name for name, weight in model.named_parameters() if not bool(weight.isfinite().all())]
    if broken:
        raise ModelError(
            "MODEL_006",
            f"The weights {', '.join(broken[:3])} are not finite",
            fix="lower learning_rate, raise warmup_ratio, or use dtype bfloat16 or float32",
        )
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(temporary)
    renderer.tokenizer.save_pretrained(temporary)
    if checkpoint.exists():
        shutil.rmtree(checkpoint)
    temporary.rename(checkpoint)


def _keep_adapter(adapter: Path, kept: Path) -> None:
    """What an earlier process may have left goes; what this training has made is moved there."""
    shutil.rmtree(kept, ignore_errors=True)
    if adapter.is_dir():
        adapter.rename(kept)
