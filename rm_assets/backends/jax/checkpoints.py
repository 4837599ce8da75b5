"""Weights of a Hugging Face checkpoint folder as parameters of the JAX forward pass, read tensor by tensor."""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import transformers
from huggingface_hub import snapshot_download
from safetensors import safe_open
from transformers import PretrainedConfig

from rm_assets.backends.jax.architecture import Architecture
from rm_assets.backends.jax.reward_forward import LAYERS, Parameters
from rm_assets.backends.loading_errors import as_model_errors, require_weights, untrained
from rm_assets.backends.rendering import Renderer
from rm_assets.core.recipe import Dtype, ModelRef

DTYPES: dict[Dtype, Any] = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "float16": jnp.float16}
MASTER: Any = jnp.float32
"""Precision in which weights are trained, whatever they are computed in."""
HEAD = "score.weight"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def load_parameters(
    ref: ModelRef,
    config: PretrainedConfig,
    architecture: Architecture,
    *,
    dtype: Any,
    device: jax.Device,
    head_seed: int | None = None,
) -> Parameters:
    """The weights on the device. The host holds one kind of weight at a time: of all layers, or of none.

    A head that is missing, or has another number of outputs, is drawn from `head_seed` where one is given.

    Raises: ModelError MODEL_001, MODEL_002 for weights that are missing or of another shape.
    """
    require_weights(ref)

    def placed(weight: "np.ndarray[Any, Any]") -> jax.Array:
        result: jax.Array = jax.device_put(weight.astype(dtype), device)
        return result

    with as_model_errors(ref, "weights"), _opened(_folder(ref, config)) as files:
        lacking = _lacking(files, architecture)
        is_drawn = head_seed is not None and HEAD in lacking
        lacking = [name for name in lacking if name != HEAD or not is_drawn]
        parameters: Parameters = {LAYERS: {}}
        if not lacking:
            for name in architecture.shapes():
                is_new = is_drawn and name == HEAD
                parameters[name] = placed(_head(config, head_seed) if is_new else files[name].get_tensor(name))
            for name, shape in architecture.layer_shapes().items():
                parameters[LAYERS][name] = placed(_stacked(files, name, shape, architecture.num_layers))
    if lacking:
        raise untrained(ref, lacking, architecture.classifier)
    return parameters


def _head(config: PretrainedConfig, seed: int | None) -> "np.ndarray[Any, Any]":
    """(1, W) normal numbers, as wide as transformers draws them."""
    rng = np.random.Generator(np.random.PCG64(seed))
    return rng.normal(0.0, config.initializer_range, (1, config.hidden_size))


def identity(config: PretrainedConfig, renderer: Renderer, dtype: Dtype, device: jax.Device) -> dict[str, str]:
    """All that decides the backend's output besides its inputs and a local checkpoint's weights."""
    return {
        "commit": str(getattr(config, "_commit_hash", None)),
        "backend": "jax",
        "chat_template": renderer.template_hash,
        "jax": jax.__version__,
        "transformers": transformers.__version__,
        "dtype": dtype,
        "device": device.platform,
    }


def layer_name(number: int, name: str) -> str:
    """A layer's weight as checkpoints call it."""
    return f"model.layers.{number}.{name}"


def _folder(ref: ModelRef, config: PretrainedConfig) -> Path:
    """The folder with the weights, downloaded from the Hub at the commit that the configuration is of."""
    if ref.path is not None:
        return Path(ref.path)
    revision = getattr(config, "_commit_hash", None) or ref.revision
    return Path(snapshot_download(ref.location, revision=revision, allow_patterns=["*.safetensors", INDEX]))


@contextmanager
def _opened(folder: Path) -> Iterator[Mapping[str, Any]]:
    """The open file of each tensor, by the tensor's name."""
    with ExitStack() as stack:

        def opened(name: str) -> Any:
            return stack.enter_context(safe_open(folder / name, framework="numpy"))

        if not (folder / INDEX).is_file():
            file = opened(WEIGHTS)
            yield dict.fromkeys(file.keys(), file)
            return
        file_of: dict[str, str] = json.loads((folder / INDEX).read_text("utf-8"))["weight_map"]
        files = {name: opened(name) for name in sorted(set(file_of.values()))}
        yield {tensor: files[name] for tensor, name in file_of.items()}


def _lacking(files: Mapping[str, Any], architecture: Architecture) -> list[str]:
    """Weights that the checkpoint lacks, or has in another shape."""
    wanted = architecture.shapes() | {
        layer_name(number, name): shape
        for number in range(architecture.num_layers)
        for name, shape in architecture.layer_shapes().items()
    }
    return [
        name for name, shape in wanted.items()
        if name not in files or tuple(files[name].get_slice(name).get_shape()) != shape
    ]  # fmt: skip


def _stacked(files: Mapping[str, Any], name: str, shape: tuple[int, ...], num_layers: int) -> "np.ndarray[Any, Any]":
    """(L, ...) a weight of all layers, each read into its place."""
    stacked: np.ndarray[Any, Any] | None = None
    for number in range(num_layers):
        tensor = files[layer_name(number, name)].get_tensor(layer_name(number, name))
        if stacked is None:
            stacked = np.empty((num_layers, *shape), tensor.dtype)
        stacked[number] = tensor
    assert stacked is not None, "a decoder has layers"
    return stacked
