"""From the pairs of one optimizer step to micro-batches: grouped by prompt, each response once, within a token budget.

Shapes: B pairs and R rows of a micro-batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from rm_assets.backends.pair_store import PairStore
from rm_assets.backends.rendering import Encoded
from rm_assets.backends.torch.reward_forward import PaddedRows, RewardForward
from rm_assets.backends.torch.shared_prefix import PackedRow
from rm_assets.core.training_order import Numbers


@dataclass
class PairGroup:
    """Pairs of one prompt: their distinct rows, and for each pair its number and the places of its two rows."""

    rows: list[Encoded] = field(default_factory=list)
    pairs: list[tuple[int, int, int]] = field(default_factory=list)
    _places: dict[tuple[int, ...], int] = field(default_factory=dict)

    def add(self, number: int, chosen: Encoded, rejected: Encoded) -> None:
        """Takes a pair; a row that is there already is not taken again."""
        self.pairs.append((number, self._place(chosen), self._place(rejected)))

    def _place(self, row: Encoded) -> int:
        key = (len(row.ids), *row.ids, *(row.type_ids or ()))
        if key not in self._places:
            self._places[key] = len(self.rows)
            self.rows.append(row)
        return self._places[key]


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
    groups = [part for group in _by_prompt(store, numbers) for part in _within_budget(forward, group, token_budget)]
    for places in forward.micro_batches([group.rows for group in groups], token_budget):
        yield _micro_batch(forward, [groups[place] for place in places])


def pair_rewards(forward: RewardForward, batch: MicroBatch, device: torch.device) -> torch.Tensor:
    """(B, 2) rewards of chosen and rejected, computed once for each row."""
    rewards: torch.Tensor = forward(batch.rows.to(device))  # (R,)
    return rewards[batch.sides.to(device)]


def _by_prompt(store: PairStore, numbers: Numbers) -> list[PairGroup]:
    groups: dict[int, PairGroup] = {}
    index = store.index(numbers)
    lengths = dict(zip(index["starts"].ravel().tolist(), index["lengths"].ravel().tolist(), strict=True))
    places = sorted(lengths.items())
    rows = dict(zip((start for start, _ in places), store.rows(places), strict=True))
    for number, prompt, (chosen, rejected) in zip(
        numbers.tolist(), store.prompt[numbers].tolist(), index["starts"].tolist(), strict=True
    ):
        groups.setdefault(prompt, PairGroup()).add(number, rows[chosen], rows[rejected])
    return list(groups.values())


def _within_budget(forward: RewardForward, group: PairGroup, token_budget: int) -> Iterator[PairGroup]:
    """The group, cut between pairs where it is larger than the budget."""
    if forward.num_tokens(group.rows) <= token_budget:
        yield group
        return
    part = PairGroup()
    for number, chosen, rejected in group.pairs:
        sides = group.rows[chosen], group.rows[rejected]
        grown = [*part.rows, *(row for row in sides if row not in part.rows)]
        if part.pairs and forward.num_tokens(grown) > token_budget:
            yield part
            part = PairGroup()
        part.add(number, *sides)
    yield part


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
