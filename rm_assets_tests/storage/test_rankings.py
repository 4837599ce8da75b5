"""Files of rankings: appended by several processes at a time, whole lines or none, damage refused by name."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rm_assets.core.errors import DataError, StoreError
from rm_assets.core.gold.rankings import Entry
from rm_assets.storage import rankings
from rm_assets.storage.rankings import append_entry, read_entries

RANKED = Entry(
    prompt_id="p", action="rank", ranking=(("b",), ("a", "c")), annotator="Änne", at="2026-11-21T10:00:00+00:00"
)
SKIPPED = Entry(prompt_id="q", action="skip", at="2026-11-21T10:00:01+00:00")
WRITER = """
import sys; from pathlib import Path
from rm_assets.core.gold.rankings import Entry; from rm_assets.storage.rankings import append_entry
for n in range(200):
    append_entry(Path(sys.argv[1]), Entry(prompt_id=str(n), action="rank", ranking=((sys.argv[2] * 3000,), ("b",)), annotator=sys.argv[2], at="t"))
"""  # fmt: skip
NAMES = st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip)


def test_entries_are_read_as_they_were_appended(tmp_path: Path) -> None:
    file = tmp_path / "new folder" / "ranked.jsonl"
    assert read_entries(file) == []
    append_entry(file, RANKED)
    append_entry(file, SKIPPED)
    assert read_entries(file) == [RANKED, SKIPPED]


@settings(deadline=None)  # every entry waits for the disk
@given(NAMES, st.lists(NAMES, min_size=1, unique=True), NAMES | st.none())
def test_any_names_survive_the_file(prompt: str, names: list[str], annotator: str | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        entry = Entry(prompt_id=prompt, action="rank", ranking=(tuple(names),), annotator=annotator, at="t")
        append_entry(Path(folder) / "ranked.jsonl", entry)
        assert read_entries(Path(folder) / "ranked.jsonl") == [entry]


def test_two_processes_that_append_at_once_lose_and_mix_nothing(tmp_path: Path) -> None:
    file = tmp_path / "ranked.jsonl"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(file), name]) for name in "xy"]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    entries = read_entries(file)
    assert len(entries) == 400
    for name in "xy":
        assert [e.prompt_id for e in entries if e.annotator == name] == [str(n) for n in range(200)]
        assert {e.ranking[0][0] for e in entries if e.annotator == name} == {name * 3000}


def test_a_last_line_without_its_end_is_a_line(tmp_path: Path) -> None:
    file = tmp_path / "ranked.jsonl"
    append_entry(file, RANKED)
    file.write_bytes(file.read_bytes().rstrip())
    append_entry(file, SKIPPED)
    assert read_entries(file) == [RANKED, SKIPPED]


def test_a_torn_line_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "ranked.jsonl"
    append_entry(file, SKIPPED)
    append_entry(file, RANKED)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"DATA_002.*ranked.jsonl, line 2 is not JSON"):
        read_entries(file)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"prompt_id": "p", "action": "like", "ranking": [["a"]], "annotator": null, "at": "t"}', "'action' is none of rank, skip, undo"),
        ('{"prompt_id": "p", "action": "rank", "ranking": ["a", "b"], "annotator": null, "at": "t"}', "'ranking' is no list of groups"),
        ('{"prompt_id": "p", "action": "rank", "ranking": [[]], "annotator": null, "at": "t"}', "'ranking' is no list of groups"),
        ('{"prompt_id": "p", "action": "rank", "ranking": [["a"], ["a"]], "annotator": null, "at": "t"}', "'ranking' names a response twice"),
        ('{"prompt_id": "p", "action": "rank", "ranking": [[1]], "annotator": null, "at": "t"}', "'ranking' holds no text"),
        ('{"action": "skip", "ranking": [], "annotator": null, "at": "t"}', "'prompt_id' is missing"),
        ('{"prompt_id": "p", "action": "skip", "ranking": [], "at": "t"}', "'annotator' is missing"),
    ],
)  # fmt: skip
def test_a_line_that_lacks_something_is_refused_by_column(line: str, fault: str, tmp_path: Path) -> None:
    file = tmp_path / "ranked.jsonl"
    file.write_text(line + "\n")
    with pytest.raises(DataError) as refusal:
        read_entries(file)
    assert refusal.value.code == "DATA_003" and "line 1" in refusal.value.what and fault in refusal.value.what


def test_a_line_that_the_disk_cannot_hold_whole_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, write = tmp_path / "ranked.jsonl", os.write
    append_entry(file, SKIPPED)
    monkeypatch.setattr(rankings.os, "write", lambda to, line: write(to, line[:10]))
    with pytest.raises(StoreError, match="STORE_001"):
        append_entry(file, RANKED)
    assert read_entries(file) == [SKIPPED]


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="DATA_001"):
        read_entries(tmp_path)
