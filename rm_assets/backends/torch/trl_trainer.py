"""Bradley-Terry training of a reward model with TRL's RewardTrainer.

The pairs are rendered and counted here, so that nothing is dropped or rendered anew out of sight; TRL computes the loss
and steps. Imports of PyTorch and TRL are inside the functions: naming this trainer costs nothing.
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rm_assets.core.digests import digest, unit_interval
from rm_assets.core.errors import DataError, ModelError, RecipeError
from rm_assets.core.protocols import Reporter, TrainingResult
from rm_assets.core.recipe import ExecutionSection, TrainingSection
from rm_assets.core.records import Messages, Pair

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from rm_assets.backends.torch.rendering import Encoded, Renderer
    from rm_assets.backends.torch.training_state import State


@dataclass(frozen=True)
class EncodedPairs:
    """The pairs that can be trained on as (chosen, rejected) token ids, and what became of every pair."""

    pairs: list[Pair]
    rows: list[tuple["Encoded", "Encoded"]]
    counts: dict[str, int]


@dataclass(frozen=True)
class Plan:
    """How the pairs become optimizer steps."""

    pairs_per_forward: int
    num_accumulated: int
    num_optimizer_steps: int
    num_warmup_steps: int
    log_every: int


class TrlTrainer:
    """Pairs to a reward model; one process, one device."""

    def train(
        self,
        pairs: Sequence[Pair],
        validation_pairs: Sequence[Pair],
        *,
        settings: TrainingSection,
        execution: ExecutionSection,
        seed: int,
        checkpoint: Path,
        work: Path,
        reporter: Reporter,
    ) -> TrainingResult:
        """Trains, resuming from `work` if it holds a state of this very training, and writes `checkpoint`.

        `work` can be removed once this has returned.
        Raises: ModelError MODEL_001 to MODEL_006, DataError DATA_005 if no pair is left.
        """
        from rm_assets.backends.torch import checkpoints, loading_errors, training_state

        device = checkpoints.pick_device(execution.device)
        if settings.dtype == "float16" and device.type != "cuda":
            raise RecipeError(
                "RECIPE_003", f"training.dtype is float16, which cannot train on {device.type}",
                fix="set training.dtype to float32 or bfloat16",
            )  # fmt: skip
        renderer = checkpoints.load_renderer(settings.base)
        config = checkpoints.load_config(settings.base)
        checkpoints.check_context(settings.base, config, renderer, settings.max_length)
        checkpoints.require_pad_token(settings.base, config, renderer.tokenizer)
        encoded = encode_pairs(pairs, renderer, settings, seed, reporter)
        plan = make_plan(len(encoded.rows), settings, execution)
        state = training_state.prepare(work, _training_name(encoded, settings, seed))
        if state is not None:
            reporter.log(f"resuming after optimizer step {state.step} of {plan.num_optimizer_steps}")
        with loading_errors.quiet_transformers():
            model, result = _fit(encoded, plan, settings, execution, seed, device, renderer, work, state, reporter)
            model.train(False)
            accuracy = _validate(model, renderer, validation_pairs, settings, execution, reporter)
            _write(model, renderer, checkpoint)
        return TrainingResult(
            num_pairs=encoded.counts,
            trained_pair_ids=[pair.pair_id for pair in encoded.pairs],
            num_optimizer_steps=plan.num_optimizer_steps,
            validation_accuracy=accuracy,
            **result,
        )


def encode_pairs(
    pairs: Sequence[Pair], renderer: "Renderer", settings: TrainingSection, seed: int, reporter: Reporter
) -> EncodedPairs:
    """Token ids of the pairs that can be trained on; `counts` accounts for every pair.

    Raises: ModelError MODEL_005 for a pair over `max_length` with `over_length: error`, DataError DATA_005 if none
    is left.
    """
    rows = _encode_sides(pairs, renderer)
    _require_within(pairs, rows, settings)
    fits = [max(len(chosen.ids), len(rejected.ids)) <= settings.max_length for chosen, rejected in rows]
    differs = [chosen.ids != rejected.ids for chosen, rejected in rows]
    usable = [index for index in range(len(pairs)) if fits[index] and differs[index]]
    kept = usable
    if settings.max_train_pairs is not None and settings.max_train_pairs < len(usable):
        # By a hash of each pair, so that a larger subset contains the smaller ones.
        order = sorted(usable, key=lambda index: unit_interval("subset", seed, pairs[index].pair_id))
        kept = sorted(order[: settings.max_train_pairs])
    counts = {
        "in": len(pairs),
        "trained": len(kept),
        "over_length": fits.count(False),
        "identical_after_tokenization": sum(fit and not differ for fit, differ in zip(fits, differs, strict=True)),
        "set_aside": len(usable) - len(kept),
    }
    reporter.log("pairs: " + ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in counts.items()))
    if not kept:
        raise DataError(
            "DATA_005",
            f"None of {len(pairs)} training pairs is left",
            why=f"{counts['over_length']} are longer than max_length {settings.max_length}, "
            f"{counts['identical_after_tokenization']} have two responses of the same tokens",
            fix="raise training.max_length, or make pairs of responses that differ",
        )
    return EncodedPairs([pairs[index] for index in kept], [rows[index] for index in kept], counts)


def _encode_sides(pairs: Sequence[Pair], renderer: "Renderer") -> list[tuple["Encoded", "Encoded"]]:
    from rm_assets.backends.torch.scorer import require_real_end

    # A response that is in several pairs is rendered once.
    distinct: dict[str, Messages] = {}
    keys = [(json.dumps(pair.chosen), json.dumps(pair.rejected)) for pair in pairs]
    for pair, (chosen, rejected) in zip(pairs, keys, strict=True):
        distinct[chosen], distinct[rejected] = pair.chosen, pair.rejected
    encoded = dict(zip(distinct, renderer.encode(list(distinct.values())), strict=True))
    for pair, sides in zip(pairs, keys, strict=True):
        for key in sides:
            require_real_end(renderer, encoded[key], f"pair {pair.pair_id}")
    return [(encoded[chosen], encoded[rejected]) for chosen, rejected in keys]


def _require_within(
    pairs: Sequence[Pair], rows: Sequence[tuple["Encoded", "Encoded"]], settings: TrainingSection
) -> None:
    for pair, (chosen, rejected) in zip(pairs, rows, strict=True):
        length = max(len(chosen.ids), len(rejected.ids))
        if settings.over_length == "error" and length > settings.max_length:
            raise ModelError(
                "MODEL_005",
                f"Pair {pair.pair_id} ({pair.split}) has {length} tokens; training.max_length is {settings.max_length}",
                why="training.over_length is 'error'",
                fix="raise training.max_length, or set training.over_length to drop",
            )


def make_plan(num_pairs: int, settings: TrainingSection, execution: ExecutionSection) -> Plan:
    """Micro-batches, steps, warm-up and log interval; only the micro-batch depends on the machine."""
    most = min(execution.pairs_per_forward, settings.pairs_per_step)
    pairs_per_forward = next(size for size in range(most, 0, -1) if settings.pairs_per_step % size == 0)
    num_steps = max(1, math.ceil(settings.num_epochs * math.ceil(num_pairs / settings.pairs_per_step)))
    if settings.max_optimizer_steps is not None:
        num_steps = min(num_steps, settings.max_optimizer_steps)
    return Plan(
        pairs_per_forward=pairs_per_forward,
        num_accumulated=settings.pairs_per_step // pairs_per_forward,
        num_optimizer_steps=num_steps,
        # Rounded: the first step of a warm-up has rate 0, which must not be all of a very short training.
        num_warmup_steps=min(round(settings.warmup_ratio * num_steps), num_steps - 1),
        log_every=max(1, min(10, num_steps // 50)),
    )


def _training_name(encoded: EncodedPairs, settings: TrainingSection, seed: int) -> str:
    """Digest of the settings, the seed and every token: what decides the weights, apart from the base's own files."""
    tokens = hashlib.sha256()
    for chosen, rejected in encoded.rows:
        tokens.update(json.dumps([chosen.ids, rejected.ids]).encode())
    return digest({"settings": settings.model_dump(), "seed": seed, "tokens": tokens.hexdigest()})


