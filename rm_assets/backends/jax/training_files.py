"""What a training in JAX writes: the state it goes on from, and the checkpoint that AutoModelForSequenceClassification loads."""

import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from transformers import PretrainedConfig

from rm_assets.backends.jax.architecture import Architecture
from rm_assets.backends.jax.checkpoints import WEIGHTS, layer_name
from rm_assets.backends.jax.reward_forward import LAYERS, Parameters
from rm_assets.backends.rendering import Renderer
from rm_assets.backends.training_progress import Misfit
from rm_assets.core.errors import ModelError


def write_state(tree: Any, file: Path) -> None:
    """Every array of the tree under its path in it; a reader never sees half a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}")
    leaves = jax.tree.leaves_with_path(tree)
    save_file({jax.tree_util.keystr(path): np.array(leaf) for path, leaf in leaves}, temporary)
    temporary.replace(file)


def read_state(like: Any, file: Path, device: jax.Device) -> Any:
    """The inverse of `write_state`, as a tree like the given one.

    Raises: Misfit if an array is missing, left over, or of another shape or type.
    """
    try:
        saved = load_file(file)
    except (OSError, SafetensorError) as error:
        raise Misfit(f"{file.name} cannot be read: {error}") from error
    wanted = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(like)}
    differing = sorted(
        name for name in {*saved, *wanted}
        if name not in saved or name not in wanted
        or (saved[name].shape, saved[name].dtype) != (wanted[name].shape, wanted[name].dtype)
    )  # fmt: skip
    if differing:
        raise Misfit(f"{file.name} and the model differ in {', '.join(differing[:3])}")
    placed = [jax.device_put(saved[name], device) for name in wanted]
    return jax.tree.unflatten(jax.tree.structure(like), placed)


def write_model(
    parameters: Parameters, architecture: Architecture, config: PretrainedConfig, renderer: Renderer, checkpoint: Path,
    temporary: Path,
) -> None:  # fmt: skip
    """Model, tokenizer and configuration under a temporary name, then renamed. Raises: ModelError MODEL_006."""
    weights = {name: np.asarray(weight) for name, weight in parameters.items() if name != LAYERS}
    for name, stacked in parameters[LAYERS].items():
        for number, weight in enumerate(np.asarray(stacked)):
            weights[layer_name(number, name)] = weight
    broken = [name for name, weight in weights.items() if not np.isfinite(weight).all()]
    if broken:
        raise ModelError(
            "MODEL_006",
            f"The weights {', '.join(broken[:3])} are not finite",
            fix="lower learning_rate, raise warmup_ratio, or use dtype bfloat16 or float32",
        )
    config.num_labels = 1
    config.id2label, config.label2id = {0: "reward"}, {"reward": 0}
    # Anything but "regression" makes transformers' pipelines put a sigmoid on the reward.
    config.problem_type, config.use_cache = "regression", False
    config.pad_token_id, config.dtype = renderer.tokenizer.pad_token_id, str(weights["score.weight"].dtype)
    config.architectures = [architecture.classifier]
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(temporary)
    save_file(weights, temporary / WEIGHTS, metadata={"format": "pt"})
    renderer.tokenizer.save_pretrained(temporary)
    if checkpoint.exists():
        shutil.rmtree(checkpoint)
    temporary.rename(checkpoint)
