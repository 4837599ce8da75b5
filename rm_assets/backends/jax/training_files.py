"""What a training in JAX writes: the state it goes on from, and the checkpoint that AutoModelForSequenceClassification loads."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from huggingface_hub import split_state_dict_into_shards_factory
from safetensors import SafetensorError, safe_open
from transformers import PretrainedConfig

from rm_assets.backends.jax.architecture import Architecture
from rm_assets.backends.jax.checkpoints import INDEX, layer_name
from rm_assets.backends.jax.devices import LAYERS
from rm_assets.backends.jax.reward_forward import Parameters
from rm_assets.backends.jax.tensor_files import Index, Tensor, read_onto, write_tensors
from rm_assets.backends.jax.training_step import are_finite
from rm_assets.backends.rendering import Renderer
from rm_assets.backends.training_progress import Misfit
from rm_assets.core.errors import ModelError

LARGEST_FILE = 5 * 10**9
"""Bytes of a checkpoint's file; more weights are spread over several."""


def write_state(tree: Any, file: Path) -> None:
    """Every array of the tree under its path in it, whole, on however many devices it is."""
    file.parent.mkdir(parents=True, exist_ok=True)
    leaves = jax.tree.leaves_with_path(tree)
    write_tensors({jax.tree_util.keystr(path): Tensor(leaf) for path, leaf in leaves}, file)


def read_state(like: Any, file: Path) -> Any:
    """The inverse of `write_state`, as a tree like the given one and on its devices.

    Raises: Misfit if an array is missing, left over, or of another shape or type.
    """
    wanted = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(like)}
    try:
        with safe_open(file, framework="numpy") as saved:
            parts = {name: saved.get_slice(name) for name in saved.keys()}  # noqa: SIM118 - the file is no mapping
            found = {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in parts.items()}
            expected = {name: (leaf.shape, Tensor(leaf).type) for name, leaf in wanted.items()}
            differing = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
            if differing:
                raise Misfit(f"{file.name} and the model differ in {', '.join(differing[:3])}")
            placed = [
                read_onto(leaf.sharding, leaf.shape, partial(_part, saved, name)) for name, leaf in wanted.items()
            ]
    except (OSError, SafetensorError) as error:
        raise Misfit(f"{file.name} cannot be read: {error}") from error
    return jax.tree.unflatten(jax.tree.structure(like), placed)


def _part(file: Any, name: str, index: Index) -> "np.ndarray[Any, Any]":
    """Of a number the file has no slices."""
    part: np.ndarray[Any, Any] = file.get_slice(name)[index] if index else file.get_tensor(name)
    return part


def write_model(
    parameters: Parameters, architecture: Architecture, config: PretrainedConfig, renderer: Renderer, checkpoint: Path,
    temporary: Path,
) -> None:  # fmt: skip
    """Model, tokenizer and configuration under a temporary name, then renamed. Raises: ModelError MODEL_006."""
    weights = {name: Tensor(weight) for name, weight in parameters.items() if name != LAYERS}
    for name, stacked in parameters[LAYERS].items():
        weights |= {layer_name(number, name): Tensor(stacked, number) for number in range(architecture.num_layers)}
    found = are_finite(parameters)
    broken = [name for name, is_finite in {**found.pop(LAYERS), **found}.items() if not is_finite]
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
    config.pad_token_id, config.dtype = renderer.tokenizer.pad_token_id, str(parameters["score.weight"].dtype)
    config.architectures = [architecture.classifier]
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(temporary)
    _write_weights(weights, temporary)
    renderer.tokenizer.save_pretrained(temporary)
    if checkpoint.exists():
        shutil.rmtree(checkpoint)
    temporary.rename(checkpoint)


def _write_weights(weights: dict[str, Tensor], folder: Path) -> None:
    """One file, or several with their index, under the names that transformers gives them."""
    split = split_state_dict_into_shards_factory(
        weights, get_storage_size=lambda weight: weight.num_bytes, filename_pattern="model{suffix}.safetensors",
        max_shard_size=LARGEST_FILE,
    )  # fmt: skip
    for file, names in split.filename_to_tensors.items():
        write_tensors({name: weights[name] for name in names}, folder / file)
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", "utf-8")
