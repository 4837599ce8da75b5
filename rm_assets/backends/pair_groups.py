"""The pairs of one optimizer step grouped by prompt, each response once, cut to a token budget."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from rm_assets.backends.pair_store import PairStore
from rm_assets.backends.rendering import Encoded
from rm_assets.core.training_order import Numbers

NumTokens = Callable[[Sequence[Encoded]], int]
"""Tokens that rows of one prompt cost when they are computed together."""


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


def pair_groups(store: PairStore, numbers: Numbers, num_tokens: NumTokens, token_budget: int) -> list[PairGroup]:
    """The pairs `numbers` by prompt; a pair is never cut, so one may be larger than the budget alone."""
    groups = _by_prompt(store, numbers)
    return [part for group in groups for part in _within_budget(group, num_tokens, token_budget)]


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


def _within_budget(group: PairGroup, num_tokens: NumTokens, token_budget: int) -> Iterator[PairGroup]:
    """The group, cut between pairs where it is larger than the budget."""
    if num_tokens(group.rows) <= token_budget:
        yield group
        return
    part = PairGroup()
    for number, chosen, rejected in group.pairs:
        sides = group.rows[chosen], group.rows[rejected]
        grown = [*part.rows, *(row for row in sides if row not in part.rows)]
        if part.pairs and num_tokens(grown) > token_budget:
            yield part
            part = PairGroup()
        part.add(number, *sides)
    yield part
