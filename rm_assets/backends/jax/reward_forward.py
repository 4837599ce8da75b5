"""Rewards at the tokens of packed rows, in plain JAX: the layers are one scanned body, so that compiling takes the same time for any depth.

Shapes: B rows, T tokens, W hidden width, H heads, D head width, L layers.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from rm_assets.backends.jax.architecture import Architecture
from rm_assets.backends.jax.devices import LAYERS, by_rows, constrain
from rm_assets.backends.jax.packed_rows import Tokens

Parameters = dict[str, Any]
"""Weights by the names they have in a checkpoint; under LAYERS those of the layers, stacked: (L, ...) each."""
QUERIES_AT_A_TIME, MOST_BLOCKS = 256, 8
"""Tokens of a block of attention, and blocks of a row, each of which is a part of the program that XLA compiles."""


def rewards(
    parameters: Parameters, tokens: Tokens, *, architecture: Architecture, dtype: Any, mesh: Mesh,
    recompute: bool = False,
) -> jax.Array:  # fmt: skip
    """(B, T) the reward of the text that ends at each token, in float32 where the model computes in less.

    Each device of the mesh computes a part of the rows. With `recompute` the activations of a layer are not kept for the
    backward pass.
    """

    def by_row(hidden: jax.Array) -> jax.Array:
        # Without it XLA may divide activations as the weights are, and send them about instead of a layer's weights.
        constrained: jax.Array = constrain(hidden, by_rows(mesh))
        return constrained

    # Without it TPUs and newer GPUs multiply float32 matrices in a lower precision.
    with jax.default_matmul_precision("highest"):
        hidden = by_row(_embedded(parameters, tokens, architecture).astype(dtype))  # (B, T, W)
        rotary = _rotary(tokens.positions, architecture, dtype)
        visible = _visible(tokens)

        def layer(hidden: jax.Array, weights: Parameters) -> tuple[jax.Array, None]:
            return by_row(_layer(hidden, weights, rotary, visible, architecture)), None

        body = jax.checkpoint(layer) if recompute else layer
        hidden, _ = jax.lax.scan(body, hidden, parameters[LAYERS])
        hidden = _normed(hidden, parameters["model.norm.weight"], architecture)
        # In bfloat16 rewards near 10 are 0.06 apart, so that close ones would become ties.
        precise = _at_least_float32(hidden.dtype)
        result: jax.Array = hidden.astype(precise) @ parameters["score.weight"][0].astype(precise)
        return result


def _embedded(parameters: Parameters, tokens: Tokens, architecture: Architecture) -> jax.Array:
    """(B, T, W) embeddings of the tokens."""
    embedded: jax.Array = parameters["model.embed_tokens.weight"][tokens.ids]
    if architecture.untrained_token is None:
        return embedded
    is_trained = (tokens.ids != architecture.untrained_token)[:, :, None]
    return jnp.where(is_trained, embedded, jax.lax.stop_gradient(embedded))


def _layer(
    hidden: jax.Array, weights: Parameters, rotary: tuple[jax.Array, jax.Array], visible: jax.Array,
    architecture: Architecture,
) -> jax.Array:  # fmt: skip
    normed = _normed(hidden, weights["input_layernorm.weight"], architecture)
    query, key, value = (
        _linear(normed, weights, f"self_attn.{name}_proj").reshape(*hidden.shape[:2], -1, architecture.head_dim)
        for name in "qkv"
    )  # (B, T, H, D)
    if architecture.family == "qwen3":
        query = _normed(query, weights["self_attn.q_norm.weight"], architecture)
        key = _normed(key, weights["self_attn.k_norm.weight"], architecture)
    mixed = _attention(_rotated(query, rotary), _rotated(key, rotary), value, visible)
    hidden = hidden + _linear(mixed.reshape(*hidden.shape[:2], -1), weights, "self_attn.o_proj")
    normed = _normed(hidden, weights["post_attention_layernorm.weight"], architecture)
    gate = jax.nn.silu(_linear(normed, weights, "mlp.gate_proj"))
    result: jax.Array = hidden + _linear(gate * _linear(normed, weights, "mlp.up_proj"), weights, "mlp.down_proj")
    return result


def _attention(query: jax.Array, key: jax.Array, value: jax.Array, visible: jax.Array) -> jax.Array:
    """(B, T, H, D) from as many queries; several of them share a head of the keys and values.

    In blocks of queries, each of which sees the keys that do not come after it: half of the products of the whole row.
    Its logits are computed anew for the backward pass, so those of one block are in memory and not T² for each head and layer.
    """
    block = max(QUERIES_AT_A_TIME, query.shape[1] // MOST_BLOCKS)
    starts = range(0, query.shape[1], block)
    return jnp.concatenate([_attended(query, key, value, visible, start, start + block) for start in starts], 1)


@partial(jax.checkpoint, static_argnums=(4, 5))
def _attended(
    query: jax.Array, key: jax.Array, value: jax.Array, visible: jax.Array, start: int, end: int
) -> jax.Array:  # fmt: skip
    """(B, Q, H, D) of the Q = end - start queries from `start` on.

    jax.nn has the same, but its softmax goes through float32 where the rest is in float64.
    """
    # Cut here, so that what is kept for the backward pass is the row and not every block's share of it.
    query, key, value, visible = query[:, start:end], key[:, :end], value[:, :end], visible[:, start:end, :end]
    rows, num_queries, num_heads, head_dim = query.shape
    num_keys, num_shared = key.shape[1], num_heads // key.shape[2]
    grouped = query.reshape(rows, num_queries, -1, num_shared, head_dim)
    # One product for all queries that share a head: (B, head of keys, group and query, D).
    together = grouped.transpose(0, 2, 3, 1, 4).reshape(rows, -1, num_shared * num_queries, head_dim)
    logits = jnp.einsum("bkqd,bskd->bkqs", together, key, preferred_element_type=_at_least_float32(query.dtype))
    scaled = (logits * head_dim**-0.5).reshape(rows, -1, num_shared, num_queries, num_keys)
    shares = jax.nn.softmax(jnp.where(visible[:, None, None], scaled, -jnp.inf), -1).astype(value.dtype)
    mixed = jnp.einsum("bkqs,bskd->bkqd", shares.reshape(logits.shape), value)
    return mixed.reshape(rows, -1, num_shared, num_queries, head_dim).transpose(0, 3, 1, 2, 4).reshape(query.shape)


def _visible(tokens: Tokens) -> jax.Array:
    """(B, T, T): whether the query (second) sees the key (last): what stands before it in its segment, and its prompt."""
    own = tokens.segments[:, :, None] == tokens.segments[:, None, :]
    prompt = tokens.prompt_segments[:, :, None] == tokens.segments[:, None, :]
    in_prefix = tokens.positions[:, None, :] < tokens.prefix_lengths[:, :, None]
    places = jnp.arange(tokens.ids.shape[1])
    is_no_later = places[None, :] <= places[:, None]
    visible: jax.Array = (own | (prompt & in_prefix)) & is_no_later
    return visible


def _rotary(positions: jax.Array, architecture: Architecture, dtype: Any) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines of each token's rotation, (B, T, 1, D) each."""
    precise = _at_least_float32(dtype)
    frequencies = jnp.asarray(architecture.inverse_frequencies, precise)
    angles = positions[:, :, None, None].astype(precise) * jnp.concatenate([frequencies, frequencies])
    return jnp.cos(angles).astype(dtype), jnp.sin(angles).astype(dtype)


def _rotated(heads: jax.Array, rotary: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Rotary position embedding (Su et al. 2021) in the half-split form of transformers."""
    first, second = jnp.split(heads, 2, -1)
    return heads * rotary[0] + jnp.concatenate([-second, first], -1) * rotary[1]


def _normed(values: jax.Array, weight: jax.Array, architecture: Architecture) -> jax.Array:
    """Root mean square normalization (Zhang and Sennrich 2019), in float32 at least."""
    precise = values.astype(_at_least_float32(values.dtype))
    scale = jax.lax.rsqrt(jnp.mean(precise * precise, -1, keepdims=True) + architecture.norm_epsilon)
    return (precise * scale).astype(values.dtype) * weight.astype(values.dtype)


def _linear(values: jax.Array, weights: Parameters, name: str) -> jax.Array:
    product = jnp.einsum("btc,dc->btd", values, weights[f"{name}.weight"].astype(values.dtype))
    bias = weights.get(f"{name}.bias")
    return product if bias is None else product + bias.astype(values.dtype)


def _at_least_float32(dtype: Any) -> Any:
    return jnp.promote_types(dtype, jnp.float32)
