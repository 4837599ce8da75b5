"""Pairs as token ids on disk, with a few bytes a pair in memory, so that any number can be trained on.

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

from rm_assets.backends.rendering import Encoded, Renderer, require_real_end
from rm_assets.core.digests import digest, unit_interval
from rm_assets.core.errors import DataError, ModelError
from rm_assets.core.protocols import Reporter
from rm_assets.core.recipe import TrainingSection
from rm_assets.core.records import Messages, Pair
from rm_assets.core.training_order import Numbers, is_in_share

CHUNK = 256
"""Pairs that are rendered and tokenized together."""
REPORT_EVERY = 16_384
NUM_COMPARED = 4
"""Pairs whose rewards are computed in several ways, which have to agree."""


_INDEX = np.dtype(
    [("starts", "<i8", 2), ("lengths", "<i4", 2), ("gold", "<f4", 2), ("pair_id", "S32")]  # chosen, rejected
)


@dataclass(frozen=True)
class PairStore:
    """Encoded pairs on disk, in the order they came in. Only the prompts, which are shuffled, are in memory."""

    file: Path
    has_type_ids: bool
    prompt: Numbers  # (N,) number of the prompt, from 0 to the number of prompts
    longest: int
    counts: dict[str, int]
    token_digest: str

    def __len__(self) -> int:
        return len(self.prompt)

    def index(self, numbers: Iterable[int]) -> Numbers:
        """Of these pairs: where the tokens of chosen and rejected begin, how many they are, gold rewards, and id."""
        with open(index_of(self.file), "rb", buffering=0) as file:
            size = _INDEX.itemsize
            return np.frombuffer(b"".join(os.pread(file.fileno(), size, size * number) for number in numbers), _INDEX)

    def gold(self, numbers: Iterable[int]) -> Numbers:
        """(B, 2) float32 gold rewards of chosen and rejected."""
        gold: Numbers = self.index(numbers)["gold"]
        return gold

    def rows(self, places: Iterable[tuple[int, int]]) -> Iterator[Encoded]:
        """The conversations at these places (start, length), each read from disk when it is taken."""
        parts = 2 if self.has_type_ids else 1
        with open(self.file, "rb", buffering=0) as file:
            for start, length in places:
                values = np.frombuffer(os.pread(file.fileno(), 4 * parts * length, 4 * parts * start), np.int32)
                ids, *types = values.reshape(parts, -1).tolist()
                yield Encoded(ids, types[0] if types else None)

    def compared_rows(self) -> list[Encoded]:
        """Chosen, rejected, chosen, ... of a few pairs, evenly from first to last."""
        index = self.index(np.unique(np.linspace(0, len(self) - 1, NUM_COMPARED).astype(int)).tolist())
        return list(self.rows(zip(index["starts"].ravel().tolist(), index["lengths"].ravel().tolist(), strict=True)))

    def pair_ids(self) -> Iterator[str]:
        """The id of every pair."""
        for start in range(0, len(self), CHUNK):
            records = self.index(range(start, min(start + CHUNK, len(self))))
            yield from (pair_id.decode() for pair_id in records["pair_id"])


def index_of(file: Path) -> Path:
    """The file beside the tokens that says which of them belong to which pair."""
    return file.with_suffix(".index")


def encode_pairs(
    pairs: Iterable[Pair], renderer: Renderer, settings: TrainingSection, seed: int, file: Path, reporter: Reporter,
    *, is_validation: bool = False,
) -> PairStore:  # fmt: skip
    """Renders and tokenizes pairs in a stream into `file`; of training pairs, those of the prompts that are drawn.

    Raises: ModelError MODEL_005 for a pair over `max_length` with `over_length: error`, MODEL_004 if a conversation
    ends with the pad token, DataError DATA_005 if no pair to train on is left.
    """
    builder, num_in, num_not_drawn = _Builder(renderer, settings), 0, 0
    stream, share = iter(pairs), 1.0 if is_validation else settings.share_of_prompts
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "wb") as tokens, open(index_of(file), "wb") as index:
        while chunk := list(islice(stream, CHUNK)):
            drawn = [pair for pair in chunk if is_in_share(pair.prompt_id, share, seed=seed)]
            for out, block in zip((tokens, index), builder.add(drawn), strict=True):
                out.write(block)
            num_in, num_not_drawn = num_in + len(chunk), num_not_drawn + len(chunk) - len(drawn)
            if num_in % REPORT_EVERY == 0:
                reporter.log(f"{num_in:,} pairs tokenized")
    most = None if is_validation else settings.max_train_pairs
    store = builder.store(file, num_in, num_not_drawn, most, seed)
    what, kept = ("validation pairs", "kept") if is_validation else ("pairs", "trained")
    said = {kept if name == "trained" else name: number for name, number in store.counts.items()}
    reporter.log(f"{what}: " + ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in said.items()))
    if not len(store) and not is_validation:
        raise DataError(
            "DATA_005",
            f"None of {num_in} training pairs is left",
            why=f"{store.counts['over_length']} are longer than max_length {settings.max_length}, "
            f"{store.counts['identical_after_tokenization']} have two responses of the same tokens"
            + (f", {num_not_drawn} are of prompts outside share_of_prompts {share:g}" if num_not_drawn else ""),
            fix="raise training.max_length, or make pairs of responses that differ"
            + (", or raise training.share_of_prompts or evaluation.learning_curve.shares" if num_not_drawn else ""),
        )
    return store


class _Builder:
    """Makes the blocks of both files, and keeps what the store has in memory."""

    def __init__(self, renderer: Renderer, settings: TrainingSection) -> None:
        self._renderer, self._settings = renderer, settings
        self._prompts = array("Q")
        self._num_tokens = self._longest = 0
        self._has_types = False
        self._hash = hashlib.sha256()
        self._reasons = {"over_length": 0, "identical_after_tokenization": 0}

    def add(self, chunk: list[Pair]) -> tuple[bytes, bytes]:
        """Takes the pairs that can be trained on: the tokens of their rows as int32, and their index."""
        keys = [(json.dumps(pair.chosen), json.dumps(pair.rejected)) for pair in chunk]
        rows = _encode_distinct(chunk, keys, self._renderer)
        starts: dict[str, int] = {}
        blocks: list[bytes] = []
        index: list[tuple[Any, ...]] = []
        for pair, sides in zip(chunk, keys, strict=True):
            chosen, rejected = rows[sides[0]], rows[sides[1]]
            for row in (chosen, rejected):
                require_real_end(self._renderer, row, f"pair {pair.pair_id}")
            reason = self._unusable(pair, chosen, rejected)
            if reason is not None:
                self._reasons[reason] += 1
                continue
            lengths = len(chosen.ids), len(rejected.ids)
            for key, row, length in zip(sides, (chosen, rejected), lengths, strict=True):
                if key not in starts:
                    starts[key] = self._num_tokens
                    self._num_tokens += length
                    self._has_types |= row.type_ids is not None
                    blocks.append(np.array(row.ids + (row.type_ids or []), np.int32).tobytes())
            self._longest = max(self._longest, *lengths)
            self._prompts.append(int(digest(pair.prompt_id)[:16], 16))
            gold = pair.chosen_gold_reward, pair.rejected_gold_reward
            index.append(((starts[sides[0]], starts[sides[1]]), lengths, gold, pair.pair_id.encode()))
        written = b"".join(blocks), np.array(index, _INDEX).tobytes()
        for block in written:
            self._hash.update(block)
        return written

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

    def store(self, file: Path, num_in: int, num_not_drawn: int, most: int | None, seed: int) -> PairStore:
        """The finished store, with at most `most` pairs."""
        prompts = np.frombuffer(self._prompts, np.uint64)
        num_usable = len(prompts)
        if most is not None and most < num_usable:
            prompts = prompts[_keep_subset(index_of(file), most, seed)]
        self._hash.update(prompts.tobytes())
        set_aside = num_not_drawn + num_usable - len(prompts)
        counts = {"in": num_in, "trained": len(prompts), **self._reasons, "set_aside": set_aside}
        return PairStore(
            file, self._has_types, _numbered(prompts), self._longest, counts, self._hash.hexdigest()[:32]
        )  # fmt: skip


def _keep_subset(index: Path, most: int, seed: int) -> Numbers:
    """Leaves `most` pairs in the index, by a hash of each pair, so that a larger subset contains the smaller ones."""
    records = np.fromfile(index, _INDEX)
    rank = np.array([unit_interval("subset", seed, pair_id.decode()) for pair_id in records["pair_id"]])
    kept = np.sort(np.argsort(rank, kind="stable")[:most])
    records[kept].tofile(index)
    return kept


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
