"""What a task is asked to do, as a file here or at a store's URL."""

import json
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rm_assets.core.errors import ExecutorError
from rm_assets.core.recipe_files import PACKAGE_FOLDER
from rm_assets.storage.files import write_json
from rm_assets.storage.remote import Remote
from rm_assets.storage.source_files import is_url

INSIDE_PACKAGE = "package://"


def send_request(remote: Remote, request: dict[str, Any]) -> str:
    """Writes a request for another machine to the store, and gives its URL. Paths inside the package are those of the package there."""
    name = f"requests/{request['asset']}/{request['digest']}.json"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "request.json"
        write_json(file, portable(request) | {"home": remote.url, "version": version("rm-assets")})
        remote.upload(file, name)
    return f"{remote.url}/{name}"


def read_request(location: str) -> dict[str, Any]:
    """The request at a path or URL.

    Raises: ExecutorError EXECUTOR_003 if another version of rm_assets has sent it; StoreError as Remote.
    """
    if not is_url(location):
        request: dict[str, Any] = json.loads(Path(location).read_text("utf-8"))
        return request
    url, _, name = location.rpartition("/requests/")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "request.json"
        Remote(url, Path(folder)).download(f"requests/{name}", file)
        request = json.loads(file.read_text("utf-8"))
    if request["version"] != version("rm-assets"):
        raise ExecutorError(
            "EXECUTOR_003",
            f"the task was sent by rm_assets {request['version']}, and this is {version('rm-assets')}",
            why="another version may make another result, under the same digest",
            fix="install the same version on both machines, or in the image",
        )
    here: dict[str, Any] = local(request)
    return here


def portable(value: Any) -> Any:
    """`value` for another machine: paths inside the package as those of the package there."""
    return _replaced(value, f"{PACKAGE_FOLDER}/", INSIDE_PACKAGE)


def local(value: Any) -> Any:
    """The inverse of `portable`, here."""
    return _replaced(value, INSIDE_PACKAGE, f"{PACKAGE_FOLDER}/")


def _replaced(value: Any, start: str, by: str) -> Any:
    """`value` with the texts in it that begin with `start` beginning with `by`."""
    if isinstance(value, dict):
        return {key: _replaced(inner, start, by) for key, inner in value.items()}
    if isinstance(value, list):
        return [_replaced(inner, start, by) for inner in value]
    return by + value.removeprefix(start) if isinstance(value, str) and value.startswith(start) else value
