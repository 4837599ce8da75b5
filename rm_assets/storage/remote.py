"""The place of record of a store on an object store: RM_ASSETS_HOME is a URL of fsspec (s3://, gs://), and HOME its cache here.

URL/manifests/<asset>/<digest>.json              written last of all and only once; without it nothing counts
URL/files/<asset>/<digest>/<content>/...         what the manifest names, in a folder of their content: two machines that
                                                 make the same digest do not write over each other
URL/requests/<asset>/<digest>.json               what a task on another machine is asked to do, see requests.py
URL/work/<asset>/<digest>/...                    committed shards and states of a task whose machine may vanish, until its
                                                 manifest is there, see tasks/saved_work.py
URL/registry/<number>.jsonl                      the events of one change of the registry, each written once

HOME/remote/url                                  says that this store is a cache, and of what
HOME/remote/manifests/, HOME/remote/registry/    copies of those that were read, which never change

Nothing is renamed on an object store: what is there under its name is whole. On a mounted disk (file://) it is so because it is
written beside its place. Credentials are those that the file system finds in the environment.
"""

import errno
import hashlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from rm_assets.core.errors import RmAssetsError, StoreError
from rm_assets.storage.files import whole_file, write_text

SECONDS_OF_A_LOOK = 5.0
"""A folder is listed at most once in this time, however often it is asked for."""
Answer = set[str] | StoreError


def cache_of(url: str) -> Path:
    """The folder of this machine that is the cache of a store's URL: below RM_ASSETS_CACHE, else in the user's cache folder.

    Raises: StoreError STORE_004 for a URL that holds a password, or a pattern.
    """
    url = url.rstrip("/")
    protocol, _, place = url.partition("://")
    if re.match(r"[^/]*:[^/]*@", place):
        raise StoreError(
            "STORE_004",
            f"the store's URL {protocol}://{place.rpartition('@')[2]} holds a password",
            why="it would be written to logs and to the cache",
            fix="give credentials by the variables or files that the file system reads, such as AWS_ACCESS_KEY_ID",
        )
    if re.search(r"[*?\[\]]", place.partition("/")[2]):
        raise StoreError(
            "STORE_004",
            f"the store's URL {protocol}://{place.partition('?')[0]} is a pattern",
            why="what is removed in it would be removed in every store that it fits",
            fix="name a store without * ? [ ]",
        )
    named, users = os.environ.get("RM_ASSETS_CACHE"), os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    name = f"{re.sub(r'[^A-Za-z0-9.]+', '-', place).strip('-')[-60:]}-{hashlib.sha256(url.encode()).hexdigest()[:12]}"
    home = (Path(named).expanduser().resolve() if named else Path(users) / "rm_assets") / name
    if not (home / "remote" / "url").is_file():
        write_text(home / "remote" / "url", url)
    return home


def find_remote(home: Path) -> "Remote | None":
    """What this store is a cache of, None where it is the place of record itself."""
    file = home / "remote" / "url"
    return _remote(file.read_text("utf-8"), file.parent) if file.is_file() else None


