"""Values gathered under numbers, on disk: what comes in any order is read back number by number, and memory stays flat."""

import json
import sqlite3
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from rm_assets.core.errors import StoreError


class GroupedRows:
    """JSON values, each added to a group. The file is gone when the block ends.

    Raises: StoreError STORE_001 when the disk is full or not writable.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._num_added = 0
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.unlink(missing_ok=True)  # of a process that was killed
            self._database = sqlite3.connect(file)
            # Nothing here outlives the process, so nothing has to survive a crash.
            self._database.executescript(
                "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -65536;"
                "CREATE TABLE rows (number INTEGER, place INTEGER, value TEXT, PRIMARY KEY (number, place)) WITHOUT ROWID;"
            )
        except (OSError, sqlite3.OperationalError) as error:
            raise self._no_space(error) from error

    def add(self, number: int, value: Any) -> None:
        """Adds a value to the group of this number."""
        self._num_added += 1
        try:
            self._database.execute(
                "INSERT INTO rows VALUES (?, ?, ?)", (number, self._num_added, json.dumps(value, allow_nan=False))
            )
        except sqlite3.OperationalError as error:
            raise self._no_space(error) from error

    def of(self, number: int) -> list[Any]:
        """The values of a group, in the order in which they were added."""
        found = self._database.execute("SELECT value FROM rows WHERE number = ? ORDER BY place", (number,))
        return [json.loads(value) for (value,) in found]

    def __enter__(self) -> "GroupedRows":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()
        self._file.unlink(missing_ok=True)
        with suppress(OSError):  # others may keep something there
            self._file.parent.rmdir()

    def _no_space(self, error: Exception) -> StoreError:
        return StoreError(
            "STORE_001",
            f"cannot write {self._file}",
            why=str(error),
            fix="free some space, or set RM_ASSETS_HOME to a larger disk; what is committed stays",
        )
