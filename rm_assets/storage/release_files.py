"""The files of a release, looked at without loading anything: all there, of kinds that run no code, and without secrets."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from rm_assets.core.errors import ReleaseError

Form = Literal["whole", "adapter"]
EVERY_RELEASE = ("tokenizer_config.json", "rm_assets.json", "README.md", "report.json", "report.html", "lineage.json")
OF_FORM: dict[str, tuple[str, ...]] = {
    "whole": ("config.json",),
    "adapter": ("adapter_config.json", "adapter_model.safetensors"),
}
ALLOWED_SUFFIXES = (".json", ".safetensors", ".md", ".txt", ".jinja", ".model", ".html")
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib")
PICKLED = re.compile(rb"\x80[\x02-\x05]|PK\x03\x04")
"""How a pickle of protocol 2 to 5, and an archive of PyTorch with one inside, begin."""
SECRETS = {
    "a Hugging Face token": r"\bhf_[A-Za-z0-9]{30,}",
    "an AWS access key": r"\b(AKIA|ASIA)[A-Z0-9]{16}\b",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a W&B key": r"\bwandb_v1_\w{20,}|(?i:wandb|api)_?-?(?i:key)\W{1,5}[0-9a-f]{40}\b",
    "a GitHub token": r"\bgh[pousr]_[A-Za-z0-9]{36}",
    "an OpenAI key": r"\bsk-[A-Za-z0-9_-]{32,}",
}
SECRET_VARIABLE = re.compile(r"(^|_)(TOKEN|KEY|SECRET|PASSWORD)(_|$)")
LEAST_SECRET = 8
"""Characters of a variable's value that is looked for; a shorter one is likely to be found in any text."""


def check_files(folder: Path, form: Form, environment: Mapping[str, str] = os.environ) -> None:
    """Raises ReleaseError: RELEASE_005 for a pickle, RELEASE_001 for a missing, empty or foreign file, RELEASE_006 for a secret."""
    files = sorted(folder.iterdir())
    for file in files:
        if file.suffix in PICKLE_SUFFIXES or _is_pickled(file):
            raise ReleaseError(
                "RELEASE_005",
                f"{file.name} in {folder} is or may hold a pickle",
                why="loading a pickle runs any code that is in it",
                fix="save weights as safetensors, and release the model again",
            )
    names = {file.name for file in files}
    missing = [name for name in (*EVERY_RELEASE, *OF_FORM[form]) if name not in names]
    missing += [] if {"tokenizer.json", "vocab.txt"} & names else ["tokenizer.json"]
    missing += [] if any(name.endswith(".safetensors") for name in names) else ["*.safetensors"]
    missing += _missing_shards(folder, names)
    foreign = [file.name for file in files if not file.is_file() or not file.name.endswith(ALLOWED_SUFFIXES)]
    empty = [file.name for file in files if file.is_file() and not file.stat().st_size]
    if missing or foreign or empty:
        raise ReleaseError(
            "RELEASE_001",
            f"{folder} is no complete release: missing {missing or 'nothing'}, of a kind that is not released {foreign or 'none'}, empty {empty or 'none'}",
            fix="rebuild reward_model and release again",
        )
    for file in files:
        if file.suffix != ".safetensors":
            _refuse_secrets(file, environment)


def _is_pickled(file: Path) -> bool:
    """Whether it begins as a pickle does. A safetensors file begins with a length, which may look like one: its header decides."""
    if not file.is_file():
        return False
    with open(file, "rb") as opened:
        start = opened.read(9)
    if file.suffix == ".safetensors" and start[8:] == b"{":
        return False
    return PICKLED.match(start) is not None


def _missing_shards(folder: Path, names: set[str]) -> list[str]:
    """Files of weights that an index names and that are not there."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return []
    named: dict[str, Any] = json.loads(index.read_text("utf-8"))["weight_map"]
    return sorted(set(named.values()) - names)


def _refuse_secrets(file: Path, environment: Mapping[str, str]) -> None:
    text = file.read_text("utf-8", errors="replace")
    found = [kind for kind, pattern in SECRETS.items() if re.search(pattern, text)]
    found += [
        f"the value of {name}"
        for name, value in environment.items()
        if SECRET_VARIABLE.search(name) and len(value) >= LEAST_SECRET and value in text
    ]
    if found:
        raise ReleaseError(
            "RELEASE_006",
            f"{file.name} holds {' and '.join(found)}",
            why="whoever gets the release could use it",
            fix="remove it from the recipe, the card or the data that it comes from, and withdraw it where it was seen",
        )
