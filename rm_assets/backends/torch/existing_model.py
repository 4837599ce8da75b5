"""A reward model that is there already, written as a trained one is: whole, in safetensors, with its template and pad token."""

from pathlib import Path
from typing import Any

import torch

from rm_assets.backends.loading_errors import quiet_transformers
from rm_assets.backends.pair_store import NUM_COMPARED
from rm_assets.backends.tokenization import check_context, load_renderer
from rm_assets.backends.torch.batch_comparison import compare_rows
from rm_assets.backends.torch.checkpoints import load_classifier
from rm_assets.backends.torch.devices import pick_device, takes_small_batches
from rm_assets.backends.torch.reward_forward import RewardForward, check_rope
from rm_assets.backends.torch.trainer import write_model
from rm_assets.core.recipe import ExecutionSection, ExistingModel
from rm_assets.core.records import Pair


def take_model(
    settings: ExistingModel, pairs: list[Pair], *, execution: ExecutionSection, checkpoint: Path, work: Path
) -> tuple[str | None, dict[str, float] | None]:
    """Writes the model into `checkpoint`; returns the commit on the Hub, and how its rewards of `pairs` depend on the batch.

    A copy, and no link: weights that somebody trains further in place must not change what was evaluated.
    Raises: ModelError MODEL_001 to MODEL_007.
    """
    ref, max_length, device = settings.model, settings.max_length, pick_device(execution.device)
    renderer = load_renderer(ref)
    model = load_classifier(ref, settings.dtype, torch.device("cpu"), renderer.tokenizer)
    check_context(ref, model.config, renderer, max_length)
    check_rope(model.config, max_length)
    commit = getattr(model.config, "_commit_hash", None)
    # Anything but "regression" makes transformers' pipelines put a sigmoid on the reward.
    model.config.problem_type = "regression"
    with quiet_transformers():
        write_model(model, renderer, checkpoint, work / "writing")
    sides = [renderer.encode([pair.chosen, pair.rejected]) for pair in pairs[:NUM_COMPARED]]
    rows = [row for both in sides if max(len(row.ids) for row in both) <= max_length for row in both]
    if not rows:
        return commit, None
    placed: Any = model
    forward = RewardForward(placed.to(device, torch.float32), int(renderer.tokenizer.pad_token_id))
    budget = execution.forward_tokens("scoring", on_cpu=takes_small_batches(device))
    return commit, compare_rows(forward, renderer.tokenizer, rows, budget)
