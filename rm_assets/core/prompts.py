"""Prompts: one normal form, no duplicates, and splits that no prompt can be on two sides of."""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from fractions import Fraction
from types import MappingProxyType

from rm_assets.core.digests import digest, unit_interval
from rm_assets.core.errors import DataError
from rm_assets.core.recipe import SplitFractions
from rm_assets.core.records import Prompt


def normalise(prompt: str) -> str:
    """The form in which two prompts are the same: NFKC, case folded, white space collapsed."""
    return " ".join(unicodedata.normalize("NFKC", prompt).casefold().split())


def opening(prompt: Prompt) -> str:
    """The normal form of what the user said first. It decides the split, so a dialogue and its continuations share a side."""
    said = [turn["content"] for turn in prompt.history if turn["role"] == "user"]
    return normalise(said[0] if said else prompt.prompt)


def group_of(prompt: Prompt, groups: Mapping[str, str]) -> str:
    """What decides the prompt's side: its opening, or the group that `groups` names for it."""
    said = opening(prompt)
    return groups.get(said, said)


def word_runs(text: str, num_words: int) -> set[int]:
    """64-bit hashes of the runs of `num_words` words in the normal form of `text`; a shorter text is one run.

    Words are what stands between white space.
    """
    words = normalise(text).split()
    starts = range(max(1, len(words) - num_words + 1))
    return {
        int.from_bytes(hashlib.blake2b(" ".join(words[i : i + num_words]).encode(), digest_size=8).digest())
        for i in starts
    }


def deduplicate(prompts: Iterable[Prompt], most: int | None = None) -> tuple[list[Prompt], int]:
    """The first of each (system, prompt) in order, and the number of duplicates left out.

    Reading stops before the prompt that would be one more than `most`.

    Raises: DataError DATA_010 if two rows of one prompt have different references.
    """
    first: dict[str, Prompt] = {}
    num_dropped = 0
    for prompt in prompts:
        if len(first) == most and prompt.prompt_id not in first:
            break
        known = first.setdefault(prompt.prompt_id, prompt)
        if known is not prompt:
            num_dropped += 1
            if known.reference != prompt.reference:
                raise DataError(
                    "DATA_010",
                    f"rows {known.row + 1} and {prompt.row + 1} have the same prompt and different references",
                    fix="correct or remove one of them",
                )
    return list(first.values()), num_dropped


def mix(
    parts: Mapping[str, list[Prompt]], weights: Mapping[str, float] | None, most: int | None
) -> tuple[list[Prompt], int]:
    """The prompts of all parts, each once (for the first part that has it), and the number left out for weights or `most`.

    With weights there are as many as the scarcest part allows, at most `most`, and a hash of the prompt decides which are
    left out. Without weights they are the first `most`.

    Raises: DataError DATA_010 if two parts have a prompt with different references, DATA_016 if a part gives no prompt.
    """
    own = _each_once(parts)
    num_own = sum(map(len, own.values()))
    if weights is None:
        kept = [prompt for part in own.values() for prompt in part][:most]
        return kept, num_own - len(kept)
    sizes = _sizes({name: len(part) for name, part in own.items()}, weights, most)
    kept = []
    for name, part in own.items():
        by_hash = sorted(part, key=lambda p: unit_interval("mixture", p.prompt_id))
        chosen = {p.prompt_id for p in by_hash[: sizes[name]]}
        kept += [prompt for prompt in part if prompt.prompt_id in chosen]
    return kept, num_own - len(kept)


def _each_once(parts: Mapping[str, list[Prompt]]) -> dict[str, list[Prompt]]:
    """Of each part the prompts that no earlier part has."""
    first: dict[str, tuple[str, Prompt]] = {}
    for name, part in parts.items():
        for prompt in part:
            other, known = first.setdefault(prompt.prompt_id, (name, prompt))
            if known.reference != prompt.reference:
                raise DataError(
                    "DATA_010",
                    f"row {known.row + 1} of part '{other}' and row {prompt.row + 1} of part '{name}' have the same prompt "
                    "and different references",
                    fix="correct or remove one of them",
                )
    own = {name: [p for p in part if first[p.prompt_id][0] == name] for name, part in parts.items()}
    for name, part in own.items():
        if not part:
            raise DataError(
                "DATA_016",
                f"part '{name}' gives no prompt: earlier parts have all {len(parts[name])} of its prompts",
                fix="correct its source, put it before the others, or remove it",
            )
    return own


