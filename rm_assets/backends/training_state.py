"""Resumable states of a training, under its `work` folder.

A state is a folder `checkpoint-STEP`. It counts only with its marker, which is written last and lists the size of every
file, so a state that was half written when the machine stopped is never resumed from. The best weights so far lie beside
the states in `best-STEP.safetensors`; the marker of a state lists those that it needs. `training.json` names the training
that the states are of.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MARKER = "complete.json"
TRAINING = "training.json"
STATE_VERSION = 1
"""Part of the training's name; to be raised when what a state holds changes, so that no older state is resumed from."""
WRITING = ".checkpoint"
"""The model while it is written."""


@dataclass(frozen=True)
class State:
    """A complete state to resume from."""

    folder: Path
    step: int


def prepare(work: Path, training: str) -> State | None:
    """The newest complete state of this very training; what another training or a killed one left is removed."""
    work.mkdir(parents=True, exist_ok=True)
    if read_json(work / TRAINING) != {"training": training}:
        discard(work)
    for folder in work.glob("checkpoint-*"):
        if _complete_state(folder) is None:
            shutil.rmtree(folder)
    _remove_unneeded_best(work)
    _remove(work / WRITING)
    write_json(work / TRAINING, {"training": training})
    return newest(work)


def discard(work: Path) -> None:
    """Removes every state, and what else a training has left."""
    for pattern in ("checkpoint-*", "best*", "profile", ".profile"):
        for path in work.glob(pattern):
            _remove(path)


def newest(work: Path) -> State | None:
    """The complete state of the latest step."""
    states = [_complete_state(folder) for folder in work.glob("checkpoint-*")]
    return max((state for state in states if state), key=lambda state: state.step, default=None)


def files(state: State) -> list[Path]:
    """Its files and the best weights that it needs; the marker last."""
    names = [*_sizes(state.folder), MARKER]
    return [Path(os.path.normpath(state.folder / name)) for name in names]


def best_file(work: Path, step: int) -> Path:
    """The weights of a step that was the best so far."""
    return work / f"best-{step}.safetensors"


def mark_complete(folder: Path, *beside: Path) -> None:
    """Says that every file of the state is there, and those beside its folder that it needs."""
    sizes = {str(path.relative_to(folder)): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}
    write_json(folder / MARKER, {"sizes": sizes | {f"../{path.name}": path.stat().st_size for path in beside}})


def keep_newest(work: Path, num_states: int) -> None:
    """Removes all but the newest states, and best weights that none of these needs."""
    folders = sorted(work.glob("checkpoint-*"), key=_step)
    for folder in folders[:-num_states]:
        shutil.rmtree(folder)
    _remove_unneeded_best(work)


def keep_best(work: Path, step: int) -> None:
    """Removes the best weights that neither a state needs nor, since they are of this step, the next one."""
    _remove_unneeded_best(work, best_file(work, step))


def _remove_unneeded_best(work: Path, *wanted: Path) -> None:
    needed = {name for folder in work.glob("checkpoint-*") for name in _sizes(folder)}
    needed |= {f"../{path.name}" for path in wanted}
    for pattern in ("best-*", ".best-*"):
        for path in work.glob(pattern):
            if f"../{path.name}" not in needed:
                _remove(path)


def _complete_state(folder: Path) -> State | None:
    sizes = _sizes(folder)
    if not sizes:
        return None
    for name, size in sizes.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            return None
    return State(folder, _step(folder))


def _sizes(folder: Path) -> dict[str, int]:
    """What the marker of a state lists; nothing if there is none."""
    sizes = (read_json(folder / MARKER) or {}).get("sizes")
    return sizes if isinstance(sizes, dict) else {}


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("checkpoint-"))


def read_json(path: Path) -> dict[str, object] | None:
    """An object from a file; None where there is none or it is damaged."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """The inverse of `read_json`; a reader never sees half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value), "utf-8")
    temporary.replace(path)
