"""A store on an object store: what one machine commits the others find, and what was cut off counts nowhere."""

import functools
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from rm_assets.core.errors import StoreError
from rm_assets.resources.compute import Compute
from rm_assets.storage import remote as module
from rm_assets.storage.home import find_home, home_of
from rm_assets.storage.lineage import wanted
from rm_assets.storage.registry import Registry, Release
from rm_assets.storage.remote import Remote
from rm_assets.storage.requests import read_request
from rm_assets.storage.store import Manifest, Store
from rm_assets_tests.tasks.conftest import Bench

URL = "memory://bucket/team"
RECORD: dict[str, Any] = {
    "asset": "prompts", "digest": "d", "recipe": "r", "stage_version": 1, "settings": {}, "inputs": {}, "counts": {},
    "work": {},
}  # fmt: skip
Machine = Callable[[str], Store]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Stores of several machines at one URL; each look at it is a new one."""
    monkeypatch.setattr(module, "SECONDS_OF_A_LOOK", 0.0)
    fsspec.filesystem("memory").store.clear()

    def store(name: str, url: str = URL) -> Store:
        monkeypatch.setenv("RM_ASSETS_CACHE", str(tmp_path / name))
        return Store(home_of(url))

    return store


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Calls of the file system in memory by name."""
    counted: Counter[str] = Counter()
    of = type(fsspec.filesystem("memory"))

    def counting(name: str) -> None:
        real = getattr(of, name)

        @functools.wraps(real)
        def call(*args: Any, **options: Any) -> Any:
            counted[name] += 1
            return real(*args, **options)

        monkeypatch.setattr(of, name, call)

    for name in ("ls", "get_file", "put_file", "pipe_file"):
        counting(name)
    return counted


def commit(store: Store, content: str = "rows", of_digest: str = "d") -> Manifest:
    folder = store.folder("prompts", of_digest)
    (folder / "work").mkdir(parents=True)
    (folder / "a.txt").write_text(content)
    (folder / "deep").mkdir()
    (folder / "deep" / "b.txt").write_text("below")
    (folder / "stats.json").write_text("{}")
    return store.commit(RECORD | {"digest": of_digest}, folder, ["a.txt", "deep/b.txt"], ["stats.json"])


