"""Prompts: one normal form, no duplicates, and splits that no prompt can be on two sides of."""

import unicodedata
from collections.abc import Iterable
from dataclasses import replace

from rm_assets.core.digests import unit_interval
from rm_assets.core.errors import DataError
from rm_assets.core.recipe import SplitFractions
from rm_assets.core.records import Prompt


def normalise(prompt: str) -> str:
    """The form in which two prompts are the same: NFKC, case folded, white space collapsed."""
    return " ".join(unicodedata.normalize("NFKC", prompt).casefold().split())


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


def assign_splits(prompts: list[Prompt], fractions: SplitFractions, seed: int) -> list[Prompt]:
    """Each prompt with its split, decided by a hash of its normal form: equal prompts share a side, new ones move nobody."""

    def split(prompt: Prompt) -> str:
        u = unit_interval(seed, normalise(prompt.prompt))
        if u < fractions.test:
            return "test"
        return "validation" if u < fractions.test + fractions.validation else "train"

    return [replace(p, split=split(p)) for p in prompts]
