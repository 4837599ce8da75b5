"""The store: a result exists with its manifest, one process makes it, damage is seen."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rm_assets.core.errors import StoreError
from rm_assets.storage.store import Manifest, Store

RECORD: dict[str, Any] = {
    "asset": "prompts", "digest": "d", "recipe": "r", "stage_version": 1, "settings": {"a": 1}, "inputs": {},
    "counts": {"prompts": 2}, "work": {"prompts read": 2},
}  # fmt: skip
HOLD_A_LEASE = """
import sys, time
from pathlib import Path
from rm_assets.storage.store import Store
with Store(Path(sys.argv[1])).lease("prompts", "d"):
    print("held", flush=True)
    sys.stdin.read(1)
    with open(sys.argv[2], "a") as file:
        file.write(sys.argv[3] + "\\n")
"""


def committed(home: Path, content: str = "rows", of_digest: str = "d") -> tuple[Store, Path, Manifest]:
    store = Store(home)
    folder = store.folder("prompts", of_digest)
    (folder / "work").mkdir(parents=True)
    (folder / "work" / "state").write_text("half")
    (folder / "a.txt").write_text(content)
    return store, folder, store.commit(RECORD | {"digest": of_digest}, folder, ["a.txt"])


def test_a_committed_result_comes_back_and_its_work_is_gone(tmp_path: Path) -> None:
    store, folder, manifest = committed(tmp_path)
    assert store.manifest("prompts", "d") == manifest
    assert manifest.files["a.txt"]["bytes"] == 4 and manifest.counts == {"prompts": 2}
    assert sorted(f.name for f in folder.iterdir()) == ["a.txt", "manifest.json"]


def test_a_commit_removes_what_a_killed_process_wrote_by_half(tmp_path: Path) -> None:
    folder = Store(tmp_path).folder("prompts", "d")
    folder.mkdir(parents=True)
    (folder / ".prompts.parquet.7-1.tmp").touch()
    (folder / ".request.json.8-1.tmp").touch()  # of a run that begins just now
    committed(tmp_path)
    assert [file.name for file in folder.glob(".*")] == [".request.json.8-1.tmp"]


def test_a_folder_without_manifest_does_not_exist(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.folder("prompts", "d").mkdir(parents=True)
    (store.folder("prompts", "d") / "a.txt").write_text("rows")
    assert store.manifest("prompts", "d") is None


def test_extras_count_for_damage_and_not_for_the_data_version(tmp_path: Path) -> None:
    store, folder, plain = committed(tmp_path)
    (folder / "stats.json").write_text("{}")
    manifest = store.commit(RECORD, folder, ["a.txt"], ["stats.json"])
    assert manifest.extras["stats.json"]["bytes"] == 2 and manifest.data_version == plain.data_version
    assert store.manifest("prompts", "d") == manifest
    (folder / "stats.json").unlink()
    with pytest.raises(StoreError, match=r"stats\.json is missing"):
        store.manifest("prompts", "d")


def test_all_whole_results_of_an_asset_are_found(tmp_path: Path) -> None:
    store, _, first = committed(tmp_path, "rows", "d1")
    damaged = committed(tmp_path, "other", "d2")[1]
    second = committed(tmp_path, "more", "d3")[2]
    store.folder("prompts", "d4").mkdir()
    remove(damaged)
    assert sorted(store.manifests("prompts"), key=lambda m: m.digest) == [first, second]
    assert list(store.manifests("gold_rewards")) == []


def test_equal_content_has_an_equal_data_version(tmp_path: Path) -> None:
    same = committed(tmp_path, "rows", "d1")[2], committed(tmp_path, "rows", "d2")[2]
    other = committed(tmp_path, "other rows", "d3")[2]
    assert same[0].data_version == same[1].data_version != other.data_version


def test_all_results_of_an_asset_are_listed_without_damaged_and_unfinished_ones(tmp_path: Path) -> None:
    store, _, first = committed(tmp_path, of_digest="a")
    _, _, second = committed(tmp_path, "other rows", "b")
    _, damaged, _ = committed(tmp_path, of_digest="c")
    (damaged / "manifest.json").write_text("{")
    store.folder(first.asset, "unfinished").mkdir()
    assert list(store.manifests(first.asset)) == [first, second]
    assert list(store.manifests("nothing")) == []


def remove(folder: Path) -> None:
    (folder / "a.txt").unlink()


def shorten(folder: Path) -> None:
    (folder / "a.txt").write_text("row")


def cut_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text((folder / "manifest.json").read_text()[:-20])


def empty_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("")


def list_for_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("[]")


def manifest_with_a_key_too_many(folder: Path) -> None:
    file = folder / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"colour": "red"}))


def manifest_without_sizes(folder: Path) -> None:
    file = folder / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"files": {"a.txt": {}}}))


@pytest.mark.parametrize(
    "damage",
    [
        remove, shorten, cut_manifest, empty_manifest, list_for_manifest, manifest_with_a_key_too_many,
        manifest_without_sizes,
    ],
)  # fmt: skip
def test_a_damaged_result_is_store_003_and_says_what_to_remove(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    store, folder, _ = committed(tmp_path)
    damage(folder)
    with pytest.raises(StoreError, match=f"remove {folder} and run again") as caught:
        store.manifest("prompts", "d")
    assert caught.value.code == "STORE_003"


def holder(home: Path, notes: Path, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLD_A_LEASE, str(home), str(notes), name],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_second_process_waits_for_the_lease(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    with holder(tmp_path, notes, "first") as first:
        assert first.stdout is not None and first.stdout.readline() == "held\n"
        with holder(tmp_path, notes, "second") as second:
            assert second.stdin is not None
            second.stdin.write("x")
            second.stdin.flush()
            time.sleep(0.3)
            assert not notes.exists()
            first.communicate("x", timeout=30)
            assert second.communicate(timeout=30)[0] == "held\n"
        assert notes.read_text() == "first\nsecond\n"


def test_a_process_that_is_killed_holds_no_lease(tmp_path: Path) -> None:
    with holder(tmp_path, tmp_path / "notes", "first") as first:
        assert first.stdout is not None and first.stdout.readline() == "held\n"
        first.kill()
    with holder(tmp_path, tmp_path / "notes", "second") as second:
        assert second.communicate("x", timeout=30)[0] == "held\n"
    assert (tmp_path / "notes").read_text() == "second\n"


def test_leases_of_two_digests_do_not_wait_for_each_other(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.lease("prompts", "one"), store.lease("prompts", "two"):
        pass


def test_a_home_that_is_a_file_is_store_001(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write") as caught, Store(tmp_path / "file").lease("prompts", "d"):
        pass
    assert caught.value.code == "STORE_001"
