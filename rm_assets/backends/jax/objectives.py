"""What training minimizes: the loss of each pair, from the rewards of its two responses.

Shapes: B pairs. Rewards and gold rewards are (B, 2): chosen, rejected.
"""

import jax
import jax.numpy as jnp

from rm_assets.core.recipe import BradleyTerry, Objective, Regression, SoftBradleyTerry


def pair_losses(rewards: jax.Array, gold: jax.Array, objective: Objective, centering: float) -> jax.Array:
    """(B,) losses, with `centering` times the squared sum of the two rewards (Eisenstein et al. 2023, section 2)."""
    return _of_objective(rewards, gold.astype(rewards.dtype), objective) + centering * rewards.sum(1) ** 2


def _of_objective(rewards: jax.Array, gold: jax.Array, objective: Objective) -> jax.Array:
    reward_margin, gold_margin = rewards[:, 0] - rewards[:, 1], gold[:, 0] - gold[:, 1]
    match objective:
        case BradleyTerry():
            return -jax.nn.log_sigmoid(reward_margin - objective.margin_scale * gold_margin)
        case SoftBradleyTerry():
            targets = jax.nn.sigmoid(gold_margin / objective.temperature)
            return jnp.logaddexp(0.0, reward_margin) - targets * reward_margin
        case Regression():
            squares: jax.Array = ((rewards - gold) ** 2).mean(1)
            return squares