def _sizes(available: Mapping[str, int], weights: Mapping[str, float], most: int | None) -> dict[str, int]:
    """How many prompts each part gives. That `most` leaves none of a part is no fault, that its weight does is one."""
    exact = {name: Fraction(str(weight)) for name, weight in weights.items()}
    total = int(min(available[name] * sum(exact.values()) / weight for name, weight in exact.items()))
    sizes = _largest_remainders(total, exact)
    for name, size in sizes.items():
        if not size:
            raise DataError(
                "DATA_016",
                f"part '{name}' gives no prompt: its weight {weights[name]:g} against "
                f"{float(sum(exact.values()) - exact[name]):g} leaves 0 of {total}",
                fix="raise its weight or remove it",
            )
    return sizes if most is None or most >= total else _largest_remainders(most, exact)


def _largest_remainders(total: int, weights: Mapping[str, Fraction]) -> dict[str, int]:
    """Whole numbers near the shares of `total` that sum to it; what rounding down leaves goes to the largest remainders."""
    shares = {name: total * weight / sum(weights.values()) for name, weight in weights.items()}
    sizes = {name: int(share) for name, share in shares.items()}
    by_remainder = sorted(shares, key=lambda name: shares[name] - sizes[name], reverse=True)
    for name in by_remainder[: total - sum(sizes.values())]:
        sizes[name] += 1
    return sizes


def assign_splits(
    prompts: list[Prompt], fractions: SplitFractions, seed: int, groups: Mapping[str, str] = MappingProxyType({})
) -> list[Prompt]:
    """Each prompt with its split, decided by a hash of its group: its opening, or what `groups` has for that.

    So equal openings share a side and new prompts move nobody. With `stratify`, the groups of each source are put in order of
    that hash and the shares are cut from this order: new prompts move those at a border. A group at a border falls on either
    side by a hash of its source, so that of many small sources each split gets its share. A group of several sources counts
    for the first of them by name. Source: systematic sampling with a random start (Cochran 1977, chapter 8).
    """
    of_prompt = [group_of(p, groups) for p in prompts]
    places = {group: unit_interval(seed, group) for group in of_prompt}
    if fractions.stratify:
        places = _places_in_source(prompts, of_prompt, places, seed)

    def split(place: float) -> str:
        if place < fractions.test:
            return "test"
        return "validation" if place < fractions.test + fractions.validation else "train"

    return [replace(p, split=split(places[group])) for p, group in zip(prompts, of_prompt, strict=True)]


def _places_in_source(
    prompts: list[Prompt], of_prompt: list[str], places: dict[str, float], seed: int
) -> dict[str, float]:
    """For each group, the share of its source's prompts that come before a point in it, in order of `places`.

    The point is at the same share of each of a source's groups, and a hash of the source says at which.
    """
    sizes = Counter(of_prompt)
    source_of: dict[str, str] = {}
    for prompt, group in zip(prompts, of_prompt, strict=True):
        source_of[group] = min(source_of.get(group, prompt.source), prompt.source)
    totals: Counter[str] = Counter()
    points: dict[str, float] = {}
    starts = {source: unit_interval(seed, "source", source) for source in source_of.values()}
    for group in sorted(sizes, key=lambda group: (places[group], group)):
        source = source_of[group]
        points[group] = totals[source] + starts[source] * sizes[group]
        totals[source] += sizes[group]
    return {group: point / totals[source_of[group]] for group, point in points.items()}


def hash_of_test_set(prompts: Iterable[Prompt]) -> str:
    """32 hex digits of the test prompts among `prompts` and their references, whatever their order and files."""
    return digest({p.prompt_id: p.reference for p in prompts if p.split == "test"})
