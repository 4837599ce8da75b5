"""Conversations as rows of a few fixed shapes, in which a prompt that several responses share stands once.

A row holds groups one after the other: `[P | R1 | R2]`, then the next. Each response attends to its prompt and to itself, and
its positions go on from the prompt's end, so its reward is that of `[P | Ri]` alone. XLA compiles once for every shape, so
rows are as long as a power of two, and so many stand in a batch.

Shapes: B rows of T tokens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from rm_assets.backends.prompt_groups import common_prefix, num_shared_tokens
from rm_assets.backends.rendering import Encoded

SHORTEST_ROW = 256
"""Tokens. Short conversations stand together in such a row, where attention costs little beside the rest."""
PADDING = -1


class Tokens(NamedTuple):
    """What the forward pass is given, each (B, T) int32."""

    ids: Any
    positions: Any
    segments: Any
    """Number of the prompt with its longest response, or of a further response; PADDING for padding."""
    prompt_segments: Any
    """Segment that holds the prompt."""
    prefix_lengths: Any
    """Positions of that segment that belong to the prompt."""


@dataclass(frozen=True)
class PackedRows:
    """Groups of conversations as one input. `ends` are the flat places (b * T + t) of their last tokens, group by group."""

    tokens: Tokens
    ends: list[list[int]]

    @property
    def num_tokens(self) -> int:
        """Tokens that are computed, padding included."""
        return int(self.tokens.ids.size)


@dataclass(frozen=True)
class Batch:
    """Places of groups in each of `num_rows` rows of `length` tokens; the last rows may stay empty."""

    rows: list[list[int]]
    num_rows: int
    length: int


def batches(groups: Sequence[Sequence[Encoded]], token_budget: int, num_devices: int = 1) -> Iterator[Batch]:
    """The groups as batches of at most `token_budget` tokens on each device, the longest groups first.

    A longer one has a row for itself. Every device gets the same number of rows.
    """
    costs = [num_shared_tokens(group) for group in groups]
    rows: list[list[int]] = []
    room: list[int] = []
    length = most = 0
    for index in sorted(range(len(groups)), key=lambda i: -costs[i]):
        place = next((place for place, free in enumerate(room) if free >= costs[index]), None)
        if place is None and len(rows) == most:
            if rows:
                yield Batch(rows, _num_rows(rows, num_devices), length)
            length = row_length(costs[index])
            rows, room, most = [], [], num_devices * most_rows(length, token_budget)
        if place is None:
            rows, room, place = [*rows, []], [*room, length], len(rows)
        rows[place].append(index)
        room[place] -= costs[index]
    if rows:
        yield Batch(rows, _num_rows(rows, num_devices), length)


def _num_rows(rows: list[list[int]], num_devices: int) -> int:
    return num_devices * _power_of_two(-(-len(rows) // num_devices))


def row_length(num_tokens: int) -> int:
    """Tokens of the row that a group of so many stands in."""
    return max(SHORTEST_ROW, _power_of_two(num_tokens))


def most_rows(length: int, token_budget: int) -> int:
    """Rows of a batch on each device: a power of two, within the budget where one row is."""
    return max(1, _power_of_two(token_budget // length + 1) // 2)


def most_shapes(longest: int, token_budget: int) -> int:
    """How many shapes, and so compilations, there can be with groups of at most `longest` tokens."""
    lengths, length = [], SHORTEST_ROW
    while length <= row_length(longest):
        lengths.append(length)
        length *= 2
    return sum(most_rows(length, token_budget).bit_length() for length in lengths)


def pack(groups: Sequence[Sequence[Encoded]], batch: Batch, pad_id: int) -> PackedRows:
    """The batch as arrays. `groups` are all of them, of which the batch names some; `ends` follow the batch's order."""
    shape = batch.num_rows, batch.length
    fillers = (pad_id, 0, PADDING, PADDING, 0)
    tokens = Tokens(*(np.full(shape, filler, np.int32) for filler in fillers))
    ends = []
    for number, members in enumerate(batch.rows):
        start, segment = 0, 0
        for index in members:
            rows = [row.ids for row in groups[index]]
            places, start, segment = _write(tokens, number, start, segment, rows)
            ends.append([number * batch.length + place for place in places])
    return PackedRows(tokens, ends)


def _write(
    tokens: Tokens, number: int, start: int, segment: int, rows: list[list[int]]
) -> tuple[list[int], int, int]:  # fmt: skip
    """Writes a group into a row from `start` on; the places of the rows' last tokens, and where the next one begins."""
    prefix, prompt_segment, ends = common_prefix(rows), segment, [0] * len(rows)
    # The longest stands behind the prompt as one segment.
    for rank, index in enumerate(sorted(range(len(rows)), key=lambda i: -len(rows[i]))):
        skipped = prefix if rank else 0
        own = rows[index][skipped:]
        where = number, slice(start, start + len(own))
        tokens.ids[where] = own
        tokens.positions[where] = np.arange(skipped, skipped + len(own))
        tokens.segments[where] = segment
        tokens.prompt_segments[where] = prompt_segment
        tokens.prefix_lengths[where] = skipped
        start, segment = start + len(own), segment + 1
        ends[index] = start - 1
    return ends, start, segment


def _power_of_two(number: int) -> int:
    """The least power of two that is no less."""
    return 1 << max(0, number - 1).bit_length()