def _fit(
    encoded: EncodedPairs, plan: Plan, settings: TrainingSection, execution: ExecutionSection, seed: int,
    device: "torch.device", renderer: "Renderer", work: Path, state: "State | None", reporter: Reporter,
) -> tuple["PreTrainedModel", dict[str, Any]]:  # fmt: skip
    """The trained model, with tokens, final loss and history."""
    from rm_assets.backends.torch import checkpoints, pair_trainer

    model = checkpoints.load_base_for_reward(settings.base, seed=seed, device=device, tokenizer=renderer.tokenizer)
    schedule = "constant_with_warmup" if settings.schedule == "constant" else settings.schedule
    options: dict[str, Any] = {
        "output_dir": str(work), "seed": seed, "max_steps": plan.num_optimizer_steps,
        "per_device_train_batch_size": plan.pairs_per_forward, "gradient_accumulation_steps": plan.num_accumulated,
        "learning_rate": settings.learning_rate, "lr_scheduler_type": schedule, "warmup_steps": plan.num_warmup_steps,
        "weight_decay": settings.weight_decay, "max_grad_norm": settings.max_grad_norm,
        "bf16": settings.dtype == "bfloat16", "fp16": settings.dtype == "float16",
        "activation_checkpointing": settings.gradient_checkpointing,
        "logging_steps": plan.log_every, "save_steps": execution.save_every_steps,
    }  # fmt: skip
    trainer = pair_trainer.PairTrainer(
        model=model,
        args=pair_trainer.build_config(options, device=device),
        dataset=pair_trainer.as_dataset(encoded.rows),
        collator=pair_trainer.PairCollator(int(renderer.tokenizer.pad_token_id)),
        processing_class=renderer.tokenizer,
        reporter=reporter,
    )
    trainer.fit(state)
    history = trainer.history()
    return model, {"num_tokens": trainer.num_tokens, "final_loss": history[-1]["loss"], "history": history}


