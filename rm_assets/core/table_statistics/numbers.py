"""The numbers of a data asset's rows, gathered in one pass: lengths, rewards, margins, and what holds of a row or not.

A table of any length takes 8 bytes for each number of a row, and no texts but those of the few most extreme rows.
"""

import hashlib
import heapq
import math
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rm_assets.core.records import SPLITS, GoldReward, Pair, Prompt, Response

NUM_EXTREMES = 5
"""Rows that are remembered at either end of a distribution."""
EXCERPT_CHARS = 80


@dataclass(frozen=True)
class Feature:
    """A number of a row; None where the row has none. Of the kind "share" it is true or false."""

    kind: Literal["length", "number", "share"]
    meaning: str
    of: Callable[[Any], float | None]


def _prompt_texts(row: Prompt) -> list[str]:
    return [row.system or "", *(message["content"] for message in row.history), row.prompt]


def _chosen(pair: Pair) -> str:
    return pair.chosen[-1]["content"]


def _rejected(pair: Pair) -> str:
    return pair.rejected[-1]["content"]


def _length_difference(pair: Pair) -> int:
    return len(_chosen(pair)) - len(_rejected(pair))


_RESPONSE_CHARS = Feature("length", "characters of the response", lambda r: len(r.response))
_RESPONSE_TOKENS = Feature("length", "tokens of the response in the sampling model's tokenizer", lambda r: r.num_tokens)
FEATURES: dict[str, dict[str, Feature]] = {
    "prompts": {
        "prompt_chars": Feature(
            "length", "characters of system message, earlier turns and prompt", lambda p: sum(map(len, _prompt_texts(p)))
        ),
        "prompt_words": Feature(
            "length", "words between white space in the same", lambda p: sum(len(t.split()) for t in _prompt_texts(p))
        ),
        "with_earlier_turns": Feature("share", "prompts that something was said before", lambda p: bool(p.history)),
        "with_reference": Feature("share", "prompts with a reference answer", lambda p: p.reference is not None),
    },
    "sampled_responses": {
        "response_chars": _RESPONSE_CHARS,
        "response_words": Feature("length", "words between white space", lambda r: len(r.response.split())),
        "response_tokens": _RESPONSE_TOKENS,
        "empty": Feature("share", "responses without text", lambda r: not r.response.strip()),
        "finished": Feature("share", "sampled responses that the length limit did not cut", lambda r: r.finished),
    },
    "gold_rewards": {
        "gold_reward": Feature("number", "gold reward", lambda r: r.gold_reward),
        "response_chars": _RESPONSE_CHARS,
        "response_tokens": _RESPONSE_TOKENS,
        "truncated": Feature("share", "responses of which the gold model saw the beginning", lambda r: r.truncated),
    },
    "implicit_pairs": {
        "gold_margin": Feature("number", "gold reward of chosen minus rejected", lambda p: p.gold_margin),
        "length_difference": Feature("number", "characters of chosen minus rejected", _length_difference),
        "chosen_chars": Feature("length", "characters of the chosen response", lambda p: len(_chosen(p))),
        "rejected_chars": Feature("length", "characters of the rejected response", lambda p: len(_rejected(p))),
        "chosen_longer": Feature(
            "share",
            "pairs of unequal length in which the chosen response is the longer one",
            lambda p: _length_difference(p) > 0 if _length_difference(p) else None,
        ),
    },
}  # fmt: skip
"""By data asset and name."""
WATCHED = {"prompts": "prompt_chars", "sampled_responses": "response_chars", "gold_rewards": "gold_reward"}
"""The feature of an asset of which outliers are listed."""


def _key(row: Prompt | Pair) -> tuple[str, tuple[str, ...], str | None]:
    """Id of a row, the texts that make it a duplicate of another, and the comparison that its reward belongs to."""
    match row:
        case GoldReward():
            return row.response_id, (row.prompt_id, row.response), row.comparison
        case Response():
            return row.response_id, (row.prompt_id, row.response), None
        case Prompt():
            return row.prompt_id, tuple(_prompt_texts(row)), None
        case _:
            return row.pair_id, (row.prompt_id, _chosen(row), _rejected(row)), None