class Remote:
    """Small files that are written once and copied here, and the files of results. Names are paths below the URL.

    Raises: StoreError STORE_004 without the file system's package, STORE_005 for a bucket that does not exist or gives
    no access, STORE_006 if it does not answer.
    """

    def __init__(self, url: str, copies: Path) -> None:
        self.url = url
        self._copies = copies
        self._answers: dict[str, tuple[float, Answer]] = {}

    def names(self, folder: str, *, now: bool = False) -> set[str]:
        """Names in a folder: one request, or what was heard within SECONDS_OF_A_LOOK unless it has to be as it is `now`."""
        asked, answer = self._answers.get(folder, (float("-inf"), set[str]()))
        if now or time.monotonic() - asked > SECONDS_OF_A_LOOK:
            try:
                answer = self._list(folder)
            except StoreError as error:
                answer = error  # two hundred recipes need not wait for the same silence
            self._answers[folder] = (time.monotonic(), answer)
        if isinstance(answer, StoreError):
            raise answer
        return answer

    def forget(self) -> None:
        """What was heard before another process wrote: the next question is asked anew."""
        self._answers.clear()

    def has_copy(self, name: str) -> bool:
        """Whether a small file was read or written here before."""
        return (self._copies / name).is_file()

    def find(self, name: str) -> Path | None:
        """The copy here of a small file, None if there is no such file."""
        folder, _, file = name.rpartition("/")
        return self.read(name) if self.has_copy(name) or file in self.names(folder) else None

    def read(self, name: str) -> Path:
        """The copy here of a small file that is there."""
        copy = self._copies / name
        if not self.has_copy(name):
            with whole_file(copy) as temporary:
                self.download(name, temporary)
        return copy

    def create(self, name: str, text: str) -> None:
        """Writes a small file. Raises: FileExistsError if there is one: of several who try, one succeeds."""
        with self._asked() as (files, root):
            try:
                if _is_disk(files):
                    _create_on_disk(Path(root), name, text)
                else:
                    files.pipe_file(f"{root}/{name}", text.encode(), mode="create")
            except FileExistsError:
                if files.cat_file(f"{root}/{name}") != text.encode():
                    raise  # else it is this one: the answer to an earlier try was lost
        write_text(self._copies / name, text)

    def upload(self, file: Path, name: str) -> None:
        """Writes a file, whole or not at all."""
        with self._asked() as (files, root):
            if _is_disk(files):
                with whole_file(Path(root, name)) as temporary:
                    shutil.copyfile(file, temporary)
            else:
                files.put_file(str(file), f"{root}/{name}")

    def download(self, name: str, to: Path) -> None:
        """Reads a file. Raises: StoreError STORE_003 if it is gone."""
        with self._asked() as (files, root):
            try:
                files.get_file(f"{root}/{name}", str(to))
            except FileNotFoundError:
                raise StoreError(
                    "STORE_003",
                    f"{self.url}/{name} is gone",
                    fix=f"bring it back from a backup; or remove the manifest that names it, there and below {self._copies}, and run again",
                ) from None

    def remove(self, name: str) -> None:
        """Removes a file, or a folder with all that is in it; nothing if there is none."""
        with self._asked() as (files, root), suppress(FileNotFoundError):
            files.rm(f"{root}/{name}", recursive=True)

    def try_out(self) -> None:
        """Lists, writes and removes a file, to see whether it can be used."""
        self.names("manifests", now=True)
        with self._asked() as (files, root):
            trial = f"{root}/health-{uuid.uuid4().hex}"
            files.pipe_file(trial, b"written", mode="create")
            files.rm_file(trial)

    def _list(self, folder: str) -> set[str]:
        with self._asked() as (files, root):
            files.invalidate_cache()
            try:
                return {path.rpartition("/")[2] for path in files.ls(f"{root}/{folder}", detail=False)}
            except FileNotFoundError:
                bucket = root.partition("/")[0]
                if bucket and not files.exists(bucket):
                    raise
                return set()  # nothing has been written yet

    @contextmanager
    def _asked(self) -> Iterator[tuple[Any, str]]:
        """The file system and the URL's path in it; what goes wrong as an error of ours."""
        try:
            yield _file_system(self.url)
        except (RmAssetsError, FileExistsError):
            raise
        except ImportError as error:
            extra = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}.get(self.url.partition("://")[0])
            raise StoreError(
                "STORE_004",
                f"the store {self.url} cannot be opened",
                why=_one_line(error),
                fix=f"pip install 'rm-assets[{extra}]'" if extra else "install the package that fsspec needs for it",
            ) from None
        except Exception as error:  # file systems are plug-ins, and their errors share no class
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise  # of the disk here
            raise self._fault(error) from error

    def _fault(self, error: Exception) -> StoreError:
        why = f"{type(error).__name__}: {_one_line(error)}"
        if isinstance(error, FileNotFoundError | PermissionError) or "Credential" in type(error).__name__:
            return StoreError(
                "STORE_005",
                f"the store {self.url} does not exist or gives no access",
                why=why,
                fix="make the bucket, and give credentials that read, list and write in it by the environment",
            )
        if isinstance(error, ValueError) and "rotocol" in str(error):
            return StoreError(
                "STORE_004", f"the store {self.url} cannot be opened", why=why, fix="correct RM_ASSETS_HOME"
            )
        return StoreError(
            "STORE_006",
            f"the store {self.url} does not answer as it should",
            why=why,
            fix="check the network and the address (AWS_ENDPOINT_URL), and run again: shards and training states are kept",
        )


@cache
def _remote(url: str, copies: Path) -> Remote:
    """One for each process, so that its questions are asked once."""
    return Remote(url, copies)


def _file_system(url: str) -> tuple[Any, str]:
    import fsspec

    options = {"auto_mkdir": True} if url.startswith(("file://", "local://")) else {}
    files, root = fsspec.core.url_to_fs(url, **options)
    return files, root


def _is_disk(files: Any) -> bool:
    """Whether this is a mounted disk, where fsspec writes to a file in its place."""
    from fsspec.implementations.local import LocalFileSystem

    return isinstance(files, LocalFileSystem)


def _create_on_disk(root: Path, name: str, text: str) -> None:
    """Raises: FileExistsError if there is one: unlike a rename, a link takes the place of nothing."""
    draft, place = root / f".{uuid.uuid4().hex}", root / name
    write_text(draft, text)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        os.link(draft, place)
    finally:
        draft.unlink()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
