"""What training minimizes: the loss of each pair, from the rewards of its two responses.

Shapes: B pairs. Rewards and gold rewards are (B, 2): chosen, rejected.
"""

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from rm_assets.core.recipe import BradleyTerry, Objective, Regression, SoftBradleyTerry


def pair_losses(rewards: torch.Tensor, gold: torch.Tensor, objective: Objective, centering: float) -> torch.Tensor:
    """(B,) losses, with `centering` times the squared sum of the two rewards (Eisenstein et al. 2023, section 2)."""
    losses = _of_objective(rewards, gold.to(rewards.dtype), objective)
    return losses + centering * rewards.sum(1) ** 2 if centering else losses


def _of_objective(rewards: torch.Tensor, gold: torch.Tensor, objective: Objective) -> torch.Tensor:
    reward_margin, gold_margin = rewards[:, 0] - rewards[:, 1], gold[:, 0] - gold[:, 1]
    match objective:
        case BradleyTerry():
            return -logsigmoid(reward_margin - objective.margin_scale * gold_margin)
        case SoftBradleyTerry():
            targets = torch.sigmoid(gold_margin / objective.temperature)
            return binary_cross_entropy_with_logits(reward_margin, targets, reduction="none")
        case Regression():
            return ((rewards - gold) ** 2).mean(1)