def _validate(
    model: "PreTrainedModel", renderer: "Renderer", pairs: Sequence[Pair], settings: TrainingSection,
    execution: ExecutionSection, reporter: Reporter,
) -> float | None:  # fmt: skip
    """Share of the validation pairs within `max_length` in the right order, a tie counting half; None without any."""
    from rm_assets.backends.torch.scorer import score_encoded

    rows = _encode_sides(pairs, renderer)
    _require_within(pairs, rows, settings)
    kept = [
        index for index, sides in enumerate(rows) if max(len(side.ids) for side in sides) <= settings.max_length
    ]  # fmt: skip
    if len(kept) < len(pairs):
        reporter.log(f"{len(pairs) - len(kept)} of {len(pairs)} validation pairs are over length and left out")
    if not kept:
        return None
    sides = [side for index in kept for side in rows[index]]
    rewards = score_encoded(
        model, renderer, sides, execution.token_budget,
        name=lambda index: f"validation pair {pairs[kept[index // 2]].pair_id}",
    )  # fmt: skip
    margins = [chosen - rejected for chosen, rejected in zip(rewards[::2], rewards[1::2], strict=True)]
    return sum(1.0 if margin > 0 else 0.5 if margin == 0 else 0.0 for margin in margins) / len(margins)


def _write(model: "PreTrainedModel", renderer: "Renderer", checkpoint: Path) -> None:
    """Model, tokenizer and configuration under a temporary name, then renamed."""
    broken = [name for name, weight in model.named_parameters() if not bool(weight.isfinite().all())]
    if broken:
        raise ModelError(
            "MODEL_006", f"The trained weights {', '.join(broken[:3])} are not finite",
            fix="lower learning_rate, raise warmup_ratio, or train with dtype bfloat16 or float32",
        )  # fmt: skip
    temporary = checkpoint.with_name(f".{checkpoint.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary)
    renderer.tokenizer.save_pretrained(temporary)
    if checkpoint.exists():
        shutil.rmtree(checkpoint)
    temporary.rename(checkpoint)
