"""Files behind URLs, against a real web server on loopback and fsspec's file system in memory."""

import functools
import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from rm_assets.core.errors import DataError
from rm_assets.core.recipe import FileSource
from rm_assets.storage.fingerprints import Fingerprints
from rm_assets.storage.source_files import matching_files
from rm_assets.storage.sources import read_rows


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address under which it is served."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    filesystem = fsspec.filesystem("memory")
    yield filesystem
    filesystem.rm("/", recursive=True)


def rows(*locations: str) -> list[dict[str, object]]:
    return [row.columns for row in read_rows(FileSource(kind="files", files=list(locations)))]


def test_files_behind_a_url_are_read_as_if_they_were_here(served: tuple[Path, str]) -> None:
    folder, address = served
    (folder / "b.jsonl").write_text('{"n": 2}\n')
    (folder / "a.jsonl").write_text('{"n": 1}\n')
    assert rows(f"{address}/b.jsonl") == [{"n": 2}]
    assert rows(f"{address}/*.jsonl") == [{"n": 1}, {"n": 2}]


def test_a_file_has_one_fingerprint_wherever_it_lies(
    served: tuple[Path, str], memory: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    folder, address = served
    (folder / "a.jsonl").write_text('{"n": 1}\n')
    memory.pipe("/bucket/a.jsonl", b'{"n": 1}\n')
    prints = Fingerprints(tmp_path / "memory")
    here = prints.of(str(folder / "a.jsonl"))
    assert prints.of(f"{address}/a.jsonl") == prints.of("memory://bucket/*.jsonl") == here
    memory.pipe("/bucket/a.jsonl", b'{"n": 2}\n')
    (folder / "a.jsonl").write_text('{"n": 2}\n')
    assert prints.of(f"{address}/a.jsonl") == prints.of("memory://bucket/a.jsonl") != here


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("memory://bucket/none.jsonl", "does not exist"),
        ("memory://bucket/*.jsonl", "matches no file"),
        ("nonsense://bucket/a.jsonl", "nonsense"),
        ("http://127.0.0.1:9/*.jsonl", "cannot be reached"),
    ],
)
def test_what_cannot_be_reached_is_data_001_in_one_sentence(location: str, words: str) -> None:
    with pytest.raises(DataError) as caught:
        matching_files(location)
    assert caught.value.code == "DATA_001"
    assert words in str(caught.value)


def test_a_bucket_without_a_network_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object) -> None:
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    for variable in ("STORAGE_EMULATOR_HOST", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(DataError, match="cannot be reached"):
        matching_files("gs://bucket/*.jsonl")


@pytest.mark.parametrize("url", ["http://me:s3cret@127.0.0.1:9/*.jsonl", "http://127.0.0.1:9/a.jsonl?signature=s3cret"])
def test_a_password_or_signature_in_a_url_is_never_shown(url: str) -> None:
    with pytest.raises(DataError) as caught:
        matching_files(url)
    assert "s3cret" not in str(caught.value)