def files_below(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def test_what_one_machine_commits_another_finds_and_fetches_when_it_reads_it(machine: Machine) -> None:
    made = commit(machine("one"))
    other = machine("two")
    assert other.manifest("prompts", "d") == made
    assert not (other.home / "prompts").exists()
    folder = other.folder("prompts", "d")
    assert files_below(folder) == ["a.txt", "deep/b.txt", "manifest.json", "stats.json"]
    assert (folder / "a.txt").read_text() == "rows" and other.manifest("prompts", "d") == made
    assert list(machine("three").manifests("prompts")) == [made]


def test_the_manifest_is_uploaded_last_and_a_cut_upload_counts_nowhere(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, upload, uploaded = machine("one"), Remote.upload, list[str]()

    def cut(self: Remote, file: Path, name: str) -> None:
        if uploaded:
            raise StoreError("STORE_006", "cut")
        uploaded.append(name)
        upload(self, file, name)

    monkeypatch.setattr(Remote, "upload", cut)
    with pytest.raises(StoreError, match="cut"):
        commit(one)
    monkeypatch.setattr(Remote, "upload", upload)
    assert uploaded and (one.home / "prompts" / "d" / "work").is_dir()
    assert one.manifest("prompts", "d") is None and machine("two").manifest("prompts", "d") is None
    again = one.commit(RECORD, one.folder("prompts", "d"), ["a.txt"])
    assert machine("two").manifest("prompts", "d") == again
    assert not (one.home / "prompts" / "d" / "work").exists()


def test_a_cut_download_counts_not_and_goes_on_with_what_is_missing(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(machine("one"))
    two, download, fetched = machine("two"), Remote.download, list[str]()
    assert two.manifest("prompts", "d")

    def noting(self: Remote, name: str, to: Path) -> None:
        fetched.append(name.rpartition("/")[2])
        if fetched == ["a.txt", "b.txt"]:
            to.write_text("bel")
            raise StoreError("STORE_006", "cut")
        download(self, name, to)

    monkeypatch.setattr(Remote, "download", noting)
    with pytest.raises(StoreError, match="cut"):
        two.folder("prompts", "d")
    assert files_below(two.home / "prompts" / "d") == ["a.txt"]
    assert len(files_below(two.folder("prompts", "d"))) == 4
    assert fetched == ["a.txt", "b.txt", "b.txt", "stats.json"]


def test_other_bytes_than_the_manifest_names_are_not_taken(machine: Machine) -> None:
    commit(machine("one"))
    files = fsspec.filesystem("memory")
    (path,) = files.glob("/bucket/team/files/prompts/d/*/a.txt")
    files.pipe_file(path, b"rowz")
    two = machine("two")
    assert two.manifest("prompts", "d")
    with pytest.raises(StoreError, match=r"a\.txt is not the file that its manifest names") as caught:
        two.folder("prompts", "d")
    assert caught.value.code == "STORE_003" and files_below(two.home / "prompts" / "d") == []
    files.rm(path)
    with pytest.raises(StoreError, match=r"a\.txt is gone"):
        two.folder("prompts", "d")


@pytest.mark.parametrize(
    "change", [{"digest": "e"}, {"asset": "../x"}, {"extras": {"../x": {"sha256": "", "bytes": 0}}}]
)
def test_a_manifest_that_leads_elsewhere_is_refused(machine: Machine, change: dict[str, Any]) -> None:
    commit(machine("one"))
    files, path = fsspec.filesystem("memory"), "/bucket/team/manifests/prompts/d.json"
    files.pipe_file(path, json.dumps(json.loads(files.cat_file(path)) | change).encode())
    with pytest.raises(StoreError, match=r"d\.json names files of another place") as caught:
        machine("two").manifest("prompts", "d")
    assert caught.value.code == "STORE_003"


def test_of_two_machines_that_make_the_same_the_first_counts_for_both(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SECONDS_OF_A_LOOK", 60.0)  # what was heard before the other was faster
    one, two = machine("one"), machine("two")
    assert two.manifest("prompts", "d") is None
    first, second = commit(one, "rows"), commit(two, "other rows")
    assert first == second == two.manifest("prompts", "d")
    assert (two.folder("prompts", "d") / "a.txt").read_text() == "rows"


def test_what_was_removed_here_is_fetched_again(machine: Machine) -> None:
    one = machine("one")
    made = commit(one)
    (one.home / "prompts" / "d" / "manifest.json").unlink()
    assert one.manifest("prompts", "d") == made
    assert (one.folder("prompts", "d") / "manifest.json").is_file()


def test_a_look_at_two_hundred_digests_is_one_listing_and_what_is_known_none(
    machine: Machine, requests: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        commit(machine("one"), of_digest=f"made{number}")
    monkeypatch.setattr(module, "SECONDS_OF_A_LOOK", 60.0)
    two = machine("two")
    requests.clear()
    assert len(list(two.manifests("prompts"))) == 5
    assert requests == {"ls": 1, "get_file": 5}
    requests.clear()
    assert not any(two.manifest("prompts", f"wanted{number}") for number in range(200))
    assert all(Store(two.home).manifest("prompts", f"made{number}") for number in range(5))
    assert requests == {}
    assert two.manifest("gold_rewards", "a") is None and two.manifest("gold_rewards", "b") is None
    assert requests == {"ls": 1}


def test_a_server_that_is_silent_is_asked_once_in_a_look(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def silent(self: object, path: str, **options: object) -> None:
        asked.append(path)
        raise TimeoutError("no answer")

    monkeypatch.setattr(module, "SECONDS_OF_A_LOOK", 60.0)
    monkeypatch.setattr(type(fsspec.filesystem("memory")), "ls", silent)
    store = machine("one")
    for number in range(3):
        with pytest.raises(StoreError, match=r"memory://bucket/team does not answer.*") as caught:
            store.manifest("prompts", str(number))
        assert caught.value.code == "STORE_006"
    assert len(asked) == 1


def release(name: str) -> Release:
    return Release(name, "line", name, "report", "whole", {"value": 0.9}, at="2026-01-01T00:00:00+00:00")


def test_the_registry_is_the_same_everywhere(machine: Machine) -> None:
    one, two = Registry(machine("one")), Registry(machine("two"))
    one.add(release("line-a"))
    two.add(release("line-b"))
    assert one.move(release("line-a"), "production", why="good") is not None
    three = Registry(machine("three"))
    assert [r.name for r in three.releases()] == ["line-b", "line-a"]
    assert three.aliases("line") == {"production": "line-a", "staging": "line-b"}
    assert two.move(release("line-a"), "production", why="again") is None


def test_a_change_that_another_machine_was_faster_with_is_decided_again(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, create = Registry(machine("one")), Registry(machine("two")), Remote.create
    one.add(release("line-a"))
    one.add(release("line-b"))
    meanwhile = [lambda: one.move(release("line-a"), "production", why="faster")]

    def late(self: Remote, name: str, text: str) -> None:
        if meanwhile:
            meanwhile.pop()()
        create(self, name, text)

    monkeypatch.setattr(Remote, "create", late)
    move = two.move(release("line-b"), "production", why="slower")
    assert move is not None and (move.before, move.now) == ("line-a", "line-b")
    assert [event["why"] for event in two.events("moved")][-2:] == ["faster", "slower"]
    meanwhile.append(lambda: one.move(release("line-a"), "production", why="first"))
    assert two.move(release("line-a"), "production", why="second") is None


def test_a_change_whose_answer_was_lost_is_not_made_twice(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    registry, of = Registry(machine("one")), type(fsspec.filesystem("memory"))
    for name in ("line-a", "line-b", "line-c"):
        registry.add(release(name))
        registry.move(release(name), "production", why="good")
    pipe_file = of.pipe_file

    def unheard(self: Any, path: str, data: bytes, mode: str) -> None:
        pipe_file(self, path, data, mode="overwrite")
        pipe_file(self, path, data, mode=mode)

    monkeypatch.setattr(of, "pipe_file", unheard)
    monkeypatch.setattr(Registry, "folder", lambda self, release: Path())
    assert registry.roll_back("line", why="bad").now == "line-b"
    assert Registry(machine("two")).aliases("line")["production"] == "line-b"


@pytest.mark.parametrize(
    ("url", "code", "what"),
    [
        ("s3://key:secret@bucket/team", "STORE_004", "s3://bucket/team holds a password"),
        ("nonsense://bucket/team", "STORE_004", "nonsense://bucket/team cannot be opened"),
        ("s3:/bucket/team", "STORE_004", "'s3:/bucket/team' is neither the path nor the URL of a store"),
        ("s3://bucket/team[12]", "STORE_004", r"the store's URL s3://bucket/team\[12\] is a pattern"),
        ("https://host/team?signature=secret", "STORE_004", "the store's URL https://host/team is a pattern"),
    ],
)
def test_a_url_that_cannot_be_used_says_why(machine: Machine, url: str, code: str, what: str) -> None:
    with pytest.raises(StoreError, match=what) as caught:
        machine("one", url).manifest("prompts", "d")
    assert caught.value.code == code and "secret" not in str(caught.value)


def test_on_a_mounted_disk_one_of_several_creates_a_file_though_none_saw_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, name = Remote((tmp_path / "disk").as_uri(), tmp_path / "copies"), "manifests/prompts/d.json"
    monkeypatch.setattr(LocalFileSystem, "exists", lambda self, path: False)  # each has looked before the other wrote
    disk.create(name, "first")
    with pytest.raises(FileExistsError):
        disk.create(name, "second")
    disk.create(name, "first")  # the answer was lost
    assert files_below(tmp_path / "disk") == [name] and (tmp_path / "disk" / name).read_text() == "first"


def test_on_a_mounted_disk_a_second_upload_that_is_cut_off_leaves_the_first_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two machines make the same to the same place, and the slower one dies when the faster one's manifest is there."""

    def cut(source: Any, to: Any) -> None:
        Path(to).write_bytes(Path(source).read_bytes()[:3])
        raise KeyboardInterrupt

    disk, name = Remote((tmp_path / "disk").as_uri(), tmp_path / "copies"), "files/prompts/d/c/a.txt"
    (tmp_path / "a.txt").write_text("all rows")
    disk.upload(tmp_path / "a.txt", name)
    monkeypatch.setattr("shutil.copyfile", cut)
    with pytest.raises(KeyboardInterrupt):
        disk.upload(tmp_path / "a.txt", name)
    assert (tmp_path / "disk" / name).read_text() == "all rows"


def test_a_task_that_cannot_read_its_request_says_what_is_wrong_with_the_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"requests/prompts/d\.json is gone") as caught:
        read_request(f"{(tmp_path / 'disk').as_uri()}/requests/prompts/d.json")
    assert caught.value.code == "STORE_003"


def test_a_package_that_is_missing_is_named(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(url: str, **options: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(StoreError, match=r"pip install 'rm-assets\[s3\]'") as caught:
        machine("one", "s3://bucket/team").manifest("prompts", "d")
    assert caught.value.code == "STORE_004"


def test_the_variable_may_be_a_url_and_each_url_has_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("RM_ASSETS_CACHE", raising=False)
    homes = []
    for url in ("s3://bucket/team", "s3://bucket/team/", "s3://bucket-team"):
        monkeypatch.setenv("RM_ASSETS_HOME", url)
        homes.append(find_home())
    assert homes[0] == homes[1] != homes[2] and homes[0].parent == tmp_path / "rm_assets"
    assert str(Store(homes[0])) == f"s3://bucket/team (cache: {homes[0]})"


def test_tasks_commit_to_the_url_and_a_second_machine_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, url = Bench(tmp_path / "bench"), f"file://{tmp_path}/record"
    bench.write_toy()
    recipe, said = bench.recipe(), list[str]()
    for name in ("one", "two"):
        monkeypatch.setenv("RM_ASSETS_CACHE", str(tmp_path / name))
        compute = Compute(home=url)
        for asset in ("prompts", "sampled_responses", "gold_rewards", "implicit_pairs"):
            made = compute.make_asset(recipe, asset, say=said.append, debug=said.append)
            assert made.was_there == (name == "two") and made.folder.is_relative_to(tmp_path / name)
    assert sum(line.endswith(" starts") for line in said) == 4
    assert wanted(compute.store(), recipe, "implicit_pairs").manifest == made.manifest
