"""What XLA compiles of a training: losses, gradients and the update.

Shapes: B rows, T tokens, P places for pairs, of which a micro-batch fills the first and gives the others no weight.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from rm_assets.backends.jax.architecture import Architecture
from rm_assets.backends.jax.devices import LAYERS, sharded
from rm_assets.backends.jax.objectives import pair_losses
from rm_assets.backends.jax.packed_rows import Tokens
from rm_assets.backends.jax.reward_forward import Parameters, rewards
from rm_assets.core.recipe import Objective

ADAM_DECAYS, ADAM_EPSILON = (0.9, 0.999), 1e-8


@dataclass(frozen=True)
class Model:
    """What XLA compiles for, besides the shapes: losses and gradients of one model under one objective on some devices."""

    architecture: Architecture
    dtype: Any
    mesh: Mesh
    is_recomputed: bool
    objective: Objective
    centering: float


@partial(jax.jit, static_argnums=0)
def rewards_at_tokens(model: Model, parameters: Parameters, tokens: Tokens) -> jax.Array:
    """(B, T) the reward of the text that ends at each token."""
    return rewards(
        parameters, tokens, architecture=model.architecture, dtype=model.dtype, mesh=model.mesh,
        recompute=model.is_recomputed,
    )  # fmt: skip


@partial(jax.jit, static_argnums=0)
def losses_and_rewards(
    model: Model, parameters: Parameters, tokens: Tokens, ends: Any, gold: Any
) -> tuple[jax.Array, jax.Array]:
    """(P,) losses and (P, 2) rewards."""
    sides = rewards_at_tokens(model, parameters, tokens).ravel()[ends]
    return pair_losses(sides, gold, model.objective, model.centering), sides


@partial(jax.jit, static_argnums=0, donate_argnums=2)
def add_gradients(
    model: Model, parameters: Parameters, gradients: Parameters, tokens: Tokens, ends: Any, gold: Any, shares: Any
) -> tuple[Parameters, jax.Array, jax.Array]:  # fmt: skip
    """The gradients with those of a micro-batch added; losses and rewards of its pairs. `shares` (P,) sum to 1 over a step."""

    def loss(parameters: Parameters) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        losses, sides = losses_and_rewards(model, parameters, tokens, ends, gold)
        return (losses * shares.astype(losses.dtype)).sum(), (losses, sides)

    own, (losses, sides) = jax.grad(loss, has_aux=True)(parameters)
    return sharded(model.mesh, jax.tree.map(jnp.add, gradients, own)), losses, sides


def _optimizer(weight_decay: float, parameters: Parameters) -> optax.GradientTransformation:
    return optax.chain(_scaled_by_adam(), optax.add_decayed_weights(weight_decay, _decayed(parameters)))


def _scaled_by_adam() -> optax.GradientTransformation:
    """optax's moments, corrected for their bias as precisely as PyTorch does it.

    optax computes 1 - 0.999^n in float32, which is 1e-5 off in the first step.
    """
    adam = optax.scale_by_adam(*ADAM_DECAYS, ADAM_EPSILON)

    def update(gradients: Any, state: Any, parameters: Any = None) -> tuple[Any, Any]:
        _, state = adam.update(gradients, state)
        mean_share, square_share = (-jnp.expm1(state.count * math.log(decay)) for decay in ADAM_DECAYS)

        def direction(mean: jax.Array, square: jax.Array) -> jax.Array:
            return mean / mean_share / (jnp.sqrt(square / square_share) + ADAM_EPSILON)

        return jax.tree.map(direction, state.mu, state.nu), state

    return optax.GradientTransformation(adam.init, update)


@partial(jax.jit, static_argnums=(0, 1))
def first_state(mesh: Mesh, weight_decay: float, parameters: Parameters) -> Any:
    """What `update` begins with."""
    return sharded(mesh, _optimizer(weight_decay, parameters).init(parameters))


@partial(jax.jit, static_argnums=0)
def zeros(mesh: Mesh, parameters: Parameters) -> Parameters:
    """What gradients are added to."""
    result: Parameters = sharded(mesh, jax.tree.map(jnp.zeros_like, parameters))
    return result


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=(2, 3))
def update(
    mesh: Mesh, weight_decay: float, parameters: Parameters, state: Any, gradients: Parameters, factor: Any, rate: Any
) -> tuple[Parameters, Any]:  # fmt: skip
    """One step of AdamW (Loshchilov and Hutter 2019) with clipped gradients."""
    clipped = jax.tree.map(lambda gradient: gradient * factor.astype(gradient.dtype), gradients)
    updates, state = _optimizer(weight_decay, parameters).update(clipped, state, parameters)
    stepped = jax.tree.map(lambda weight, by: (weight - rate * by).astype(weight.dtype), parameters, updates)
    result: tuple[Parameters, Any] = sharded(mesh, (stepped, state))
    return result


@jax.jit
def are_finite(parameters: Parameters) -> Parameters:
    """Of each weight, whether all of its numbers are."""
    result: Parameters = jax.tree.map(lambda weight: jnp.isfinite(weight).all(), parameters)
    return result


@jax.jit
def _clip_factor(gradients: Parameters, largest: Any) -> tuple[jax.Array, jax.Array]:
    norm = optax.tree.norm(gradients)
    return jnp.minimum(1.0, largest / (norm + 1e-6)), norm  # as PyTorch clips


def clipping(gradients: Parameters, largest: float) -> tuple[jax.Array, float]:
    """What the gradients are multiplied with, and their norm before."""
    factor, norm = _clip_factor(gradients, largest)
    return factor, float(norm)


def num_compilations() -> dict[str, int]:
    """For how many shapes, models and devices this process has compiled each function."""
    compiled: tuple[Any, ...] = (
        add_gradients, losses_and_rewards, rewards_at_tokens, first_state, zeros, update, _clip_factor
    )  # fmt: skip
    return {function.__name__: function._cache_size() for function in compiled}


def _decayed(parameters: Parameters) -> Parameters:
    """Which weights decay. As in transformers' Trainer, biases and norms do not."""
    layers = {name: weight.ndim > 2 for name, weight in parameters[LAYERS].items()}
    return {name: weight.ndim > 1 for name, weight in parameters.items() if name != LAYERS} | {LAYERS: layers}
