"""Where the store is: RM_ASSETS_HOME, else `.rm_assets` beside the nearest workspace.yaml upward, else the user's data folder."""

import os
from pathlib import Path


def find_workspace(start: Path | None = None) -> Path | None:
    """The nearest folder upward from `start` (the current folder) that holds a workspace.yaml."""
    here = (start or Path.cwd()).resolve()
    return next((folder for folder in (here, *here.parents) if (folder / "workspace.yaml").is_file()), None)


def find_home() -> Path:
    """The folder of the store; it need not exist yet."""
    if named := os.environ.get("RM_ASSETS_HOME"):
        return Path(named).expanduser().resolve()
    if workspace := find_workspace():
        return workspace / ".rm_assets"
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "rm_assets"
