"""The config.json of a checkpoint, found without the network: local folder, the Hub's cache on this disk, known sizes."""

import json
from pathlib import Path
from typing import Any

from rm_assets.core.errors import ModelError
from rm_assets.core.planning.model_shape import KNOWN_CONFIGS
from rm_assets.core.recipe import ModelRef


def find_config(ref: ModelRef) -> dict[str, Any] | None:
    """The configuration of a recipe's model, or None where nothing on this disk says it.

    Raises: ModelError MODEL_001 if a local folder has none, or it is not readable.
    """
    if ref.path is not None:
        return read_config(Path(ref.path) / "config.json")
    cached = _cached(str(ref.hub_id), ref.revision)
    return read_config(cached) if cached else KNOWN_CONFIGS.get(str(ref.hub_id))


def read_config(file: Path) -> dict[str, Any]:
    """A config.json. Raises: ModelError MODEL_001."""
    try:
        config = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            "MODEL_001",
            f"{file} cannot be read as a model's configuration",
            why=str(error),
            fix="name the config.json of a transformers checkpoint",
        ) from None
    if not isinstance(config, dict):
        raise ModelError(
            "MODEL_001", f"{file} holds no configuration", fix="name the config.json of a transformers checkpoint"
        )
    return config


def _cached(hub_id: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    # A string where the file is there; else None, or a mark that the repository is known to have no such file.
    found = try_to_load_from_cache(hub_id, "config.json", revision=revision)
    return Path(found) if isinstance(found, str) else None
