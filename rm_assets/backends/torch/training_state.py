"""Resumable states of a training, under its `work` folder.

A state is a folder `checkpoint-STEP`. It counts only with its marker, which is written last and lists the size of every
file, so a state that was half written when the machine stopped is never resumed from. `training.json` names the
training that the states are of.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

MARKER = "complete.json"
TRAINING = "training.json"


@dataclass(frozen=True)
class State:
    """A complete state to resume from."""

    folder: Path
    step: int


def prepare(work: Path, training: str) -> State | None:
    """The newest complete state of this very training; everything else under `work` that is a state is removed."""
    work.mkdir(parents=True, exist_ok=True)
    same = _read(work / TRAINING) == {"training": training}
    for folder in work.glob("checkpoint-*"):
        if not same or _complete_state(folder) is None:
            shutil.rmtree(folder)
    _write(work / TRAINING, {"training": training})
    return newest(work)


def newest(work: Path) -> State | None:
    """The complete state of the latest step."""
    states = [_complete_state(folder) for folder in work.glob("checkpoint-*")]
    return max((state for state in states if state), key=lambda state: state.step, default=None)


def mark_complete(folder: Path) -> None:
    """Says that every file of the state is there."""
    sizes = {str(path.relative_to(folder)): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}
    _write(folder / MARKER, {"sizes": sizes})


def keep_newest(work: Path, num_states: int) -> None:
    """Removes all but the newest states."""
    folders = sorted(work.glob("checkpoint-*"), key=_step)
    for folder in folders[:-num_states]:
        shutil.rmtree(folder)


def _complete_state(folder: Path) -> State | None:
    sizes = (_read(folder / MARKER) or {}).get("sizes")
    if not isinstance(sizes, dict):
        return None
    for name, size in sizes.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            return None
    return State(folder, _step(folder))


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("checkpoint-"))


def _read(path: Path) -> dict[str, object] | None:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _write(path: Path, value: dict[str, object]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value), "utf-8")
    temporary.replace(path)