@dataclass(frozen=True)
class Extreme:
    """A row at an end of a distribution."""

    value: float
    id: str
    excerpt: str


@dataclass(frozen=True)
class TableNumbers:
    """The numbers of N rows.

    `values`: by feature, NaN where a row has none. `group`: rows of one prompt (of one comparison, where rewards only
    compare within it) have one number. `split` and `source` are places in SPLITS and `sources`. `text`: 64-bit hash of
    the texts, equal for duplicates. `has_comparisons`: some reward compares only within its comparison. `lowest` and `highest`: the rows at the ends of the watched feature, most extreme first.
    """

    asset: str
    values: dict[str, NDArray[np.float64]]  # (N,)
    group: NDArray[np.int64]  # (N,)
    split: NDArray[np.int8]  # (N,)
    source: NDArray[np.int32]  # (N,)
    text: NDArray[np.uint64]  # (N,)
    num_prompts: int
    has_comparisons: bool
    sources: list[str]
    lowest: list[Extreme]
    highest: list[Extreme]

    def known(self, feature: str) -> NDArray[np.float64]:
        """The values that are there."""
        values = self.values[feature]
        return values[~np.isnan(values)]


def gather(asset: str, rows: Iterable[Any]) -> TableNumbers:
    """Reads the rows of a data asset once. A number that is not finite counts as none."""
    features, watched = FEATURES[asset], WATCHED.get(asset)
    values = {name: array("d") for name in features}
    group, split, source, text = array("q"), array("b"), array("i"), array("Q")
    sources: dict[str, int] = {}
    ends = _Ends()
    prompt, comparisons, num_groups = None, dict[str | None, int](), 0
    num_prompts, has_comparisons = 0, False
    for row in rows:
        row_id, texts, comparison = _key(row)
        for name, feature in features.items():
            value = feature.of(row)
            if value is None or not math.isfinite(value):
                value = math.nan
            elif name == watched:
                ends.add(value, row_id, texts[-1])
            values[name].append(value)
        if row.prompt_id != prompt:
            prompt, num_groups, comparisons = row.prompt_id, num_groups + len(comparisons), {}
            num_prompts += 1
        has_comparisons = has_comparisons or comparison is not None
        group.append(num_groups + comparisons.setdefault(comparison, len(comparisons)))
        split.append(SPLITS.index(row.split))
        source.append(sources.setdefault(row.source, len(sources)))
        digest = hashlib.blake2b("\0".join(texts).encode(), digest_size=8).digest()
        text.append(int.from_bytes(digest))
    return TableNumbers(
        asset,
        {name: np.frombuffer(column) for name, column in values.items()},
        np.frombuffer(group, np.int64),
        np.frombuffer(split, np.int8),
        np.frombuffer(source, np.int32),
        np.frombuffer(text, np.uint64),
        num_prompts,
        has_comparisons,
        list(sources),
        ends.lowest(),
        ends.highest(),
    )


class _Ends:
    """The few least and greatest values of a stream."""

    def __init__(self) -> None:
        self._low: list[tuple[float, str, str]] = []
        self._high: list[tuple[float, str, str]] = []

    def add(self, value: float, row_id: str, text: str) -> None:
        for heap, key in ((self._low, -value), (self._high, value)):
            if len(heap) < NUM_EXTREMES:
                heapq.heappush(heap, (key, row_id, text[:EXCERPT_CHARS]))
            elif key > heap[0][0]:
                heapq.heapreplace(heap, (key, row_id, text[:EXCERPT_CHARS]))

    def lowest(self) -> list[Extreme]:
        return [Extreme(-key, row_id, text) for key, row_id, text in sorted(self._low, reverse=True)]

    def highest(self) -> list[Extreme]:
        return [Extreme(key, row_id, text) for key, row_id, text in sorted(self._high, reverse=True)]
