"""The optimizer."""

import torch

from rm_assets.core.recipe import TrainingSection


def build_optimizer(module: torch.nn.Module, settings: TrainingSection) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019). As in transformers' Trainer, biases and norms are not decayed."""
    trained = [weight for weight in module.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in trained if weight.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [weight for weight in trained if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=settings.learning_rate,
        fused=trained[0].device.type in ("cpu", "cuda"),
    )  # fmt: skip
