"""Prompts: one normal form, no duplicates, and splits that no prompt can be on two sides of."""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import replace

from rm_assets.core.digests import unit_interval
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


def mix(parts: Sequence[list[Prompt]], weights: Sequence[float] | None, most: int | None) -> tuple[list[Prompt], int]:
    """The prompts of all parts, each once (for the first part that has it), and the number left out for weights or `most`.

    With weights there are as many as the scarcest part allows, at most `most`, and a hash of the prompt decides which are
    left out. Without weights they are the first `most`.
    """
    taken: set[str] = set()
    own: list[list[Prompt]] = []
    for part in parts:
        own.append([prompt for prompt in part if prompt.prompt_id not in taken])
        taken.update(prompt.prompt_id for prompt in part)
    num_own = sum(map(len, own))
    if weights is None:
        kept = [prompt for part in own for prompt in part][:most]
        return kept, num_own - len(kept)
    total = min(len(part) * sum(weights) / weight for part, weight in zip(own, weights, strict=True))
    total = total if most is None else min(total, most)
    kept = []
    for part, weight in zip(own, weights, strict=True):
        size = round(total * weight / sum(weights))
        chosen = {p.prompt_id for p in sorted(part, key=lambda p: unit_interval("mixture", p.prompt_id))[:size]}
        kept += [prompt for prompt in part if prompt.prompt_id in chosen]
    return kept, num_own - len(kept)


def assign_splits(prompts: list[Prompt], fractions: SplitFractions, seed: int) -> list[Prompt]:
    """Each prompt with its split, decided by a hash of its opening: equal prompts share a side, new ones move nobody."""

    def split(prompt: Prompt) -> str:
        u = unit_interval(seed, opening(prompt))
        if u < fractions.test:
            return "test"
        return "validation" if u < fractions.test + fractions.validation else "train"

    return [replace(p, split=split(p)) for p in prompts]
