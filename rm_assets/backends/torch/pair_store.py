"""Pairs as token ids on disk, with an index of a few dozen bytes a pair in memory, so that any number can be trained on.

Every pair that comes in is kept or counted with the one reason why not. Shapes: N pairs, R rows (conversations).
"""

import hashlib
import json
import os
from array import array
from collections.abc import Iterable, Sequence
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

CHUNK = 512
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

    def row(self, index: int) -> Encoded:
        """The token ids of one conversation, read from disk."""
        start, end = int(self.offsets[index]), int(self.offsets[index + 1])
        parts = 2 if self.has_type_ids else 1
        with open(self.file, "rb", buffering=0) as file:
            values = np.frombuffer(os.pread(file.fileno(), 4 * parts * (end - start), 4 * parts * start), np.int32)
        ids, *types = values.reshape(parts, -1).tolist()
        return Encoded(ids, types[0] if types else None)

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
    kept = np.arange(len(builder.chosen))
    if not is_validation and settings.max_train_pairs is not None and settings.max_train_pairs < len(kept):
        # By a hash of each pair, so that a larger subset contains the smaller ones.
        rank = np.array([unit_interval("subset", seed, pair_id.decode()) for pair_id in builder.pair_ids])
        kept = np.sort(np.argsort(rank, kind="stable")[: settings.max_train_pairs])
    store = builder.store(file, kept, num_in)
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
        self._gold = array("d")
        self.chosen, self.rejected = array("i"), array("i")
        self.pair_ids: list[bytes] = []
        self._has_types = False
        self._hash = hashlib.sha256()
        self._reasons = {"over_length": 0, "identical_after_tokenization": 0}

    def add(self, chunk: list[Pair]) -> bytes:
        """Takes the pairs that can be trained on, and returns the tokens of their rows as int32."""
        rows = _encode_distinct(chunk, self._renderer)
        written: dict[str, int] = {}
        blocks: list[bytes] = []
        for pair in chunk:
            keys = (json.dumps(pair.chosen), json.dumps(pair.rejected))
            chosen, rejected = rows[keys[0]], rows[keys[1]]
            for row in (chosen, rejected):
                require_real_end(self._renderer, row, f"pair {pair.pair_id}")
            reason = self._unusable(pair, chosen, rejected)
            if reason is not None:
                self._reasons[reason] += 1
                continue
            for key, row in zip(keys, (chosen, rejected), strict=True):
                if key not in written:
                    written[key] = len(self._lengths)
                    self._lengths.append(len(row.ids))
                    self._has_types |= row.type_ids is not None
                    blocks.append(np.array(row.ids + (row.type_ids or []), np.int32).tobytes())
            self.chosen.append(written[keys[0]])
            self.rejected.append(written[keys[1]])
            self._prompts.append(int(digest(pair.prompt_id)[:16], 16))
            self._gold.extend((pair.chosen_gold_reward, pair.rejected_gold_reward))
            self.pair_ids.append(pair.pair_id.encode())
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

    def store(self, file: Path, kept: Numbers, num_in: int) -> PairStore:
        """The finished store, with the pairs `kept`."""
        index: dict[str, Numbers] = {
            "chosen": np.array(self.chosen, np.int32)[kept],
            "rejected": np.array(self.rejected, np.int32)[kept],
            "gold": np.array(self._gold, np.float64).reshape(-1, 2)[kept],
        }
        offsets = np.concatenate([[0], np.cumsum(np.array(self._lengths, np.int64))]).astype(np.int64)
        for part in (offsets, *index.values()):
            self._hash.update(part.tobytes())
        prompts = np.array(self._prompts, np.uint64)[kept]
        self._hash.update(prompts.tobytes())
        counts = {"in": num_in, "trained": len(kept), **self._reasons, "set_aside": len(self.chosen) - len(kept)}
        return PairStore(
            file, offsets, self._has_types, prompt=_numbered(prompts), pair_ids=np.array(self.pair_ids)[kept],
            counts=counts, token_digest=self._hash.hexdigest()[:32],
            chosen=index["chosen"], rejected=index["rejected"], gold=index["gold"],
        )  # fmt: skip


def _numbered(keys: Numbers) -> Numbers:
    """(N,) int32: equal keys get equal numbers, in the order of their first place."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int32)
    rank[np.argsort(first)] = np.arange(len(first), dtype=np.int32)
    return rank[inverse]


def _encode_distinct(chunk: Sequence[Pair], renderer: Renderer) -> dict[str, Encoded]:
    """A response that is in several pairs is rendered once."""
    distinct: dict[str, Messages] = {
        json.dumps(side): side for pair in chunk for side in (pair.chosen, pair.rejected)
    }  # fmt: skip
    return dict(zip(distinct, renderer.encode(list(distinct.values())), strict=True))
