"""What a check reads and what it says."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Finding:
    """Whether a check passed, the sentence that a person reads, and its numbers by metadata key.

    `looked` is False where there was nothing to look at; the sentence says why.
    """

    passed: bool
    sentence: str
    numbers: dict[str, int | float] = field(default_factory=dict)
    looked: bool = True


TURNED_OFF = Finding(True, "turned off by the recipe", looked=False)


@dataclass(frozen=True)
class EarlierTable:
    """A table in the version before, and when that was made (ISO 8601)."""

    rows: Iterable[Any]
    made_at: str


Table = Literal["prompts", "responses", "rewards", "pairs"]
Earlier = Literal["earlier prompts", "earlier responses", "earlier rewards", "earlier pairs"]
"""An EarlierTable; None where there is no version before."""
Value = Literal["counts", "facts", "pair_counts", "trained_pair_ids", "near_duplicates", "pairs_section"]
"""Counts and facts of the manifest, counts of the pairs, the pairs that were trained on, the recipe's sections `prompts.near_duplicates` (or None) and `pairs`."""


@dataclass(frozen=True)
class DataCheck:
    """A check of one asset: what it reads, in the order in which `find` takes it, before the limit if it has one."""

    asset: str
    reads: tuple[Table | Earlier | Value, ...]
    find: Callable[..., Finding]
