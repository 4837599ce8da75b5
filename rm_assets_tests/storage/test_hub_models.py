"""A release to the Hub and back through the real client, against a Hub on this machine that refuses stale parents."""

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from rm_assets.core.errors import ReleaseError, StoreError
from rm_assets.storage.hub_models import publish_as_main, push
from rm_assets_tests.fake_model_hub import FakeModelHub, FakeRepo
from rm_assets_tests.loopback_hub import serving

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the client's own
TOKEN = "hf_never_to_be_seen"
BRANCH = "rm-assets/toy-1"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeModelHub]:
    """A Hub that this test takes for the real one; the client read its address when it was imported."""
    with serving(FakeModelHub()) as made:
        made.token = TOKEN
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        address = made.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in {
            "ENDPOINT": made.endpoint, "HUGGINGFACE_CO_URL_TEMPLATE": address, "HF_HUB_DISABLE_XET": True,
            "HF_HUB_OFFLINE": False, "HF_HUB_CACHE": str(tmp_path / "cache"),
        }.items():  # fmt: skip
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
        yield made


def release(folder: Path, weights: bytes, **texts: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(weights)
    for name, text in {"README": "---\nlicense: mit\n---\n", **texts}.items():
        (folder / f"{name}.md").write_text(text)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name != ".gitattributes"}


def on_hub(repo: FakeRepo, revision: str) -> dict[str, bytes]:
    return {name: content for name, content in repo.files(revision).items() if name != ".gitattributes"}


def push_toy(folder: Path, seen: list[dict[str, bytes]] | None = None, tag: str = "v1") -> str:
    def check(downloaded: Path) -> None:
        (seen if seen is not None else []).append(contents(downloaded))

    return push(folder, "me/toy", name="toy-1", tag=tag, private=True, check=check)


def test_what_is_downloaded_lies_where_a_commit_removes_it_after_a_kill(hub: FakeModelHub, tmp_path: Path) -> None:
    places = list[Path]()
    push(release(tmp_path / "r", b"w"), "me/toy", name="toy-1", tag="v1", private=True, check=places.append)
    assert places[0].is_relative_to(tmp_path / "work") and not (tmp_path / "work").exists()


