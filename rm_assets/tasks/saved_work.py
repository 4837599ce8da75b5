"""Committed shards and training states of a task whose machine may vanish, kept at the store's URL until its result is there.

URL/work/<asset>/<digest>/<unit>/<path in HOME>     the files of a unit: one shard, or the newest state of a training
URL/work/<asset>/<digest>/<unit>.json               their hashes and sizes, written last; a unit without it, or with another
                                                    file than it names, is left alone
"""

import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rm_assets.backends import training_state
from rm_assets.core.errors import StoreError
from rm_assets.storage.files import file_sha256, whole_file, write_json
from rm_assets.storage.remote import Remote

SECONDS_BETWEEN_LOOKS = 5.0
STATE = "checkpoint-"
"""How the units begin that are states of a training."""


class SavedWork:
    """What was committed and not finished of one digest. Raises: StoreError, as Remote."""

    def __init__(self, remote: Remote, home: Path, asset: str, of_digest: str) -> None:
        self._remote, self._home = remote, home
        self._place, self._work = f"work/{asset}/{of_digest}", home / asset / of_digest / "work"
        self._units = set[str]()  # whole at the URL

    def fetch(self) -> int:
        """Brings here what another machine has saved, and gives the number of units.

        What is here stays as it is, and is not saved: it lies on a disk that was there before this task.
        """
        here = {unit for unit, _ in self._committed()}
        saved = {
            name.removesuffix(".json") for name in self._remote.names(self._place, now=True) if name.endswith(".json")
        }
        fetched = [unit for unit in sorted(saved) if self._fetch(unit)]
        self._units = here.union(fetched)
        return len(fetched)

    def save(self) -> None:
        """Saves what was committed since the last time."""
        for unit, files in self._committed():
            if unit not in self._units:
                self._save(unit, files)

    def remove(self) -> None:
        """Removes all of it: the result is there."""
        self._remote.remove(self._place)

    def _committed(self) -> Iterator[tuple[str, Sequence[Path]]]:
        """Units that are whole here, with their files."""
        shards = self._home / "shards"
        for shard in sorted(shards.glob("*/*/*.parquet")):
            yield "-".join(shard.relative_to(shards).with_suffix("").parts), [shard]
        state = training_state.newest(self._work)
        if state:
            yield state.folder.name, [self._work / training_state.TRAINING, *training_state.files(state)]

    def _save(self, unit: str, files: Sequence[Path]) -> None:
        try:
            entries = {str(file.relative_to(self._home)): {"sha256": file_sha256(file)} for file in files}
            for name in entries:
                self._remote.upload(self._home / name, f"{self._place}/{unit}/{name}")
        except (FileNotFoundError, StoreError):
            if all(file.exists() for file in files):
                raise
            return  # a training has removed this state for a newer one
        with tempfile.TemporaryDirectory() as folder:
            write_json(Path(folder) / "unit.json", entries)
            self._remote.upload(Path(folder) / "unit.json", f"{self._place}/{unit}.json")
        if unit.startswith(STATE):
            for older in {known for known in self._units if known.startswith(STATE)}:
                self._remote.remove(f"{self._place}/{older}.json")
                self._remote.remove(f"{self._place}/{older}")
                self._units.remove(older)
        self._units.add(unit)

    def _fetch(self, unit: str) -> bool:
        """Whether a unit was whole; what was not here of it is here then."""
        try:
            with tempfile.TemporaryDirectory() as folder:
                self._remote.download(f"{self._place}/{unit}.json", Path(folder) / "unit.json")
                entries = json.loads((Path(folder) / "unit.json").read_text("utf-8"))
            for name, entry in entries.items():
                self._fetch_file(f"{self._place}/{unit}/{name}", self._home / name, entry["sha256"])
        except (StoreError, ValueError) as error:
            if isinstance(error, StoreError) and error.code != "STORE_003":
                raise
            return False
        return True

    def _fetch_file(self, name: str, file: Path, sha256: str) -> None:
        if not Path(os.path.normpath(file)).is_relative_to(self._home):
            raise ValueError(f"{name} leads out of the store")
        if not file.exists():
            with whole_file(file) as temporary:
                self._remote.download(name, temporary)
                if file_sha256(temporary) != sha256:
                    raise ValueError(f"{name} is not whole")


@contextmanager
def saving(work: SavedWork, say: Callable[[str], None]) -> Iterator[None]:
    """Fetches what is saved, saves in the block what is committed in it, and removes all of it where the block succeeds."""
    if fetched := work.fetch():
        say(f"goes on from {fetched} committed shards or states of another machine")
    is_over = threading.Event()

    def save() -> None:
        try:
            work.save()
        except (StoreError, OSError) as error:  # of the store, or a state that its training removes just now
            say(f"warning: what is committed could not be saved: {error}")

    def look() -> None:
        while not is_over.wait(SECONDS_BETWEEN_LOOKS):
            save()

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    try:
        yield
    except Exception:
        is_over.set()
        looking.join()
        save()
        raise
    finally:
        is_over.set()
    looking.join()
    try:
        work.remove()
    except StoreError as error:  # the result is there
        say(f"warning: what was saved could not be removed: {error}")
