"""A task that makes no asset: a process of this machine, whose request lies in a folder that goes with it."""

from pathlib import Path
from typing import Any

from rm_assets.core.errors import RmAssetsError
from rm_assets.executors.local import run_local
from rm_assets.executors.output import OnEvent, unfinished
from rm_assets.storage.files import write_json


def run_side_task(
    task: str, request: dict[str, Any], folder: Path, *, result: str, timeout_seconds: float | None, hear: OnEvent = lambda event: None
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Runs a task to its end and gives its last event of each kind; `result` says what it is for.

    Raises: the task's own RmAssetsError; TaskError TASK_001 if it is killed, TASK_002 if it fails, TASK_003 if it takes too long.
    """
    events: dict[str, dict[str, Any]] = {}

    def listen(event: dict[str, Any]) -> None:
        events[event["event"]] = event
        hear(event)

    write_json(folder / "request.json", request)
    end = run_local(task, folder / "request.json", listen, timeout_seconds=timeout_seconds)
    if "error" in events:
        raise RmAssetsError.from_dict(events["error"]["error"])
    if end.status != 0:
        raise unfinished(task, end, result, timeout_seconds)
    return events
