"""Pairs as token ids on disk, with an index of a few dozen bytes a pair in memory, so that any number can be trained on.

Every pair that comes in is kept or counted with the one reason why not. Shapes: N pairs, R rows (conversations).
"""

import hashlib
import json
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from rm_assets.backends.torch.rendering import Encoded, Renderer, require_real_end
from rm_assets.core.digests import digest, unit_interval
from rm_assets.core.errors import DataError, ModelError
from rm_assets.core.protocols import Reporter
from rm_assets.core.recipe import TrainingSection
from rm_assets.core.records import Messages, Pair

CHUNK = 256
"""Pairs that are rendered and tokenized together."""
REPORT_EVERY = 16_384
Numbers = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class PairStore:
    """Encoded pairs, in the order they came in. Arrays are (N,) unless said otherwise."""

    file: Path
    offsets: Numbers  # (R + 1,) int64, in tokens
    has_type_ids: bool
    chosen: Numbers  # row of the chosen conversation
    rejected: Numbers
    prompt: Numbers  # number of the prompt, 0 to the number of prompts
    gold: Numbers  # (N, 2) gold rewards of chosen and rejected
    pair_ids: Numbers
    counts: dict[str, int]
    token_digest: str

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def num_prompts(self) -> int:
        """Distinct prompts."""
        return int(self.prompt.max()) + 1 if len(self) else 0

    def rows(self, indices: Iterable[int]) -> Iterator[Encoded]:
        """The token ids of these conversations, each read from disk when it is taken."""
        parts = 2 if self.has_type_ids else 1
        with open(self.file, "rb", buffering=0) as file:
            for index in indices:
                start, end = int(self.offsets[index]), int(self.offsets[index + 1])
                values = np.frombuffer(os.pread(file.fileno(), 4 * parts * (end - start), 4 * parts * start), np.int32)
                ids, *types = values.reshape(parts, -1).tolist()
                yield Encoded(ids, types[0] if types else None)

    def lengths(self) -> Numbers:
        """(R,) tokens of each row."""
        return np.diff(self.offsets)


def encode_pairs(
    pairs: Iterable[Pair], renderer: Renderer, settings: TrainingSection, seed: int, file: Path, reporter: Reporter,
    *, is_validation: bool = False,
) -> PairStore:  # fmt: skip
    """Renders and tokenizes pairs in a stream into `file`.

    Raises: ModelError MODEL_005 for a pair over `max_length` with `over_length: error`, MODEL_004 if a conversation
    ends with the pad token, DataError DATA_005 if no pair to train on is left.
    """
    builder, num_in = _Builder(renderer, settings), 0
    stream = iter(pairs)
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "wb") as out:
        while chunk := list(islice(stream, CHUNK)):
            out.write(builder.add(chunk))
            num_in += len(chunk)
            if num_in % REPORT_EVERY == 0:
                reporter.log(f"{num_in:,} pairs tokenized")
    store = builder.store(file, num_in, None if is_validation else settings.max_train_pairs, seed)
    what = "validation pairs" if is_validation else "pairs"
    reporter.log(f"{what}: " + ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in store.counts.items()))
    if not len(store) and not is_validation:
        raise DataError(
            "DATA_005",
            f"None of {num_in} training pairs is left",
            why=f"{store.counts['over_length']} are longer than max_length {settings.max_length}, "
            f"{store.counts['identical_after_tokenization']} have two responses of the same tokens",
            fix="raise training.max_length, or make pairs of responses that differ",
        )
    return store


