"""The files that a recipe names: paths, folders and glob patterns of this machine, and URLs of every file system that fsspec knows."""

import glob
import hashlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from rm_assets.core.errors import DataError, RecipeError
from rm_assets.storage.files import file_sha256

VERSION_KEYS = ("ETag", "etag", "md5Hash", "content_md5", "mtime", "LastModified", "last_modified", "updated")
"""Under which of these a file system says what tells one content of a file from the next."""


@dataclass(frozen=True)
class SourceFile:
    """One file. `name` is for people, `label` enters fingerprints: where a file lies does not count, how it is called does."""

    name: str
    label: str
    path: str
    filesystem: Any = None

    def open(self) -> BinaryIO:
        """The bytes, seekable."""
        if self.filesystem is None:
            return open(self.path, "rb")
        opened: BinaryIO = self.filesystem.open(self.path, "rb")
        return opened

    def stamp(self) -> dict[str, Any] | None:
        """What changes when the content does, found without reading it; None where the file system says nothing of the kind."""
        if self.filesystem is None:
            stat = Path(self.path).stat()
            # A copy that keeps the time of its last writing (rsync -t, cp -p) is told by the others.
            times = {"mtime_ns": stat.st_mtime_ns, "ctime_ns": stat.st_ctime_ns}
            return {"path": str(Path(self.path).resolve()), "size": stat.st_size, "inode": stat.st_ino, **times}
        info = self.filesystem.info(self.path)
        versions = {key: str(info[key]) for key in VERSION_KEYS if info.get(key)}
        return {"path": self.name, "size": info.get("size"), **versions} if versions else None

    def sha256(self) -> str:
        """Hex SHA-256 of the bytes."""
        if self.filesystem is None:
            return file_sha256(Path(self.path))
        with self.open() as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def matching_files(location: str) -> list[SourceFile]:
    """The files of a path, folder, glob pattern or URL, sorted by name; hidden files of a folder are left out.

    Raises: DataError DATA_001 if there is none; RecipeError RECIPE_003 if an environment variable is not set.
    """
    if "${" in location:
        variable = location.split("${", 1)[1].split("}", 1)[0]
        raise RecipeError(
            "RECIPE_003", f"{location}: the environment variable {variable} is not set", fix=f"export {variable}=..."
        )
    files = _remote_files(location) if is_url(location) else _local_files(location)
    if not files:
        raise DataError(
            "DATA_001",
            f"{_shown(location)} does not exist or matches no file",
            fix="correct the path in the recipe; relative paths start at the recipe file",
        )
    return sorted(files, key=lambda file: file.name)


def is_url(location: str) -> bool:
    """Whether this names a file system, and no path here."""
    return "://" in location


def _local_files(location: str) -> list[SourceFile]:
    root = Path(location)
    if root.is_dir():
        found = [path for path in root.rglob("*") if path.is_file()]
        inside = [(path, path.relative_to(root)) for path in found]
        return [
            SourceFile(str(path), str(relative), str(path))
            for path, relative in inside
            if not any(part.startswith(".") for part in relative.parts)
        ]
    names = [name for name in glob.glob(location, recursive=True) if Path(name).is_file()]
    if not names and root.is_file():
        names = [location]
    return [SourceFile(name, Path(name).name, name) for name in names]


def _remote_files(location: str) -> list[SourceFile]:
    import fsspec

    try:
        _require_google(location)
        filesystem, path = fsspec.core.url_to_fs(location)
        if glob.has_magic(path):
            paths = [found for found in filesystem.glob(path) if filesystem.isfile(found)]
        else:
            paths = [path] if filesystem.exists(path) else []
    except ImportError as error:
        raise DataError(
            "DATA_001",
            f"{_shown(location)} cannot be opened",
            why=" ".join(str(error).split())[:200],
            fix=f"install the package that fsspec needs for {location.split('://', maxsplit=1)[0]}://",
        ) from None
    except Exception as error:  # noqa: BLE001 - file systems are plug-ins, and their errors share no class
        raise unreachable(_shown(location), error) from None
    protocol = location.split("://", maxsplit=1)[0]
    return [
        SourceFile(
            _shown(found if is_url(found) else f"{protocol}://{found}"), found.rsplit("/", 1)[-1], found, filesystem
        )
        for found in paths
    ]


def _require_google(location: str) -> None:
    """Fails at once without a network, where gcsfs tries for most of a minute and logs a traceback each time."""
    goes_elsewhere = os.environ.keys() & {
        "STORAGE_EMULATOR_HOST",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
    }
    if location.startswith(("gs://", "gcs://")) and not goes_elsewhere:
        socket.getaddrinfo("storage.googleapis.com", 443)


def unreachable(name: str, error: Exception) -> DataError:
    """DATA_001 for what should be there and cannot be read."""
    return DataError(
        "DATA_001",
        f"{name} cannot be reached",
        why=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
        fix="check the address, the network and the credentials in the environment",
    )


def _shown(location: str) -> str:
    """The location without a user's name and password, and over HTTP without a query, which may be a signature."""
    protocol, separator, rest = location.rpartition("://")
    host, slash, path = rest.partition("/")
    if protocol.endswith(("http", "https")):
        path, query, _ = path.partition("?")
        path += "?..." if query else ""
    return f"{protocol}{separator}{host.rsplit('@', 1)[-1]}{slash}{path}" if separator else location
