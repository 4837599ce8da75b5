"""Weights of a Hugging Face checkpoint folder as parameters of the JAX forward pass, read tensor by tensor."""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import transformers
from huggingface_hub import snapshot_download
from jax.sharding import Mesh
from safetensors import safe_open
from transformers import PretrainedConfig

from rm_assets.backends.jax.architecture import Architecture
from rm_assets.backends.jax.devices import LAYERS, platform, shardings
from rm_assets.backends.jax.reward_forward import Parameters
from rm_assets.backends.jax.tensor_files import Index, read_onto
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
    mesh: Mesh,
    head_seed: int | None = None,
) -> Parameters:
    """The weights on the mesh. The host holds what one device has of one kind of weight at a time.

    A head that is missing, or has another number of outputs, is drawn from `head_seed` where one is given.

    Raises: ModelError MODEL_001, MODEL_002 for weights that are missing or of another shape.
    """
    require_weights(ref)
    with as_model_errors(ref, "weights"), _opened(_folder(ref, config)) as files:
        lacking = _lacking(files, architecture)
        is_drawn = head_seed is not None and HEAD in lacking
        lacking = [name for name in lacking if name != HEAD or not is_drawn]
        if not lacking:
            head = _head(config, head_seed) if is_drawn else None
            return _on_mesh(files, architecture, head, dtype, mesh)
    raise untrained(ref, lacking, architecture.classifier)


def _on_mesh(
    files: Mapping[str, Any], architecture: Architecture, head: "np.ndarray[Any, Any] | None", dtype: Any, mesh: Mesh
) -> Parameters:
    """Every weight from its file, but for a head that is given."""
    wanted = _wanted(architecture, dtype)
    places = shardings(mesh, wanted)
    parameters: Parameters = {LAYERS: {}}

    def read(name: str, index: Index) -> "np.ndarray[Any, Any]":
        tensor = head if head is not None and name == HEAD else files[name].get_slice(name)
        part: np.ndarray[Any, Any] = tensor[index].astype(dtype)
        return part

    def read_layers(name: str, index: Index) -> "np.ndarray[Any, Any]":
        shape = places[LAYERS][name].shard_shape(wanted[LAYERS][name].shape)
        layers: np.ndarray[Any, Any] = np.empty(shape, dtype)
        for number in range(architecture.num_layers):
            layers[number] = read(layer_name(number, name), index[1:])
        return layers

    for name, weight in wanted[LAYERS].items():
        parameters[LAYERS][name] = read_onto(places[LAYERS][name], weight.shape, partial(read_layers, name))
    for name in architecture.shapes():
        parameters[name] = read_onto(places[name], wanted[name].shape, partial(read, name))
    return parameters


def _wanted(architecture: Architecture, dtype: Any) -> Parameters:
    """Shape and type of each weight."""
    described: Any = jax.ShapeDtypeStruct
    layers = {
        name: described((architecture.num_layers, *shape), dtype)
        for name, shape in architecture.layer_shapes().items()
    }  # fmt: skip
    return {LAYERS: layers} | {name: described(shape, dtype) for name, shape in architecture.shapes().items()}


def _head(config: PretrainedConfig, seed: int | None) -> "np.ndarray[Any, Any]":
    """(1, W) normal numbers, as wide as transformers draws them."""
    rng = np.random.Generator(np.random.PCG64(seed))
    return rng.normal(0.0, config.initializer_range, (1, config.hidden_size))


def identity(config: PretrainedConfig, renderer: Renderer, dtype: Dtype, mesh: Mesh) -> dict[str, str]:
    """All that decides the backend's output besides its inputs and a local checkpoint's weights."""
    return {
        "commit": str(getattr(config, "_commit_hash", None)),
        "backend": "jax",
        "chat_template": renderer.template_hash,
        "jax": jax.__version__,
        "transformers": transformers.__version__,
        "dtype": dtype,
        "device": platform(mesh),
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
