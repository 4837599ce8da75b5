"""`rm-assets monitor`: the trainings of the store, read from their metrics logs while they are written."""

import csv
import functools
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live

from rm_assets.cli.json_output import print_json
from rm_assets.cli.monitor_view import view
from rm_assets.core.errors import StoreError
from rm_assets.storage.files import whole_file
from rm_assets.storage.metrics_log import METRICS_LOG, Run, read_run
from rm_assets.storage.store import Store

NUM_ENDED = 3
"""Trainings that are over and shown beside those that are alive."""
Watched = list[tuple[Run, str]]


def select(store: Store, names: Sequence[str], *, all_runs: bool = False) -> Watched:
    """The runs to show with their states, oldest first.

    Of a recipe the newest run, and so of each of its seeds; a digest's first characters name one run. Without names those
    that are alive and the last few that are over.
    Raises: StoreError STORE_002 if a name fits nothing.
    """
    runs = sorted(_runs(store), key=lambda run: run[0].started_at)
    if names:
        runs = [run for run in runs if run in [found for name in names for found in _named(store, runs, name)]]
    elif not all_runs:
        ended = [run for run in runs if run[1] != "running"][-NUM_ENDED:]
        runs = [run for run in runs if run[1] == "running" or run in ended]
    return runs


def _runs(store: Store) -> Watched:
    found = []
    for file in store.home.glob(f"*/*/{METRICS_LOG}"):
        with suppress(FileNotFoundError):  # somebody has removed the folder in this moment
            seen = file.stat()
            run = _read(file, seen.st_size, seen.st_mtime_ns)
            if run is not None:
                found.append((run, _state(store, run)))
    return found


@functools.lru_cache(maxsize=256)
def _read(file: Path, size: int, changed: int) -> Run | None:
    """The run of a log, read again only when it has changed."""
    return read_run(file)


def _state(store: Store, run: Run) -> str:
    """running, finished, failed, pruned by a search, or interrupted: its process is gone without a word."""
    if (store.home / run.asset / run.digest / "manifest.json").is_file():  # of a cache nothing is fetched to see it
        return "finished"
    if store.is_leased(run.asset, run.digest) or store.is_heard(run.asset, run.digest):
        return "running"
    return run.end["status"] if run.end else "interrupted"


def _named(store: Store, runs: Watched, name: str) -> Watched:
    newest = {run.recipe: (run, state) for run, state in runs if name in (run.recipe, run.recipe.split("@")[0])}
    found = list(newest.values()) or [(run, state) for run, state in runs if run.digest.startswith(name)]
    if not found:
        recipes = ", ".join(sorted({run.recipe for run, _ in runs})) or "no recipe"
        raise StoreError(
            "STORE_002",
            f"no training of '{name}' has begun (store: {store.home})",
            why=f"there are metrics logs of {recipes}",
            fix="name a recipe, or the first characters of a digest",
        )
    return found


def watch(
    look: Callable[[], Watched], *, follow: bool | None, console: Console, seconds_between_looks: float = 1.0
) -> None:
    """Shows what `look` finds, and keeps showing it: with `follow` until Ctrl-C, without until nothing runs any more.

    `follow` False, or a console that is no terminal, shows it once.
    """
    if follow is False or not (console.is_terminal or follow):
        console.print(view(look(), console.width))
        return
    try:
        with Live(console=console, auto_refresh=False) as live:
            while True:
                runs = look()
                live.update(view(runs, console.width), refresh=True)
                if not follow and not any(state == "running" for _, state in runs):
                    return
                time.sleep(seconds_between_looks)
    except KeyboardInterrupt:
        pass


def print_runs(runs: Watched) -> None:
    """Each run with its state and all its steps."""
    print_json([_plain(run, state) for run, state in runs])


def _plain(run: Run, state: str) -> dict[str, Any]:
    plain = asdict(run)
    return {"state": state, **plain, "steps": plain.pop("steps")}


def write_csv(runs: Watched, file: Path) -> int:
    """One row a step, and how many there are; a figure that a step does not have is empty."""
    rows = [
        {"recipe": run.recipe, "digest": run.digest, "num_steps": run.num_steps, **step}
        for run, _ in runs
        for step in run.steps
    ]
    columns = dict.fromkeys(name for row in rows for name in row)
    with whole_file(file) as temporary, open(temporary, "w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, list(columns))
        writer.writeheader()
        writer.writerows(rows)
    return len(rows)
