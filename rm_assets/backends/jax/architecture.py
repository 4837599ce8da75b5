"""What the JAX forward pass computes: Llama and Qwen3, read from a checkpoint's configuration. All else is refused by name."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PretrainedConfig

from rm_assets.core.errors import ModelError
from rm_assets.core.recipe import ModelRef

FAMILIES = ("llama", "qwen3")
"""Model types that are computed; SmolLM2 is a Llama."""
ROPES = ("default", "llama3")


@dataclass(frozen=True)
class Architecture:
    """Shape of a decoder with one output. Sizes count elements; `inverse_frequencies` are radians per position.

    `untrained_token` is the checkpoint's own pad token, whose embedding transformers gives no gradient. A text may hold it: in
    SmolLM2 it ends each message, and the recipe names another one to pad with.
    """

    family: str
    num_layers: int
    num_heads: int
    num_key_value_heads: int
    head_dim: int
    hidden_size: int
    intermediate_size: int
    vocab_size: int
    norm_epsilon: float
    inverse_frequencies: tuple[float, ...]
    attention_bias: bool
    mlp_bias: bool
    untrained_token: int | None

    @property
    def classifier(self) -> str:
        """What transformers calls the model."""
        return {"llama": "LlamaForSequenceClassification", "qwen3": "Qwen3ForSequenceClassification"}[self.family]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of each weight outside the layers, by the name it has in a checkpoint."""
        width = self.hidden_size
        return {
            "model.embed_tokens.weight": (self.vocab_size, width),
            "model.norm.weight": (width,),
            "score.weight": (1, width),
        }

    def layer_shapes(self) -> dict[str, tuple[int, ...]]:
        """Of each weight of a layer, by its name behind `model.layers.<number>.`."""
        width, inner = self.hidden_size, self.intermediate_size
        queries, keys = self.num_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        attention = {"q": (queries, width), "k": (keys, width), "v": (keys, width), "o": (width, queries)}
        mlp = {"gate": (inner, width), "up": (inner, width), "down": (width, inner)}
        shapes: dict[str, tuple[int, ...]] = {"input_layernorm.weight": (width,)}
        shapes |= {f"self_attn.{name}_proj.weight": shape for name, shape in attention.items()}
        if self.attention_bias:
            shapes |= {f"self_attn.{name}_proj.bias": shape[:1] for name, shape in attention.items()}
        if self.family == "qwen3":
            shapes |= {f"self_attn.{name}_norm.weight": (self.head_dim,) for name in "qk"}
        shapes["post_attention_layernorm.weight"] = (width,)
        shapes |= {f"mlp.{name}_proj.weight": shape for name, shape in mlp.items()}
        if self.mlp_bias:
            shapes |= {f"mlp.{name}_proj.bias": shape[:1] for name, shape in mlp.items()}
        return shapes


def read_architecture(ref: ModelRef, config: PretrainedConfig) -> Architecture:
    """The architecture that a checkpoint's configuration describes.

    Raises: ModelError MODEL_002, which names what the JAX backend does not compute.
    """
    unsupported = _unsupported(config)
    if unsupported:
        raise ModelError(
            "MODEL_002",
            f"The JAX backend does not compute {ref.location}: {unsupported}",
            why=f"it knows the families {' and '.join(FAMILIES)} as they are published",
            fix="use the torch backend, or name another checkpoint",
        )
    num_heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // num_heads
    return Architecture(
        family=config.model_type,
        num_layers=config.num_hidden_layers,
        num_heads=num_heads,
        num_key_value_heads=config.num_key_value_heads or num_heads,
        head_dim=head_dim,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        vocab_size=config.vocab_size,
        norm_epsilon=config.rms_norm_eps,
        inverse_frequencies=tuple(inverse_frequencies(config.rope_parameters, head_dim).tolist()),
        attention_bias=bool(config.attention_bias),
        mlp_bias=bool(getattr(config, "mlp_bias", False)),
        untrained_token=None if config.pad_token_id is None else config.pad_token_id % config.vocab_size,
    )


def _unsupported(config: PretrainedConfig) -> str:
    """What of the configuration is not computed; empty if all is."""
    if config.model_type not in FAMILIES:
        return f"its model type is {config.model_type}"
    if getattr(config, "auto_map", None):
        return "it brings Python code of its own"
    if getattr(config, "quantization_config", None):
        return "its weights are quantized"
    if config.hidden_act != "silu":
        return f"its activation is {config.hidden_act}"
    if getattr(config, "use_sliding_window", False) or "sliding_attention" in (
        getattr(config, "layer_types", None) or []
    ):
        return "its attention has a sliding window"
    rope = config.rope_parameters
    if rope.get("rope_type", "default") not in ROPES:
        return f"its rope scaling is {rope['rope_type']}"
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        return "it rotates only a part of each head"
    return ""


def inverse_frequencies(rope: dict[str, Any], head_dim: int) -> "np.ndarray[Any, np.dtype[np.float32]]":
    """(D / 2,) radians per position (Su et al. 2021), for "llama3" with long waves stretched as in Llama 3.1."""
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    # The power in float64 and rounded is what PyTorch's float32 power gives, but for a last digit here and there.
    base = np.power(np.float64(rope["rope_theta"]), exponents.astype(np.float64)).astype(np.float32)
    frequencies: np.ndarray[Any, np.dtype[np.float32]] = np.float32(1) / base
    if rope.get("rope_type", "default") == "default":
        return frequencies
    factor, context = np.float32(rope["factor"]), rope["original_max_position_embeddings"]
    low, high = np.float32(rope["low_freq_factor"]), np.float32(rope["high_freq_factor"])
    # PyTorch divides a number by a tensor as the number times the tensor's reciprocal, which rounds twice.
    wavelengths = (1 / frequencies) * np.float32(2 * math.pi)
    kept = ((1 / wavelengths) * np.float32(context) - low) / (high - low)
    mixed = (1 - kept) * frequencies / factor + kept * frequencies
    stretched = np.where(wavelengths > context / low, frequencies / factor, mixed)
    return np.where(wavelengths < context / high, frequencies, stretched).astype(np.float32)
