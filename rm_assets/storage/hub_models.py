"""Releases on the Hub: one commit on a branch of its own, downloaded and checked before it gets its tag; `main` is production.

Every step looks first at what is there, so that a push that was cut goes on where it ended. The token comes from the
environment (HF_TOKEN).
"""

import errno
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rm_assets.core.errors import ReleaseError
from rm_assets.core.hub_refusals import refusal_in
from rm_assets.storage.files import file_sha256, full_or_denied

if TYPE_CHECKING:
    from huggingface_hub import HfApi

OF_THE_HUB = ".gitattributes"
"""A file that the Hub makes, and that no release holds."""
TRIES = 3
"""How often a commit is tried while others commit to the same branch."""


def push(
    folder: Path, repo: str, *, name: str, tag: str, private: bool, check: Callable[[Path], Any]
) -> str:  # fmt: skip
    """The commit that `tag` names, with exactly the files of `folder`. `check` is given what was downloaded of it, and may refuse it.

    Raises: ReleaseError RELEASE_003; what `check` raises.
    """
    with _explained(repo) as api:
        api.create_repo(repo, private=private, exist_ok=True)
        if private and not api.repo_info(repo).private:
            raise _refused(
                repo, "it is public, and release.private is true", "make it private, or set release.private to false"
            )
        taken = _head(api, repo, f"tags/{tag}")
        if taken is not None and not _same_files(api, repo, taken, folder):
            raise _refused(repo, f"its tag {tag} names other files", "choose another release.revision")
        commit = taken or _commit(api, repo, f"rm-assets/{name}", folder, f"Reward model {name}")
    with _scratch(folder) as cache:
        check(_download(repo, commit, folder, cache))
    if taken is None:
        with _explained(repo) as api:
            api.create_tag(repo, tag=tag, revision=commit)
    return commit


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Beside the folder, where a whole model has room, and where a commit removes what a killed task has left there."""
    work = folder.parent / "work"
    work.mkdir(exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="cold-", dir=work) as cache:
            yield Path(cache)
    finally:
        with suppress(OSError):  # others may work there
            work.rmdir()


def publish_as_main(folder: Path, repo: str, tag: str) -> str:
    """Makes `main`, which is loaded where no revision is named, hold the files of a pushed release; returns its commit.

    Raises: ReleaseError RELEASE_003, also where the tag does not name these files.
    """
    with _explained(repo) as api:
        commit = _head(api, repo, f"tags/{tag}")
        if commit is None or not _same_files(api, repo, commit, folder):
            raise _refused(repo, f"its tag {tag} does not name this release", "publish the release again")
        return _commit(api, repo, "main", folder, f"Production is {tag}")


def _commit(api: "HfApi", repo: str, branch: str, folder: Path, message: str) -> str:
    """The branch's head once it holds exactly the files of the folder: as it is, or after one commit on top of it."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete
    from huggingface_hub.errors import HfHubHTTPError

    for attempt in range(TRIES):
        head = _head(api, repo, f"heads/{branch}")
        if head is None:
            api.create_branch(repo, branch=branch)
            continue
        if _same_files(api, repo, head, folder):
            return head
        names = {file.name for file in folder.iterdir()}
        gone = sorted(_files(api, repo, head).keys() - names)
        operations = [CommitOperationAdd(file.name, file) for file in sorted(folder.iterdir())]
        try:
            done = api.create_commit(
                repo, [*operations, *(CommitOperationDelete(name) for name in gone)],
                commit_message=message, revision=branch, parent_commit=head,
            )  # fmt: skip
            return str(done.oid)
        except HfHubHTTPError as error:
            if error.response.status_code != 412 or attempt == TRIES - 1:
                raise
    raise _refused(repo, f"branch {branch} does not come to be", "try again")


def _head(api: "HfApi", repo: str, ref: str) -> str | None:
    refs = api.list_repo_refs(repo)
    return next((r.target_commit for r in [*refs.branches, *refs.tags] if r.ref == f"refs/{ref}"), None)


def _files(api: "HfApi", repo: str, commit: str) -> dict[str, Any]:
    """The files of a commit, by name."""
    entries = api.list_repo_tree(repo, revision=commit, recursive=True)
    return {e.path: e for e in entries if hasattr(e, "blob_id") and e.path != OF_THE_HUB}


def _same_files(api: "HfApi", repo: str, commit: str, folder: Path) -> bool:
    from huggingface_hub.utils.sha import git_hash

    there = _files(api, repo, commit)
    here = {file.name: file for file in folder.iterdir()}
    return there.keys() == here.keys() and all(
        entry.lfs.sha256 == file_sha256(here[name]) if entry.lfs else entry.blob_id == git_hash(here[name].read_bytes())
        for name, entry in there.items()
    )


def _download(repo: str, commit: str, folder: Path, cache: Path) -> Path:
    """The commit's files as somebody gets them who has nothing of it yet, byte by byte those of the folder.

    Raises: ReleaseError RELEASE_003.
    """
    with _explained(repo) as api:
        downloaded = Path(api.snapshot_download(repo, revision=commit, cache_dir=cache))
    wrong = [
        file.name
        for file in sorted(folder.iterdir())
        if not (downloaded / file.name).is_file() or file_sha256(downloaded / file.name) != file_sha256(file)
    ]
    if wrong:
        raise _refused(repo, f"{', '.join(wrong)} came back as another file", "push again; no tag was made")
    return downloaded


@contextmanager
def _explained(repo: str) -> Iterator["HfApi"]:
    """A client, whose failures are RELEASE_003, or STORE_001 where the disk is full."""
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield HfApi()
    except (HfHubHTTPError, httpx2.HTTPError, OSError, RuntimeError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise full_or_denied(error, Path(error.filename or tempfile.gettempdir())) from None
        refused = refusal_in(error, f"the repository {repo}")
        why = f"{refused.what}: {refused.why}" if refused else _said(error)
        fix = refused.fix if refused else "set HF_TOKEN to a token that may write there, and check the network"
        raise _refused(repo, why, f"{fix}; then run again: what is there already is not sent again") from None


def _said(error: Exception) -> str:
    """The error and its cause, short."""
    return "; ".join(f"{type(e).__name__}: {' '.join(str(e).split())[:300]}" for e in (error, error.__cause__) if e)


def _refused(repo: str, why: str, fix: str) -> ReleaseError:
    return ReleaseError("RELEASE_003", f"the release cannot be pushed to {repo}", why=why, fix=fix)
