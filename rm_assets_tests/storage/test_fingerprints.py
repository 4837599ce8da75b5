"""Fingerprints follow content, and nothing is read twice without need."""

import os
from pathlib import Path

import pytest

from rm_assets.core.errors import DataError
from rm_assets.storage import source_files
from rm_assets.storage.fingerprints import Fingerprints
from rm_assets.storage.source_files import matching_files


def checkpoint(folder: Path, weights: str = "w") -> Path:
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "sub" / "weights").write_text(weights)
    return folder


def test_a_folder_keeps_its_fingerprint_when_it_moves_or_is_touched(tmp_path: Path) -> None:
    prints = Fingerprints(tmp_path / "memory")
    one = prints.of(str(checkpoint(tmp_path / "one")))
    two = checkpoint(tmp_path / "deep" / "two")
    os.utime(two / "config.json", (1, 1))
    assert prints.of(str(two)) == one


def test_a_file_keeps_its_fingerprint_when_it_moves(tmp_path: Path) -> None:
    prints = Fingerprints(tmp_path / "memory")
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.jsonl").write_text("{}")
    assert prints.of(str(tmp_path / "one" / "a.jsonl")) == prints.of(str(tmp_path / "two" / "*.jsonl"))


def test_other_content_is_another_fingerprint(tmp_path: Path) -> None:
    prints = Fingerprints(tmp_path / "memory")
    folder = checkpoint(tmp_path / "one")
    before = prints.of(str(folder))
    (folder / "sub" / "weights").write_text("other")
    changed = prints.of(str(folder))
    (folder / "more").write_text("")
    added = prints.of(str(folder))
    (folder / "more").rename(folder / "renamed")
    assert len({before, changed, added, prints.of(str(folder))}) == 4


def test_hidden_files_of_a_folder_do_not_count(tmp_path: Path) -> None:
    prints = Fingerprints(tmp_path / "memory")
    folder = checkpoint(tmp_path / ".hidden" / "one")
    before = prints.of(str(folder))
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x").write_text("x")
    assert prints.of(str(folder)) == before
    assert [f.label for f in matching_files(str(folder))] == ["config.json", "sub/weights"]


def test_a_file_that_did_not_change_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    monkeypatch.setattr(source_files, "file_sha256", lambda file: str(read.append(file)))
    file = tmp_path / "a"
    file.write_text("a")
    first = Fingerprints(tmp_path / "memory").of(str(file))
    assert Fingerprints(tmp_path / "memory").of(str(file)) == first and read == [file]
    file.write_text("ab")
    Fingerprints(tmp_path / "memory").of(str(file))
    assert read == [file, file]


@pytest.mark.parametrize("is_moved", [True, False])
def test_other_content_of_the_same_size_and_time_is_another_fingerprint(tmp_path: Path, is_moved: bool) -> None:
    prints, file, copy = Fingerprints(tmp_path / "memory"), tmp_path / "a", tmp_path / "copy"
    file.write_text("one")
    before, times = prints.of(str(file)), file.stat()
    (copy if is_moved else file).write_text("two")
    os.utime(copy if is_moved else file, ns=(times.st_atime_ns, times.st_mtime_ns))
    if is_moved:  # as rsync does it
        copy.rename(file)
    assert file.stat().st_mtime_ns == times.st_mtime_ns and prints.of(str(file)) != before


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", "null"])
def test_a_damaged_memory_is_made_anew(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "a"
    file.write_text("a")
    first = Fingerprints(tmp_path / "memory").of(str(file))
    (note,) = (tmp_path / "memory").iterdir()
    good = note.read_text()
    note.write_text(damage)
    assert Fingerprints(tmp_path / "memory").of(str(file)) == first
    assert note.read_text() == good


def test_an_empty_folder_has_no_fingerprint(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist or matches no file") as caught:
        Fingerprints(tmp_path / "memory").of(str(tmp_path))
    assert caught.value.code == "DATA_001"
