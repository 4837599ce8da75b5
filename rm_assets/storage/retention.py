"""Retention: removes from the store what nobody needs any more, and never what a release or a recipe is made of.

Shards of responses and rewards, examinations, comparisons and studies are shared between results, or small, and stay.
Of a store on an object store only the cache on this machine is pruned.
"""

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from rm_assets.core.recipe_files import RecipeBook
from rm_assets.core.stages import STAGES
from rm_assets.storage.files import disk_errors
from rm_assets.storage.fingerprints import Fingerprints
from rm_assets.storage.kept import Result, find_kept, here, made_for, owner, results
from rm_assets.storage.store import Store, is_locked, locked

SECONDS_PER_DAY = 86_400.0
LEFTOVER = re.compile(r"\.(health|judge|probe|rescore)-")
"""Folders of the store that processes remove when they end well; while they live they hold the file `lock` in them."""
TEMPORARY = re.compile(r"\..+\.\d+\.tmp")
"""Files that `storage.files.whole_file` renames when they are whole."""
FOLDERS = (*STAGES, "examinations", "fingerprints", "model_comparison", "registry", "shards")


@dataclass(frozen=True)
class Removal:
    """What goes: a folder or file of the store and what hangs on it. `result` is None for what a killed process left."""

    path: Path
    what: str
    why: str
    num_bytes: int
    result: Result | None = None
    beside: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What goes, and of what stays the number of results and bytes by reason. Nothing has been removed.

    `freed_bytes` is what the disk gains: a file with another name in what stays (a hard link) counts nothing. `find_kept` says
    anew what must stay.
    """

    removals: list[Removal]
    kept: dict[str, tuple[int, int]]
    freed_bytes: int
    before: float
    find_kept: Callable[[], Mapping[Result, str]]


def plan_retention(
    store: Store, book: RecipeBook, *, older_than_days: float, gone_recipes: bool = False, now: float | None = None
) -> Plan:
    """What of the store was last written before so many days, and is needed by nothing; `gone_recipes` as in `find_kept`.

    `now` in Unix seconds. Raises: as `find_kept`; RecipeError if the folder of recipes is not there.
    """
    now = time.time() if now is None else now
    before = now - older_than_days * SECONDS_PER_DAY
    fingerprint = cache(Fingerprints(store.home / "fingerprints").of)
    look = partial(find_kept, store, book, fingerprint, gone_recipes=gone_recipes)
    kept = look()
    keys, removals, stays = set(book.partition_keys()), list[Removal](), dict[str, tuple[int, int]]()
    for result in reversed(results(store)):  # what is made last goes first: the rest can still be traced
        folder = here(store, result)
        why = kept.get(result) or ("" if _last_written(folder) < before else f"younger than {older_than_days:g} days")
        if why:
            number, size = stays.get(why, (0, 0))
            stays[why] = (number + 1, size + _size(folder))
        else:
            removals.append(_removal(store, result, keys))
    removals += _leftovers(store, now - SECONDS_PER_DAY, {removal.path for removal in removals})
    return Plan(removals, stays, _freed(removals), before, look)


def prune(store: Store, plan: Plan, say: Callable[[str], None] = lambda line: None) -> int:
    """Removes what `plan` says, and returns how many of it; what has been written or released since or is being made stays.

    A manifest goes before its folder: at any moment what is committed is whole.
    Raises: StoreError STORE_001 if the store is not writable.
    """
    done = 0
    with locked(store.home / "retention.lock"):
        for removal in plan.removals:
            with disk_errors(removal.path):
                removed = removal.result not in plan.find_kept() and _remove(store, removal, plan.before)
            done += removed
            say(f"{'removed' if removed else 'left, it is in use again:'} {removal.path.relative_to(store.home)}")
    return done


def _remove(store: Store, removal: Removal, before: float) -> bool:
    path = removal.path
    if removal.result is None:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        return True
    if store.is_leased(*removal.result):
        return False
    with store.lease(*removal.result):
        if not path.is_dir() or _last_written(path) >= before:
            return False
        (path / "manifest.json").unlink(missing_ok=True)
        for each in (path, *removal.beside):
            if each.is_dir():
                shutil.rmtree(each)
    return True


def _removal(store: Store, result: Result, keys: set[str]) -> Removal:
    folder, name = here(store, result), made_for(store, result) or ""
    recipe = owner(name)
    if not (folder / "manifest.json").is_file():
        why = "never finished, and no recipe wants it"
    else:
        why = f"recipe {recipe} wants another" if recipe in keys else f"recipe {recipe} is not here"
    events = store.event_files(name, result[1])
    beside = (events,) if result[0] == "reward_model" and events.is_dir() and not events.is_symlink() else ()
    what = f"{result[0]} {result[1][:12]}"
    return Removal(folder, what, why, sum(map(_size, (folder, *beside))), result, beside)


def _leftovers(store: Store, before: float, gone: set[Path]) -> Iterator[Removal]:
    """What processes that were killed left, if it was last written before a day ago."""
    found = [path for path in _entries(store.home) if LEFTOVER.match(path.name) and not is_locked(path / "lock")]
    for folder in (store.home / name for name in FOLDERS):
        if folder.is_symlink():
            continue
        for place, folders, files in os.walk(folder):
            if Path(place) in gone:
                folders.clear()
                continue
            found += [Path(place, file) for file in files if TEMPORARY.fullmatch(file)]
            if "manifest.json" in files and "work" in folders:
                found.append(Path(place, "work"))
                folders.remove("work")
    for path in found:
        if not path.is_symlink() and _last_written(path) < before:
            what = str(path.relative_to(store.home))
            yield Removal(path, what, "left by a process that was killed", _size(path))


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _files(path: Path) -> Iterator[os.stat_result]:
    """Of a file, or of all files in a folder; links are not followed."""
    if not path.is_dir():
        yield path.lstat()
        return
    for place, _, files in os.walk(path):
        for file in files:
            yield Path(place, file).lstat()


def _last_written(path: Path) -> float:
    """Unix seconds; of an empty folder its own."""
    return max((stat.st_mtime for stat in _files(path)), default=path.stat().st_mtime)


def _size(path: Path) -> int:
    return sum(stat.st_size for stat in _files(path))


def _freed(removals: list[Removal]) -> int:
    """Bytes of the files all of whose names go."""
    names: dict[tuple[int, int], list[int]] = {}
    for removal in removals:
        for path in (removal.path, *removal.beside):
            for stat in _files(path):
                left = names.setdefault((stat.st_dev, stat.st_ino), [stat.st_nlink, stat.st_size])
                left[0] -= 1
    return sum(size for left, size in names.values() if left <= 0)
