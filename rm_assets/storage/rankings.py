"""Files of rankings by people: JSON lines, only ever appended to, by several people at a time."""

import errno
import fcntl
import glob
import json
import os
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any, get_args

from rm_assets.core.errors import DataError
from rm_assets.core.gold.rankings import Action, Entry, Ranking
from rm_assets.core.recipe import FileSource
from rm_assets.storage.files import disk_errors
from rm_assets.storage.sources import SourceRow, read_rows


def read_entries(path: Path) -> list[Entry]:
    """All lines in their order; none if there is no file yet.

    Raises: DataError DATA_001 (cannot be opened), DATA_002 (not JSON lines, as after a write that power loss cut),
    DATA_003 (a line lacks something), each with file and line.
    """
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            return [_entry(row) for row in read_rows(FileSource(kind="files", files=[glob.escape(str(path))]))]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError("DATA_001", f"{path} cannot be read", why=str(error), fix="name a file of rankings") from None


def _entry(row: SourceRow) -> Entry:
    action: Any = row.text("action")
    if action not in get_args(Action):
        raise row.fault("action", f"is none of {', '.join(get_args(Action))}", action)
    return Entry(
        prompt_id=row.text("prompt_id"),
        action=action,
        ranking=_ranking(row) if action == "rank" else (),
        annotator=row.optional_text("annotator"),
        at=row.text("at"),
    )


def _ranking(row: SourceRow) -> Ranking:
    groups = row.columns.get("ranking")
    if not (isinstance(groups, list) and groups and all(isinstance(group, list) and group for group in groups)):
        raise row.fault("ranking", "is no list of groups such as [[best], [second, tied with it]]", groups)
    ranking = tuple(tuple(row.checked_text("ranking", name) for name in group) for group in groups)
    names = list(chain(*ranking))
    if len(set(names)) < len(names):
        raise row.fault("ranking", "names a response twice", groups)
    return ranking


def append_entry(path: Path, entry: Entry) -> None:
    """Adds one line, on the disk when this returns; a line that the disk cannot hold whole leaves nothing.

    Raises: StoreError STORE_001 when the disk is full or not writable.
    """
    line = (json.dumps(asdict(entry), ensure_ascii=False) + "\n").encode()
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            size = os.fstat(file).st_size
            if size and os.pread(file, 1, size - 1) != b"\n":
                line = b"\n" + line  # an editor may leave the last line without its end
            if os.write(file, line) < len(line):
                os.ftruncate(file, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file)
        finally:
            os.close(file)
