"""Adds the decisions to the site's navigation, so that a new one need not be listed."""

from pathlib import Path
from typing import Any


def on_config(config: Any) -> Any:
    """A hook of mkdocs."""
    decisions = sorted(Path(config.docs_dir, "decisions").glob("*.md"))
    config.nav.append({"Decisions": [f"decisions/{file.name}" for file in decisions]})
    return config
