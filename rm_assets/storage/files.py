"""Whole files or none: everything is written to a temporary name beside its place and renamed."""

import contextlib
import errno
import hashlib
import json
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rm_assets.core.errors import StoreError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path to write to; becomes `path` when the block ends well and vanishes when it does not.

    Raises: StoreError STORE_001 when the disk is full or not writable.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with open(temporary, "rb") as written:
                os.fsync(written.fileno())
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):  # it may not exist, nor its folder
            temporary.unlink()


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Raises: StoreError STORE_001 where the disk of `path` is full or not writable; any other OSError as it is."""
    try:
        yield
    except OSError as error:
        known = full_or_denied(error, path)
        if known is error:
            raise
        raise known from error


def full_or_denied(error: OSError, path: Path) -> StoreError | OSError:
    """STORE_001 for a full, read-only or denied disk; any other error as it is."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StoreError(
            "STORE_001",
            f"no space left for {path}",
            why=str(error),
            fix="free some space, or set RM_ASSETS_HOME to a larger disk; what is committed stays",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
        return StoreError(
            "STORE_001",
            f"cannot write {path}",
            why=str(error),
            fix="make the folder writable, or set RM_ASSETS_HOME to one that is",
        )
    return error


def write_text(path: Path, text: str) -> None:
    """Writes `text` whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, "utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON; NaN and infinity are refused."""
    write_text(path, as_json(value))


def as_json(value: Any) -> str:
    """Indented JSON and the end of its last line; NaN and infinity are refused."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Writes one line for each text, whole or not at all."""
    with whole_file(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
