"""Whole files or none, also when the disk is full for real."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rm_assets.core.errors import StoreError
from rm_assets.storage import files
from rm_assets.storage.files import file_sha256, full_or_denied, whole_file, write_json, write_text

FILL_A_DISK_OF_4_KIB = """
import resource, sys
from pathlib import Path
from rm_assets.core.errors import StoreError
from rm_assets.core.records import Prompt
from rm_assets.storage.files import write_text
from rm_assets.storage.tables import jsonl_writer, write_table
import os
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
path = Path(sys.argv[2])
prompts = (Prompt(prompt_id=str(i), prompt=os.urandom(40).hex(), system=None, reference=None, source="s",
                  split="train", external_id=None, row=i) for i in range(20_000))
try:
    if sys.argv[1] == "text":
        write_text(path, "x" * 10_000)
    elif sys.argv[1] == "jsonl":
        with jsonl_writer(path) as write:
            for i in range(10_000):
                write({"n": i})
    else:
        write_table(path, Prompt, prompts)
except StoreError as error:
    print(error.code, path.name in str(error))
"""


def test_a_written_file_is_there_with_its_content_and_nothing_beside_it(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "a.txt", "ä\n")
    assert (tmp_path / "new" / "a.txt").read_bytes() == b"\xc3\xa4\n"
    assert [f.name for f in (tmp_path / "new").iterdir()] == ["a.txt"]


def test_an_exception_while_writing_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def break_midway() -> None:
        with whole_file(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        break_midway()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["text", "jsonl", "table"])
def test_a_disk_that_fills_up_is_store_001_and_leaves_nothing(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "out" / "result.x"
    end = subprocess.run(
        [sys.executable, "-c", FILL_A_DISK_OF_4_KIB, kind, str(path)], capture_output=True, text=True, check=False
    )
    assert end.stdout == "STORE_001 True\n", end.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_a_disk_that_is_full_at_the_renaming_is_store_001_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(StoreError, match="no space left") as caught:
        write_json(tmp_path / "a.json", {"a": 1})
    assert caught.value.code == "STORE_001"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_store_001(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="cannot write") as caught:
        write_text(tmp_path / "a.txt", "a")
    assert caught.value.code == "STORE_001"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM])
def test_full_and_denied_disks_are_store_001(number: int) -> None:
    error = full_or_denied(OSError(number, os.strerror(number)), Path("p"))
    assert isinstance(error, StoreError) and error.code == "STORE_001"


def test_any_other_error_of_the_system_stays_what_it_is(tmp_path: Path) -> None:
    def read_what_is_not_there() -> None:
        with whole_file(tmp_path / "a"):
            (tmp_path / "b").read_text()

    with pytest.raises(FileNotFoundError):
        read_what_is_not_there()
    assert list(tmp_path.iterdir()) == []


def test_json_refuses_numbers_that_are_not_finite(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_file_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
