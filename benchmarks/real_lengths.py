"""Lengths of real texts, in tokens, from the folder that RM_ASSETS_REAL_DATA names.

No tokenizer of a released model ships with the project, so tokens are the pieces of a regular expression like those that
byte-level BPE starts from: a word of up to nine letters with its space, nine letters of a longer word, a digit, a run of
punctuation, a run of white space. Its medians (AlpacaEval: prompt 21, answer 141) are near those of real tokenizers.
"""

import gzip
import json
import os
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.workloads import MAX_LENGTH, Lengths

PIECE = re.compile(r" ?[^\W\d_]{1,9}|\d| ?[^\s\w]+|_+|\s+")
ENV = "RM_ASSETS_REAL_DATA"


def is_there() -> bool:
    """Whether the environment names a folder of real data."""
    return bool(os.environ.get(ENV)) and Path(os.environ[ENV]).is_dir()


def pieces(text: str) -> list[str]:
    """The text, cut into what is counted as its tokens."""
    return PIECE.findall(text)


def read_lengths(name: str) -> list[Lengths]:
    """Every prompt of the data in a random order that is always the same; over-length ones are dropped, as TRL does."""
    lengths = _dialogues() if name == "real-hh" else _answers({"real-alpaca": 2, "real-alpaca-k4-all-pairs": 4}[name])
    kept = [entry for entry in lengths if entry.prompt + max(entry.responses) <= MAX_LENGTH]
    return [kept[i] for i in np.random.default_rng(0).permutation(len(kept))]


def _answers(num_answers: int) -> list[Lengths]:
    """AlpacaEval: the answers of so many of its 16 models, drawn anew for every prompt."""
    rng = np.random.default_rng(0)
    answers: defaultdict[str, list[int]] = defaultdict(list)
    for row in _rows("alpaca_eval/responses.jsonl.gz"):
        answers[row["prompt_id"]].append(len(pieces(row["response"])) + 1)
    entries = []
    for row in _rows("alpaca_eval/prompts.jsonl.gz"):
        drawn = rng.choice(answers[row["prompt_id"]], num_answers, replace=False)
        entries.append(Lengths(len(pieces(row["prompt"])), tuple(drawn.tolist())))
    return entries


def _dialogues() -> list[Lengths]:
    """HH-RLHF: what two dialogues begin with in common is their prompt."""
    entries = []
    for row in _rows("hh_rlhf/harmless_base_dev.jsonl.gz"):
        sides = pieces(row["chosen"]), pieces(row["rejected"])
        if sides[0] == sides[1]:
            continue
        same = next((i for i, (a, b) in enumerate(zip(*sides, strict=False)) if a != b), min(map(len, sides)))
        entries.append(Lengths(same, (len(sides[0]) - same + 1, len(sides[1]) - same + 1)))
    return entries


def _rows(name: str) -> list[dict[str, Any]]:
    with gzip.open(Path(os.environ[ENV]) / name, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]
