"""Names by content: the digest of a value, the digest of an asset's inputs, ids of prompts, responses and pairs, seeds of samples."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any


def digest(value: Any) -> str:
    """32 hex digits of the SHA-256 of `value` as canonical JSON (sorted keys, no spaces, no NaN)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def asset_digest(asset: str, stage_version: int, section: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """Digest of everything that decides an asset's content: stage version, recipe section (with the fingerprints of the
    files it names), data versions of what it reads."""
    return digest({"asset": asset, "stage_version": stage_version, "section": section, "inputs": dict(inputs)})


def prompt_id(prompt: str, system: str | None, history: Sequence[Mapping[str, str]] = ()) -> str:
    """16 hex digits; equal for equal system message, earlier turns and prompt."""
    return digest([system, prompt, *([list(history)] if history else [])])[:16]


def response_id(of_prompt: str, sample_index: int, response: str) -> str:
    """16 hex digits; equal texts at two sample indices differ, so that a row is named once."""
    return digest([of_prompt, sample_index, response])[:16]


def pair_id(chosen_id: str, rejected_id: str) -> str:
    """16 hex digits, from the ids of the two responses in this order."""
    return digest([chosen_id, rejected_id])[:16]


def sample_seed(seed: int, of_prompt: str, sample_index: int) -> int:
    """A 63-bit seed that depends on nothing but the recipe's seed, the prompt and the index of the sample."""
    return int(digest([seed, of_prompt, sample_index])[:16], 16) >> 1


def unit_interval(*parts: Any) -> float:
    """A number in [0, 1) that is the same for the same parts on every machine; used to assign splits."""
    return int(digest(list(parts))[:13], 16) / 16**13
