"""Where the store is: RM_ASSETS_HOME, else `.rm_assets` beside the nearest workspace.yaml upward, else the user's data folder."""

import os
import re
from pathlib import Path

from rm_assets.core.errors import StoreError
from rm_assets.storage.remote import cache_of
from rm_assets.storage.source_files import is_url


def find_workspace(start: Path | None = None) -> Path | None:
    """The nearest folder upward from `start` (the current folder) that holds a workspace.yaml."""
    here = (start or Path.cwd()).resolve()
    return next((folder for folder in (here, *here.parents) if (folder / "workspace.yaml").is_file()), None)


def find_home() -> Path:
    """The folder of the store; it need not exist yet. Raises: StoreError STORE_004."""
    if named := os.environ.get("RM_ASSETS_HOME"):
        return home_of(named)
    if workspace := find_workspace():
        return workspace / ".rm_assets"
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "rm_assets"


def home_of(location: str) -> Path:
    """The folder of a store that lies at a path, or the cache here of one that lies at a URL. Raises: StoreError STORE_004."""
    if is_url(location):
        return cache_of(location)
    if re.match(r"[\w+.-]+:", location):  # a folder of that name would be made here
        raise StoreError(
            "STORE_004",
            f"'{location}' is neither the path nor the URL of a store",
            fix="write a URL as s3://bucket/prefix, in RM_ASSETS_HOME",
        )
    return Path(location).expanduser().resolve()
