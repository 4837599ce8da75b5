"""The registry: what is released, what its aliases name, and the way back."""

import json
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from rm_assets.core.errors import ReleaseError
from rm_assets.storage.files import write_json, write_lines
from rm_assets.storage.registry import Registry, Release, release_name
from rm_assets.storage.store import Store


def built(store: Store, digest: str, line: str = "toy") -> Release:
    """A release with its committed files."""
    folder = store.folder("hub_release", digest)
    write_json(folder / "release" / "config.json", {"of": digest})
    manifest = {
        "asset": "hub_release", "digest": digest, "recipe": line, "stage_version": 1, "settings": {}, "inputs": {},
        "counts": {}, "work": {},
    }  # fmt: skip
    store.commit(manifest, folder, ["release/config.json"])
    rate = {"value": 0.8, "low": 0.7, "high": 0.9}
    return Release(release_name(line, digest), line, digest, "report" + digest, "whole", rate, "2026-01-01T00:00:00")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def registry(store: Store) -> Registry:
    """A line of three releases, a, b and c."""
    made = Registry(store)
    for digest in "abc":
        made.add(built(store, digest))
    return made


def test_the_newest_release_is_in_staging_and_none_in_production(registry: Registry) -> None:
    assert [release.name for release in registry.releases()] == ["toy-c", "toy-b", "toy-a"]
    assert registry.aliases("toy") == {"staging": "toy-c"}
    assert registry.aliases("other") == {}


def test_a_release_that_is_known_is_not_added_again(registry: Registry, store: Store) -> None:
    assert registry.add(built(store, "a")) is None
    assert len(registry.releases()) == 3 and registry.aliases("toy") == {"staging": "toy-c"}


def test_a_release_is_registered_with_its_alias_or_not_at_all(
    registry: Registry, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def cut_at_the_second(path: Path, lines: list[str]) -> None:
        written.append(path)
        if len(written) == 2:
            raise KeyboardInterrupt
        write_lines(path, lines)

    monkeypatch.setattr("rm_assets.storage.registry.write_lines", cut_at_the_second)
    with suppress(KeyboardInterrupt):
        registry.add(built(store, "d"))
    registry.add(built(store, "d"))
    assert registry.find("toy@staging").name == registry.find("toy").name == "toy-d"


def test_what_two_processes_do_at_once_is_done_once(registry: Registry, store: Store) -> None:
    new, start = built(store, "d"), threading.Barrier(8)

    def add() -> None:
        start.wait()
        Registry(store).add(new)
        Registry(store).refuse("toy", "r", "match_rate_is_high", "match rate 0.4")

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [release.name for release in registry.releases()] == ["toy-d", "toy-c", "toy-b", "toy-a"]
    assert len(list(registry.events("refused"))) == 1


def test_promotion_and_rollback_move_the_alias_and_keep_the_history(registry: Registry) -> None:
    for name in ("toy-a", "toy-b", "toy-c"):
        assert registry.move(registry.find(name), "production", why="better") is not None
    assert registry.move(registry.find("toy-c"), "production", why="again") is None
    move = registry.roll_back("toy", why="it flatters")
    assert (move.before, move.now, move.why) == ("toy-c", "toy-b", "it flatters") and move.who
    assert registry.find("toy@production").name == "toy-b"
    # What was rolled back is not come back to.
    assert registry.roll_back("toy", why="still").now == "toy-a"
    with pytest.raises(ReleaseError, match="names its first release, toy-a") as caught:
        registry.roll_back("toy", why="more")
    assert caught.value.code == "RELEASE_008"
    assert [event["now"] for event in registry.events("moved") if event["alias"] == "production"] == [
        "toy-a", "toy-b", "toy-c", "toy-b", "toy-a",
    ]  # fmt: skip
    registry.move(registry.find("toy-c"), "production", why="mended")
    assert registry.roll_back("toy", why="no").now == "toy-a"


def test_nothing_is_rolled_back_to_a_release_whose_files_are_gone(registry: Registry, store: Store) -> None:
    for name in ("toy-a", "toy-b"):
        registry.move(registry.find(name), "production", why="")
    (store.folder("hub_release", "a") / "manifest.json").unlink()
    with pytest.raises(ReleaseError, match="the files of toy-a are gone") as caught:
        registry.roll_back("toy", why="")
    assert caught.value.code == "RELEASE_008" and registry.aliases("toy")["production"] == "toy-b"


def test_a_release_is_found_by_name_alias_or_line(registry: Registry) -> None:
    assert registry.find("toy").name == registry.find("toy@staging").name == "toy-c"
    for name, says in (("toy-x", "no release 'toy-x'"), ("toy@production", "no release of 'toy' is in production")):
        with pytest.raises(ReleaseError, match=says) as caught:
            registry.find(name)
        assert caught.value.code == "RELEASE_007"


def test_a_release_knows_where_it_was_pushed(registry: Registry) -> None:
    hub = {"repo": "me/toy", "tag": "v1", "commit": "0" * 40}
    registry.pushed(registry.find("toy-a"), hub)
    registry.pushed(registry.find("toy-a"), hub)
    assert registry.find("toy-a").hub == hub and registry.find("toy-b").hub is None
    assert len(list(registry.events("pushed"))) == 1


def test_a_refusal_is_noted_once_for_each_report_and_reason(registry: Registry) -> None:
    for report in ("r1", "r1", "r2"):
        registry.refuse("toy", report, "match_rate_is_high", "match rate 0.4")
    assert [event["report"] for event in registry.events("refused")] == ["r1", "r2"]


def test_the_log_is_lines_of_json_that_are_only_added_to(registry: Registry, store: Store) -> None:
    before = (store.home / "registry" / "log.jsonl").read_text()
    registry.move(registry.find("toy-a"), "production", why="größer\u2028als zuvor")
    after = (store.home / "registry" / "log.jsonl").read_text()
    assert after.startswith(before) and json.loads(after.split("\n")[-2])["why"] == "größer\u2028als zuvor"
    assert registry.find("toy@production").name == "toy-a"