class _Builder:
    """Collects the index while the tokens go to disk."""

    def __init__(self, renderer: Renderer, settings: TrainingSection) -> None:
        self._renderer, self._settings = renderer, settings
        self._lengths, self._prompts = array("i"), array("Q")
        self._gold = array("f")  # what the losses are computed in
        self._chosen, self._rejected = array("i"), array("i")
        self._pair_ids = [np.zeros(0, "S1")]  # one array a chunk: 16 bytes an id instead of 57 as an object
        self._has_types = False
        self._hash = hashlib.sha256()
        self._reasons = {"over_length": 0, "identical_after_tokenization": 0}

    def add(self, chunk: list[Pair]) -> bytes:
        """Takes the pairs that can be trained on, and returns the tokens of their rows as int32."""
        keys = [(json.dumps(pair.chosen), json.dumps(pair.rejected)) for pair in chunk]
        rows = _encode_distinct(chunk, keys, self._renderer)
        written: dict[str, int] = {}
        blocks: list[bytes] = []
        pair_ids: list[bytes] = []
        for pair, sides in zip(chunk, keys, strict=True):
            chosen, rejected = rows[sides[0]], rows[sides[1]]
            for row in (chosen, rejected):
                require_real_end(self._renderer, row, f"pair {pair.pair_id}")
            reason = self._unusable(pair, chosen, rejected)
            if reason is not None:
                self._reasons[reason] += 1
                continue
            for key, row in zip(sides, (chosen, rejected), strict=True):
                if key not in written:
                    written[key] = len(self._lengths)
                    self._lengths.append(len(row.ids))
                    self._has_types |= row.type_ids is not None
                    blocks.append(np.array(row.ids + (row.type_ids or []), np.int32).tobytes())
            self._chosen.append(written[sides[0]])
            self._rejected.append(written[sides[1]])
            self._prompts.append(int(digest(pair.prompt_id)[:16], 16))
            self._gold.extend((pair.chosen_gold_reward, pair.rejected_gold_reward))
            pair_ids.append(pair.pair_id.encode())
        self._pair_ids.append(np.array(pair_ids, "S"))
        block = b"".join(blocks)
        self._hash.update(block)
        return block

    def _unusable(self, pair: Pair, chosen: Encoded, rejected: Encoded) -> str | None:
        length, limit = max(len(chosen.ids), len(rejected.ids)), self._settings.max_length
        if length > limit and self._settings.over_length == "error":
            raise ModelError(
                "MODEL_005",
                f"Pair {pair.pair_id} ({pair.split}) has {length} tokens; training.max_length is {limit}",
                why="training.over_length is 'error'",
                fix="raise training.max_length, or set training.over_length to drop",
            )
        if length > limit:
            return "over_length"
        return "identical_after_tokenization" if chosen.ids == rejected.ids else None

    def store(self, file: Path, num_in: int, most: int | None, seed: int) -> PairStore:
        """The finished store, with at most `most` pairs. The arrays stay where they were gathered."""
        pair_ids = np.concatenate(self._pair_ids)
        self._pair_ids.clear()
        kept = slice(None) if most is None or most >= len(pair_ids) else _subset(pair_ids, most, seed)
        chosen, rejected = np.frombuffer(self._chosen, np.int32)[kept], np.frombuffer(self._rejected, np.int32)[kept]
        gold = np.frombuffer(self._gold, np.float32).reshape(-1, 2)[kept]
        prompts = np.frombuffer(self._prompts, np.uint64)[kept]
        offsets = np.zeros(len(self._lengths) + 1, np.int64)
        np.cumsum(np.frombuffer(self._lengths, np.int32), out=offsets[1:])
        for part in (offsets, chosen, rejected, gold, prompts):
            self._hash.update(np.ascontiguousarray(part).data)
        counts = {"in": num_in, "trained": len(chosen), **self._reasons, "set_aside": len(pair_ids) - len(chosen)}
        return PairStore(
            file, offsets, self._has_types, chosen, rejected, _numbered(prompts), gold, pair_ids[kept],
            counts=counts, token_digest=self._hash.hexdigest()[:32],
        )  # fmt: skip


def _subset(pair_ids: Numbers, most: int, seed: int) -> Numbers:
    """Places of `most` pairs, by a hash of each pair, so that a larger subset contains the smaller ones."""
    rank = np.fromiter((unit_interval("subset", seed, pair_id.decode()) for pair_id in pair_ids), float, len(pair_ids))
    return np.sort(np.argsort(rank, kind="stable")[:most])


def _numbered(keys: Numbers) -> Numbers:
    """(N,) int32: equal keys get equal numbers, in the order of their first place."""
    # Equal keys mostly lie side by side, so only the first of each run is sorted.
    is_head = np.concatenate([np.ones(min(len(keys), 1), bool), keys[1:] != keys[:-1]])
    _, first, inverse = np.unique(keys[is_head], return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int32)
    rank[np.argsort(first)] = np.arange(len(first), dtype=np.int32)
    return rank[inverse][np.cumsum(is_head, dtype=np.int32) - 1]


def _encode_distinct(
    chunk: Sequence[Pair], keys: Sequence[tuple[str, str]], renderer: Renderer
) -> dict[str, Encoded]:  # fmt: skip
    """A response that is in several pairs is rendered once."""
    distinct: dict[str, Messages] = {}
    for pair, (chosen, rejected) in zip(chunk, keys, strict=True):
        distinct[chosen], distinct[rejected] = pair.chosen, pair.rejected
    return dict(zip(distinct, renderer.encode(list(distinct.values())), strict=True))
