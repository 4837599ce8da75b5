"""What is trained on and scored: prompts with their responses, as token ids. The synthetic workloads are frozen.

A test holds their lengths to a hash, so that figures of different days are of the same work.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

VOCABULARY = 8192
PAD, EOS = 0, 1
FIRST_WORD = 3
MAX_LENGTH = 1024
PAIRS_PER_STEP = 64
SCORED_ROWS = 128
"""Rows of one round of scoring."""
SYNTHETIC = ("alpacafarm-like", "multi-turn", "best-of-8")
REAL = ("real-alpaca", "real-hh", "real-alpaca-k4-all-pairs")
NAMES = (*SYNTHETIC, *REAL)


@dataclass(frozen=True)
class Item:
    """A prompt, and responses to it that end in EOS."""

    prompt: list[int]
    responses: list[list[int]]

    def row(self, index: int) -> list[int]:
        """The token ids of one whole conversation."""
        return self.prompt + self.responses[index]


@dataclass(frozen=True)
class Lengths:
    """Tokens of a prompt and of each of its responses, EOS included."""

    prompt: int
    responses: tuple[int, ...]


@dataclass(frozen=True)
class Percentiles:
    """A log-normal's 5th and 95th percentile."""

    low: float
    high: float

    def draw(self, z: np.ndarray) -> np.ndarray:
        """The log-normal's values at standard normal `z`."""
        middle = (math.log(self.low) + math.log(self.high)) / 2
        spread = (math.log(self.high) - math.log(self.low)) / (2 * 1.645)
        return np.exp(middle + spread * z)


PairOfItem = tuple[int, int, int]
"""Number of the item, and the chosen and the rejected one of its responses."""


@dataclass(frozen=True)
class Workload:
    """Pairs of one optimizer step, in the order a shuffled pass over pairs would give, and rows to score."""

    name: str
    items: list[Item]
    pairs: list[PairOfItem]
    num_scored_items: int

    @property
    def scored_items(self) -> list[Item]:
        """The items whose responses are scored."""
        return self.items[: self.num_scored_items]

    def sides(self, pair: PairOfItem) -> tuple[list[int], list[int]]:
        """The rows of the chosen and of the rejected conversation."""
        item, chosen, rejected = pair
        return self.items[item].row(chosen), self.items[item].row(rejected)


def load(name: str, *, num_pairs: int = PAIRS_PER_STEP, num_rows: int = SCORED_ROWS) -> Workload:
    """The workload of a name in `NAMES`; smaller ones are its beginning."""
    if name in SYNTHETIC:
        return _workload(name, synthetic(name, _num_items(name, num_pairs, num_rows)), num_pairs, num_rows)
    from benchmarks.real_lengths import read_lengths

    lengths = read_lengths(name)[: _num_items(name, num_pairs, num_rows)]
    return _workload(name, filled(lengths, seed=0), num_pairs, num_rows)


def synthetic(name: str, num_items: int, seed: int = 0) -> list[Item]:
    """Heavy-tailed lengths; the responses to one prompt have log-lengths of correlation 0.5. Over-length items are dropped, as TRL does.

    The order in which random numbers are drawn is part of what is frozen.
    """
    prompts, responses, num_responses = {
        "alpacafarm-like": (Percentiles(30, 120), Percentiles(30, 400), 2),
        "multi-turn": (Percentiles(100, 800), Percentiles(20, 150), 2),
        "best-of-8": (Percentiles(100, 500), Percentiles(50, 200), 8),
    }[name]
    rng = np.random.default_rng(seed)
    items: list[Item] = []
    while len(items) < num_items:
        num_prompt = max(8, int(prompts.draw(rng.standard_normal(1))[0]))
        shared = rng.standard_normal()
        z = math.sqrt(0.5) * shared + math.sqrt(0.5) * rng.standard_normal(num_responses)
        lengths = np.maximum(8, responses.draw(z)).astype(int)
        if num_prompt + lengths.max() <= MAX_LENGTH:
            items.append(_random_item(Lengths(num_prompt, tuple(lengths.tolist())), rng))
    return items


def filled(lengths: Sequence[Lengths], seed: int) -> list[Item]:
    """Random tokens of given lengths."""
    rng = np.random.default_rng(seed)
    return [_random_item(entry, rng) for entry in lengths]


def _random_item(lengths: Lengths, rng: np.random.Generator) -> Item:
    def ids(number: int) -> list[int]:
        return list(rng.integers(FIRST_WORD, VOCABULARY, number).tolist())

    return Item(ids(lengths.prompt), [[*ids(number - 1), EOS] for number in lengths.responses])


def _workload(name: str, items: list[Item], num_pairs: int, num_rows: int) -> Workload:
    pairs = list(_pairs(name, items))[:num_pairs]
    order = np.random.default_rng(1).permutation(len(pairs)).tolist()
    return Workload(name, items, [pairs[i] for i in order], num_rows // len(items[0].responses))


def _pairs(name: str, items: list[Item]) -> Iterator[PairOfItem]:
    """All pairs of a prompt where the workload is about them, else one: of eight responses, the first against the last."""
    for number, item in enumerate(items):
        if name == "real-alpaca-k4-all-pairs":
            for chosen, rejected in combinations(range(len(item.responses)), 2):
                yield number, chosen, rejected
        else:
            yield number, 0, len(item.responses) - 1


def _num_items(name: str, num_pairs: int, num_rows: int) -> int:
    num_responses = {"best-of-8": 8, "real-alpaca-k4-all-pairs": 4}.get(name, 2)
    pairs_of_item = 6 if name == "real-alpaca-k4-all-pairs" else 1
    return max(math.ceil(num_pairs / pairs_of_item), num_rows // num_responses)


def fingerprint(items: Sequence[Item]) -> str:
    """16 hex digits of the lengths and of the first tokens."""
    shape = [[len(item.prompt), item.prompt[0], [len(response) for response in item.responses]] for item in items]
    return hashlib.sha256(json.dumps(shape).encode()).hexdigest()[:16]
