"""The content of source files and checkpoint folders as a short hash, remembered by size and modification time."""

import glob
import json
from pathlib import Path

from rm_assets.core.digests import digest
from rm_assets.core.errors import DataError, RecipeError
from rm_assets.storage.files import file_sha256, write_json


class Fingerprints:
    """Hashes of files outside the store. An 8B checkpoint is read once, not at every look."""

    def __init__(self, memory: Path, *, remembers: bool = True) -> None:
        self._memory, self._remembers = memory, remembers

    def of(self, location: str) -> str:
        """Fingerprint of a file, of all files in a folder, or of all files that a glob pattern matches.

        Raises: DataError DATA_001 if there is none; RecipeError RECIPE_003 if an environment variable is not set.
        """
        files = matching_files(location)
        root = Path(location) if Path(location).is_dir() else None
        return digest([[str(f.relative_to(root)) if root else f.name, self._sha256(f)] for f in files])

    def _sha256(self, file: Path) -> str:
        stat = file.stat()
        known = {"path": str(file.resolve()), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        note = self._memory / f"{digest(known['path'])}.json"
        if note.is_file():
            try:
                remembered = json.loads(note.read_text("utf-8"))
                if {k: remembered[k] for k in known} == known:
                    return str(remembered["sha256"])
            except (ValueError, TypeError, KeyError):
                pass  # a damaged note is only a lost memory
        sha256 = file_sha256(file)
        if self._remembers:
            write_json(note, {**known, "sha256": sha256})
        return sha256


def matching_files(location: str) -> list[Path]:
    """The files of a path, folder or glob pattern, sorted by name; hidden files of a folder are left out."""
    if "${" in location:
        variable = location.split("${", 1)[1].split("}", 1)[0]
        raise RecipeError(
            "RECIPE_003", f"{location}: the environment variable {variable} is not set", fix=f"export {variable}=..."
        )
    path = Path(location)
    if path.is_dir():
        files = [
            f for f in path.rglob("*") if f.is_file() and not any(p.startswith(".") for p in f.relative_to(path).parts)
        ]
    else:
        files = [Path(f) for f in glob.glob(location, recursive=True) if Path(f).is_file()] or (
            [path] if path.is_file() else []
        )
    if not files:
        raise DataError(
            "DATA_001",
            f"{location} does not exist or matches no file",
            fix="correct the path in the recipe; relative paths start at the recipe file",
        )
    return sorted(files)