def test_a_disk_that_is_full_is_no_fault_of_the_hub(
    hub: FakeModelHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device", "a.safetensors")

    monkeypatch.setattr("huggingface_hub.HfApi.snapshot_download", full)
    with pytest.raises(StoreError, match="no space left for a") as caught:
        push_toy(release(tmp_path / "r", b"w"))
    assert caught.value.code == "STORE_001" and not hub.repos["me/toy"].tags and not (tmp_path / "work").exists()


def test_a_release_is_one_commit_on_its_branch_and_is_tagged_after_it_came_back_whole(
    hub: FakeModelHub, tmp_path: Path
) -> None:
    folder, seen = release(tmp_path / "r", b"weights" * 500), list[dict[str, bytes]]()
    commit = push_toy(folder, seen)
    repo = hub.repos["me/toy"]
    assert repo.log(BRANCH) == ["Reward model toy-1", "initial commit"] and repo.tags == {"v1": commit}
    assert on_hub(repo, "v1") == contents(folder) == seen[0]
    assert repo.log("main") == ["initial commit"]  # nothing is in production by itself
    sent = [r for r in hub.requests if r.startswith("PUT /lfs/") or "/tag/" in r or "/resolve/" in r]
    assert sent[0].startswith("PUT /lfs/") and sent[-1].startswith("POST /api/models/me/toy/tag/")
    assert hub.authorizations <= {f"Bearer {TOKEN}", None}  # LFS storage gets no token


def test_pushing_again_commits_nothing(hub: FakeModelHub, tmp_path: Path) -> None:
    folder = release(tmp_path / "r", b"weights")
    commits = {push_toy(folder), push_toy(folder)}
    assert len(commits) == 1 and len(hub.repos["me/toy"].commits) == 2


@pytest.mark.parametrize("where", ["PUT /lfs/", "POST /api/models/me/toy/commit/", "POST /api/models/me/toy/tag/"])
def test_an_upload_that_is_cut_is_one_clean_commit_after_the_next_run(
    hub: FakeModelHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)  # between the client's tries
    folder = release(tmp_path / "r", b"weights" * 500)
    hub.cut = lambda method, path: f"{method} {path}".startswith(where)
    with pytest.raises(ReleaseError) as caught:
        push_toy(folder)
    assert caught.value.code == "RELEASE_003" and TOKEN not in str(caught.value)
    repo = hub.repos["me/toy"]
    assert repo.tags == {} and repo.log("main") == ["initial commit"]
    hub.cut = lambda method, path: False
    commit = push_toy(folder)
    assert repo.log(BRANCH) == ["Reward model toy-1", "initial commit"] and repo.tags == {"v1": commit}
    assert on_hub(repo, "v1") == contents(folder)


def test_a_commit_that_the_hub_took_before_the_line_went_dead_is_found_and_not_made_again(
    hub: FakeModelHub, tmp_path: Path
) -> None:
    folder = release(tmp_path / "r", b"weights")
    answer = hub.reply

    def lost(method: str, path: str, headers: object, body: bytes) -> tuple[int, dict[str, str], bytes]:
        found = answer(method, path, headers, body)
        return (400, {}, b"{}") if "/commit/" in path else found

    hub.reply = lost  # type: ignore[method-assign]
    with pytest.raises(ReleaseError):
        push_toy(folder)
    hub.reply = answer  # type: ignore[method-assign]
    assert hub.repos["me/toy"].tags == {}
    commit = push_toy(folder)
    assert hub.repos["me/toy"].log("v1") == ["Reward model toy-1", "initial commit"]
    assert hub.repos["me/toy"].tags == {"v1": commit}


def test_a_stale_parent_is_refused_by_the_hub_and_the_commit_made_on_the_new_one(
    hub: FakeModelHub, tmp_path: Path
) -> None:
    folder = release(tmp_path / "r", b"weights")

    def somebody_else() -> None:
        hub.repos["me/toy"].commit(BRANCH, "by hand", {".gitattributes": b"", "stray.bin": b"x"})

    hub.before_commit = [somebody_else]
    commit = push_toy(folder)
    repo = hub.repos["me/toy"]
    assert repo.log(BRANCH) == ["Reward model toy-1", "by hand", "initial commit"]
    assert on_hub(repo, commit) == contents(folder)  # what was there besides is gone from it


def test_who_commits_faster_than_we_do_wins_at_last(hub: FakeModelHub, tmp_path: Path) -> None:
    def somebody_else() -> None:
        hub.repos["me/toy"].commit(BRANCH, "by hand", {".gitattributes": b"", "stray.bin": b"x"})

    hub.before_commit = [somebody_else] * 3
    with pytest.raises(ReleaseError, match="412") as caught:
        push_toy(release(tmp_path / "r", b"weights"))
    assert caught.value.code == "RELEASE_003" and hub.repos["me/toy"].tags == {}


def test_what_does_not_give_the_canary_rewards_after_the_download_gets_no_tag(
    hub: FakeModelHub, tmp_path: Path
) -> None:
    def refuse(downloaded: Path) -> None:
        raise ReleaseError("RELEASE_002", "a canary differs")

    with pytest.raises(ReleaseError, match="a canary differs"):
        push(release(tmp_path / "r", b"w"), "me/toy", name="toy-1", tag="v1", private=True, check=refuse)
    assert hub.repos["me/toy"].tags == {}


def test_a_file_that_comes_back_changed_is_named_and_gets_no_tag(hub: FakeModelHub, tmp_path: Path) -> None:
    folder, answer = release(tmp_path / "r", b"weights"), hub.reply

    def garbled(method: str, path: str, headers: object, body: bytes) -> tuple[int, dict[str, str], bytes]:
        status, named, content = answer(method, path, headers, body)
        return status, named, b"WEIGHTS" if "resolve" in path and content == b"weights" else content

    hub.reply = garbled  # type: ignore[method-assign]
    with pytest.raises(ReleaseError, match=r"model\.safetensors came back as another file"):
        push_toy(folder)
    assert hub.repos["me/toy"].tags == {}


def test_a_tag_is_never_moved(hub: FakeModelHub, tmp_path: Path) -> None:
    commit = push_toy(release(tmp_path / "r", b"weights"))
    with pytest.raises(ReleaseError, match="its tag v1 names other files"):
        push_toy(release(tmp_path / "other", b"other weights"))
    assert hub.repos["me/toy"].tags == {"v1": commit}


def test_a_private_release_does_not_go_to_a_public_repository(hub: FakeModelHub, tmp_path: Path) -> None:
    hub.repos["me/toy"] = FakeRepo("me/toy")
    hub.repos["me/toy"].private = False
    with pytest.raises(ReleaseError, match="it is public, and release\\.private is true"):
        push_toy(release(tmp_path / "r", b"weights"))
    assert list(hub.repos["me/toy"].branches) == ["main"] and not hub.repos["me/toy"].tags


def test_main_follows_production_and_goes_back(hub: FakeModelHub, tmp_path: Path) -> None:
    one = release(tmp_path / "one", b"one", NOTES="of the first")
    two = release(tmp_path / "two", b"two")
    for folder, tag in ((one, "v1"), (two, "v2")):
        push(folder, "me/toy", name=tag, tag=tag, private=True, check=lambda downloaded: None)
    repo = hub.repos["me/toy"]
    num_sent = sum(request.startswith("PUT /lfs/") for request in hub.requests)
    for folder, tag in ((one, "v1"), (two, "v2"), (one, "v1"), (one, "v1")):
        publish_as_main(folder, "me/toy", tag)
        assert on_hub(repo, "main") == contents(folder) == on_hub(repo, tag)
    assert repo.log("main")[:3] == ["Production is v1", "Production is v2", "Production is v1"]
    assert len(repo.log("main")) == 4 and num_sent == sum(r.startswith("PUT /lfs/") for r in hub.requests)
    with pytest.raises(ReleaseError, match="its tag v2 does not name this release"):
        publish_as_main(one, "me/toy", "v2")


def test_a_token_that_may_not_write_is_one_sentence(
    hub: FakeModelHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    with pytest.raises(ReleaseError) as caught:
        push_toy(release(tmp_path / "r", b"weights"))
    assert caught.value.code == "RELEASE_003" and "401" in str(caught.value)
    assert "hf_of_somebody_else" not in str(caught.value)
