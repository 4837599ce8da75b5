"""Attention in blocks of queries is attention over the whole row, forwards and backwards."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from rm_assets.backends.jax import reward_forward


@pytest.mark.parametrize(("num_tokens", "block", "most"), [(64, 16, 8), (64, 4, 2)])
def test_blocks_of_queries_give_the_whole_rows_values_and_gradients(
    num_tokens: int, block: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), 5)
        query, target = (jax.random.normal(key, (2, num_tokens, 6, 8)) for key in keys[:2])
        key, value = (jax.random.normal(key, (2, num_tokens, 3, 8)) for key in keys[2:4])
        places = jnp.arange(num_tokens)
        is_seen = jax.random.bernoulli(keys[4], 0.3, (2, num_tokens, num_tokens)) | (places[:, None] == places)
        visible = is_seen & (places <= places[:, None])

        def whole(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
            """Written out: every head of the keys stands for two of the queries."""
            logits = jnp.einsum("bthd,bshd->bhts", query, jnp.repeat(key, 2, 2)) / jnp.sqrt(8.0)
            shares = jnp.exp(logits) * visible[:, None]
            return jnp.einsum("bhts,bshd->bthd", shares / shares.sum(-1, keepdims=True), jnp.repeat(value, 2, 2))

        def in_blocks(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
            return reward_forward._attention(query, key, value, visible)

        def values_and_gradients(attention: Any) -> Any:
            def loss(*given: jax.Array) -> jax.Array:
                return (attention(*given) * target).sum()

            def both(*given: jax.Array) -> tuple[jax.Array, ...]:
                return attention(*given), *jax.grad(loss, (0, 1, 2))(*given)

            return jax.jit(both)(query, key, value)

        monkeypatch.setattr(reward_forward, "QUERIES_AT_A_TIME", block)
        monkeypatch.setattr(reward_forward, "MOST_BLOCKS", most)
        for found, expected in zip(values_and_gradients(in_blocks), values_and_gradients(whole), strict=True):
            assert abs(found - expected).max() < 1e-12 < abs(expected).max()
