"""The rewards of a few conversations as training computes them, one at a time, and padded as transformers' users do.

They have to be the same: a reward that depends on what it is computed with is none. Shapes: R rows, T tokens.
"""

import statistics
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from rm_assets.backends.pair_store import PairStore
from rm_assets.backends.rendering import Encoded
from rm_assets.backends.torch.reward_forward import RewardForward
from rm_assets.backends.torch.shared_prefix import ATTENTION


def compare_batches(
    forward: RewardForward, tokenizer: PreTrainedTokenizerBase, store: PairStore, token_budget: int
) -> dict[str, float]:
    """As `compare_rows`, of a few pairs of a training."""
    return compare_rows(forward, tokenizer, store.compared_rows(), token_budget)


def compare_rows(
    forward: RewardForward, tokenizer: PreTrainedTokenizerBase, rows: list[Encoded], token_budget: int
) -> dict[str, float]:
    """Largest difference between the three rewards of a conversation, and the standard deviation of the rewards.

    `rows` are chosen, rejected, chosen, ...
    """
    with torch.inference_mode():
        batched = _batched(forward, rows, token_budget)
        if forward.shares_prefix:
            forward.model.set_attn_implementation("sdpa")
        alone = [_plain(forward, tokenizer, [row])[0] for row in rows]
        padded = _padded(forward, tokenizer, rows)
        if forward.shares_prefix:
            forward.model.set_attn_implementation(ATTENTION)
    return {
        "conversations": len(rows),
        "largest_difference": max(max(three) - min(three) for three in zip(alone, batched, padded, strict=True)),
        "spread": statistics.pstdev(alone),
    }


def _batched(forward: RewardForward, rows: list[Encoded], token_budget: int) -> list[float]:
    """As training and scoring do: the two responses to a prompt together, several prompts in a batch."""
    groups = [rows[place : place + 2] for place in range(0, len(rows), 2)]
    rewards = [0.0] * len(rows)
    for batch in forward.micro_batches(groups, token_budget):
        computed = forward.rewards([groups[place] for place in batch]).tolist()
        for number, place in enumerate(batch):
            rewards[2 * place : 2 * place + 2] = computed[2 * number : 2 * number + 2]
    return rewards


def _padded(forward: RewardForward, tokenizer: PreTrainedTokenizerBase, rows: list[Encoded]) -> list[float]:
    """Two by two, the shortest with the longest."""
    rewards = [0.0] * len(rows)
    order = sorted(range(len(rows)), key=lambda place: len(rows[place].ids))
    half = len(order) // 2
    for two in zip(order[:half], reversed(order[half:]), strict=True):
        for place, reward in zip(two, _plain(forward, tokenizer, [rows[place] for place in two]), strict=True):
            rewards[place] = reward
    return rewards


def _plain(forward: RewardForward, tokenizer: PreTrainedTokenizerBase, rows: list[Encoded]) -> list[float]:
    """Through the model's own forward pass, padded by its own tokenizer."""
    columns: dict[str, Any] = {"input_ids": [row.ids for row in rows]}
    if rows[0].type_ids is not None:
        columns["token_type_ids"] = [row.type_ids for row in rows]
    inputs = tokenizer.pad(columns, return_tensors="pt")  # (R, T) each
    logits: torch.Tensor = forward.model(**inputs.to(forward.model.device)).logits  # (R, 1)
    return [float(reward) for reward in logits[:, 0]]
