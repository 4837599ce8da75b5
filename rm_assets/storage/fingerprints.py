"""The content of source files and checkpoint folders as a short hash, remembered by what the system says of a file."""

import json
from pathlib import Path

from rm_assets.core.digests import digest
from rm_assets.storage.files import write_json
from rm_assets.storage.source_files import SourceFile, matching_files


class Fingerprints:
    """Hashes of files outside the store. An 8B checkpoint is read once, not at every look."""

    def __init__(self, memory: Path, *, remembers: bool = True) -> None:
        self._memory, self._remembers = memory, remembers

    def of(self, location: str) -> str:
        """Fingerprint of a file or URL, of all files in a folder, or of all files that a glob pattern matches.

        Raises: DataError DATA_001 if there is none; RecipeError RECIPE_003 if an environment variable is not set.
        """
        return digest([[file.label, self._sha256(file)] for file in matching_files(location)])

    def _sha256(self, file: SourceFile) -> str:
        known = file.stamp()
        if known is None:
            return file.sha256()
        note = self._memory / f"{digest(known['path'])}.json"
        if note.is_file():
            try:
                remembered = json.loads(note.read_text("utf-8"))
                if {k: v for k, v in remembered.items() if k != "sha256"} == known:
                    return str(remembered["sha256"])
            except (ValueError, TypeError, KeyError, AttributeError):
                pass  # a damaged note is only a lost memory
        sha256 = file.sha256()
        if self._remembers:
            write_json(note, {**known, "sha256": sha256})
        return sha256
