"""Texts that are nearly the same: MinHash finds candidates, the exact similarity decides, and what hangs together is one group."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import lru_cache

from rm_assets.core.prompts import word_runs
from rm_assets.core.recipe import NearDuplicates

NUM_PERMUTATIONS = 128
MISSED_PAIRS_WEIGHT = 0.9
"""Against candidates that are none, when the bands are chosen: those cost an exact comparison, a missed pair is lost."""


def near_duplicate_groups(texts: Iterable[str], settings: NearDuplicates) -> dict[str, str]:
    """Each text that has a near-duplicate, with the name of its group: the first of the group's texts by alphabet.

    Two texts are near-duplicates if the Jaccard similarity of their word runs is at least the threshold. Whether two are
    found depends on these two alone, not on the others nor on any order; the threshold itself is found in about 87 percent
    of pairs (at 0.8), 0.05 above it in 97.
    Source: Broder (1997), with the banding of Leskovec, Rajaraman and Ullman (2014, section 3.4).
    """
    distinct = sorted(set(texts))
    leader = list(range(len(distinct)))

    def find(index: int) -> int:
        while leader[index] != index:
            leader[index] = leader[leader[index]]
            index = leader[index]
        return index

    @lru_cache(maxsize=4_096)
    def runs(index: int) -> set[int]:
        return word_runs(distinct[index], settings.words)

    def are_near(one: int, other: int) -> bool:
        shared = len(runs(one) & runs(other))
        return shared >= settings.threshold * (len(runs(one)) + len(runs(other)) - shared)

    for bucket in _buckets(distinct, settings):
        # Members by their group: within a group nothing is compared, so a large group costs its size and not its square.
        groups: dict[int, list[int]] = {}
        for index in bucket:
            own = find(index)
            groups.setdefault(own, []).append(index)
            for root in [root for root in groups if root != own]:
                if any(are_near(index, other) for other in groups[root]):
                    fewer, more = sorted((groups.pop(own), groups.pop(root)), key=len)
                    own, joined = sorted((own, root))
                    leader[joined] = own
                    groups[own] = more
                    more += fewer
    named = {text: distinct[find(index)] for index, text in enumerate(distinct)}
    grouped = {group for text, group in named.items() if text != group}
    return {text: group for text, group in named.items() if group in grouped}


def _buckets(texts: list[str], settings: NearDuplicates) -> Iterator[list[int]]:
    """Texts that agree in a band of their signatures, one band in memory at a time."""
    import numpy as np
    from datasketch import MinHash, MinHashLSH

    if not texts:
        return
    sets = (word_runs(text, settings.words) for text in texts)
    sketches = MinHash.generator(sets, num_perm=NUM_PERMUTATIONS, hashfunc=lambda run: run & 0xFFFFFFFF)
    signatures = np.stack([sketch.hashvalues for sketch in sketches])  # (texts, permutations)
    weights = (round(1 - MISSED_PAIRS_WEIGHT, 2), MISSED_PAIRS_WEIGHT)
    index = MinHashLSH(threshold=settings.threshold, num_perm=NUM_PERMUTATIONS, weights=weights)
    for start, end in index.hashranges:
        buckets: defaultdict[bytes, list[int]] = defaultdict(list)
        for row, band in enumerate(np.ascontiguousarray(signatures[:, start:end])):
            buckets[band.tobytes()].append(row)
        yield from (bucket for bucket in buckets.values() if len(bucket) > 1)
