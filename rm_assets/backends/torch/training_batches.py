"""From the pairs of one optimizer step to micro-batches: grouped by prompt, each response once, within a token budget.

Shapes: B pairs and R rows of a micro-batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from rm_assets.backends.pair_groups import PairGroup, pair_groups
from rm_assets.backends.pair_store import PairStore
from rm_assets.backends.torch.reward_forward import PaddedRows, RewardForward
from rm_assets.backends.torch.shared_prefix import PackedRow
from rm_assets.core.training_order import Numbers


@dataclass(frozen=True)
class MicroBatch:
    """What one forward pass computes, and the pairs that take their loss from it."""

    rows: PackedRow | PaddedRows
    sides: torch.Tensor  # (B, 2) places of chosen and rejected among the R rewards
    numbers: Numbers  # (B,) of the pairs in the store
    num_pair_tokens: int
    """Tokens of both sides of every pair, as if nothing were shared or padded."""


def micro_batches(
    forward: RewardForward, store: PairStore, numbers: Numbers, token_budget: int
) -> Iterator[MicroBatch]:
    """The pairs `numbers` as micro-batches; a pair is never cut, so one may be larger than the budget alone."""
    groups = pair_groups(store, numbers, forward.num_tokens, token_budget)
    for places in forward.micro_batches([group.rows for group in groups], token_budget):
        yield _micro_batch(forward, [groups[place] for place in places])


def pair_rewards(forward: RewardForward, batch: MicroBatch, device: torch.device) -> torch.Tensor:
    """(B, 2) rewards of chosen and rejected, computed once for each row."""
    rewards: torch.Tensor = forward(batch.rows.to(device))  # (R,)
    return rewards[batch.sides.to(device)]


def _micro_batch(forward: RewardForward, groups: Sequence[PairGroup]) -> MicroBatch:
    sides, numbers, start, num_pair_tokens = [], [], 0, 0
    for group in groups:
        for number, chosen, rejected in group.pairs:
            sides.append((start + chosen, start + rejected))
            numbers.append(number)
            num_pair_tokens += len(group.rows[chosen].ids) + len(group.rows[rejected].ids)
        start += len(group.rows)
    rows = forward.prepare([group.rows for group in groups])
    return MicroBatch(rows, torch.tensor(sides), np.array(numbers), num_pair_tokens)
