"""The store: one folder for each (asset, digest), visible only once its manifest is there.

HOME/<asset>/<digest>/manifest.json     written last of all; without it the folder does not count
HOME/<asset>/<digest>/...               the files that the manifest names
HOME/<asset>/<digest>/metrics.jsonl     figures of a training while it runs, see metrics_log.py; in no manifest
HOME/<asset>/<digest>/work/             state to resume from; removed when the manifest is written
HOME/<asset>/<digest>.lock              lease: one process at a time makes a digest
HOME/device.lock                        lease: one process at a time samples, scores or trains
HOME/tensorboard/<recipe>-<digest>/     TensorBoard's event files, where a recipe asks for them
HOME/wandb/                             runs of Weights & Biases, where a recipe asks for them
HOME/examinations/<digest>.json         what a base makes of pairs, see resources/examination.py
HOME/heartbeats/<run>.json              the process of a run that goes on, renewed while it lives, see resources/heartbeat.py
HOME/registry/                          releases, aliases and refusals, see registry.py; rewards of releases for newer test sets
HOME/shards/<kind>/<identity>/          committed shards of sampling and scoring, see shards.py
HOME/shards/<kind>/<identity>.lock      lease: one process at a time computes a shard of them
HOME/search/<recipe>/<study>.db         trials of a search, see resources/search.py; best.yaml as it was written last
HOME/model_comparison/<digest>/         comparisons of several models, see resources/comparison.py
HOME/retention.lock                     lease: one process at a time prunes, see retention.py
HOME/remote/                            in a cache of a store on an object store only, see remote.py

Of a cache, manifests with their files and the registry are shared by all machines; all else is this machine's own.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rm_assets.core.digests import digest
from rm_assets.core.errors import StoreError
from rm_assets.core.stages import STAGES
from rm_assets.storage.files import as_json, disk_errors, file_sha256, whole_file, write_json
from rm_assets.storage.remote import find_remote

Waiting = Callable[[], AbstractContextManager[None]]
"""Gives what is entered while a process waits for a lease that another one holds."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What was made, from what, and how. `data_version` is the hash of the files, so equal content is equal downstream.

    `extras` are files beside them that follow from them: statistics, pictures. `counts` says what is in the result, `work` what was computed to make it (and not taken from earlier shards).
    `facts`, `examples`, `columns` and `plots` are what a person sees of it.
    """

    asset: str
    digest: str
    recipe: str
    stage_version: int
    settings: dict[str, Any]
    inputs: dict[str, dict[str, str]]
    files: dict[str, dict[str, Any]]
    data_version: str
    counts: dict[str, int]
    work: dict[str, int]
    facts: dict[str, Any] = field(default_factory=dict)
    examples: list[dict[str, str]] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)
    plots: list[str] = field(default_factory=list)
    extras: dict[str, dict[str, Any]] = field(default_factory=dict)
    made: dict[str, Any] = field(default_factory=dict)

    def version_read_by(self, asset: str) -> str:
        """The version of what `asset` reads of this: the data version, or that of the files which its stage names."""
        parts = STAGES[asset].parts.get(self.asset)
        if parts is None:
            return self.data_version
        return _version({name: entry for name, entry in self.files.items() if name in parts})


class Store:
    """Reads and commits results below one folder."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.remote = find_remote(home)

    def __str__(self) -> str:
        return f"{self.remote.url} (cache: {self.home})" if self.remote else str(self.home)

    def folder(self, asset: str, of_digest: str) -> Path:
        """Where the files of this digest lie, committed or not; those that are known and not here yet are fetched.

        Raises: StoreError, as Remote.
        """
        folder = self.home / asset / of_digest
        if self.remote and self.remote.has_copy(_record(asset, of_digest)) and not (folder / "manifest.json").is_file():
            with locked(folder.with_name(f"{of_digest}.fetch.lock")):
                manifest = self.manifest(asset, of_digest)
                if manifest and not (folder / "manifest.json").is_file():
                    self._fetch(manifest)
        return folder

    def manifest(self, asset: str, of_digest: str) -> Manifest | None:
        """The committed manifest, or None; of a cache also one whose files are not here yet.

        Raises: StoreError STORE_003 if a file that it names is missing or of another size; of a cache, as Remote.
        """
        folder = self.home / asset / of_digest
        file = folder / "manifest.json"
        if not file.is_file():
            record = self.remote.find(_record(asset, of_digest)) if self.remote else None
            return _shared(record, asset, of_digest) if record else None
        manifest = _parsed(file)
        for name, entry in _files(manifest).items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != entry["bytes"]:
                raise StoreError(
                    "STORE_003",
                    f"{path} is missing or has another size than its manifest says",
                    fix=f"remove {folder} and run again",
                )
        return manifest

    def manifests(self, asset: str) -> Iterator[Manifest]:
        """What is committed of an asset, for any recipe; a damaged result is left out."""
        digests = {file.parent.name for file in (self.home / asset).glob("*/manifest.json")}
        if self.remote:
            digests |= {name.removesuffix(".json") for name in self.remote.names(f"manifests/{asset}")}
        for of_digest in sorted(digests):
            try:
                manifest = self.manifest(asset, of_digest)
            except StoreError as error:
                if error.code != "STORE_003":
                    raise
                continue
            if manifest:
                yield manifest

    def commit(
        self, manifest_without_files: dict[str, Any], folder: Path, files: list[str], extras: Iterable[str] = ()
    ) -> Manifest:
        """Hashes `files` and `extras`, writes the manifest, removes the working state. From here on the result exists."""
        entries, beside = ({name: _entry(folder / name) for name in sorted(names)} for names in (files, extras))
        manifest = Manifest(**manifest_without_files, files=entries, data_version=_version(entries), extras=beside)
        if self.remote and not self._share(manifest, folder):
            # Another machine has made the same in the meantime: what it made counts, for all that follows.
            record = self.remote.read(_record(manifest.asset, manifest.digest))
            manifest = _shared(record, manifest.asset, manifest.digest)
            self._fetch(manifest)
        self._settle(manifest, folder)
        for half in folder.glob(".*.tmp"):  # of a process that was killed
            if not half.name.startswith(".request.json."):  # another run may be about to ask for this
                half.unlink(missing_ok=True)
        return manifest

    def _settle(self, manifest: Manifest, folder: Path) -> None:
        write_json(folder / "manifest.json", asdict(manifest))
        shutil.rmtree(folder / "work", ignore_errors=True)

    def _share(self, manifest: Manifest, folder: Path) -> bool:
        """Uploads the files and then the manifest; False if there is one already."""
        assert self.remote is not None
        for name in _files(manifest):
            self.remote.upload(folder / name, f"{_place(manifest)}/{name}")
        try:
            self.remote.create(_record(manifest.asset, manifest.digest), as_json(asdict(manifest)))
        except FileExistsError:
            return False
        return True

    def _fetch(self, manifest: Manifest) -> None:
        """Downloads the files that are not here as the manifest says. Raises: StoreError STORE_003 if one is another there."""
        assert self.remote is not None
        folder = self.home / manifest.asset / manifest.digest
        for name, entry in _files(manifest).items():
            if (folder / name).is_file() and _entry(folder / name) == entry:
                continue
            place = f"{_place(manifest)}/{name}"
            with whole_file(folder / name) as temporary:
                self.remote.download(place, temporary)
                if _entry(temporary) != entry:
                    raise StoreError(
                        "STORE_003",
                        f"{self.remote.url}/{place} is not the file that its manifest names",
                        fix="bring it back from a backup",
                    )
        self._settle(manifest, folder)

    @contextmanager
    def lease(self, asset: str, of_digest: str, waiting: Waiting = nullcontext) -> Iterator[None]:
        """Held by the one process that makes this digest; a second one waits here. A dead process holds nothing."""
        with locked(self.home / asset / f"{of_digest}.lock", waiting):
            yield

    def is_leased(self, asset: str, of_digest: str) -> bool:
        """Whether a process makes this digest right now."""
        return is_locked(self.home / asset / f"{of_digest}.lock")

    @contextmanager
    def hearing(self, asset: str, of_digest: str) -> Iterator[None]:
        """Held by the one process of this machine that keeps the figures of a task elsewhere."""
        with locked(self.home / asset / f"{of_digest}.figures.lock"):
            yield

    def is_heard(self, asset: str, of_digest: str) -> bool:
        """Whether a process of this machine hears a task elsewhere make this."""
        return is_locked(self.home / asset / f"{of_digest}.figures.lock")

    def event_files(self, recipe: str, of_digest: str) -> Path:
        """Where TensorBoard's files of a training go: it shows each folder below `HOME/tensorboard` as a run."""
        return self.home / "tensorboard" / f"{recipe}-{of_digest[:12]}"

    @contextmanager
    def device(self, waiting: Callable[[str], AbstractContextManager[None]]) -> Iterator[None]:
        """Held by the one process of this store that keeps the device busy; others say so and wait, using no CPU."""
        with locked(self.home / "device.lock", partial(waiting, "another task is using the device")):
            yield


def _version(entries: Mapping[str, Mapping[str, Any]]) -> str:
    return digest({name: entry["sha256"] for name, entry in entries.items()})


def _parsed(file: Path) -> Manifest:
    try:
        manifest = Manifest(**json.loads(file.read_text("utf-8")))
        if not all({"sha256", "bytes"} <= entry.keys() for entry in _files(manifest).values()):
            raise ValueError("a file without hash or size")
    except (ValueError, TypeError, AttributeError) as error:
        raise StoreError(
            "STORE_003", f"{file} is not a manifest", why=repr(error), fix=f"remove {file.parent} and run again"
        ) from None
    return manifest


def _shared(record: Path, asset: str, of_digest: str) -> Manifest:
    """The manifest of a digest that came from elsewhere. Raises: StoreError STORE_003 also if it names files of another place."""
    manifest = _parsed(record)
    leads_out = any(Path(name).is_absolute() or ".." in Path(name).parts for name in _files(manifest))
    if (manifest.asset, manifest.digest) != (asset, of_digest) or leads_out:
        raise StoreError(
            "STORE_003",
            f"{record} names files of another place",
            fix="find out who wrote it, then remove it there and here",
        )
    return manifest


def _files(manifest: Manifest) -> dict[str, dict[str, Any]]:
    """Content and what is beside it."""
    return {**manifest.files, **manifest.extras}


def _record(asset: str, of_digest: str) -> str:
    """Where the manifest lies on an object store."""
    return f"manifests/{asset}/{of_digest}.json"


def _place(manifest: Manifest) -> str:
    """Where its files lie there."""
    content = digest({name: entry["sha256"] for name, entry in _files(manifest).items()})
    return f"files/{manifest.asset}/{manifest.digest}/{content[:12]}"


def _entry(file: Path) -> dict[str, Any]:
    return {"sha256": file_sha256(file), "bytes": file.stat().st_size}


@contextmanager
def telling(say: Callable[[str], None], reason: str) -> Iterator[None]:
    """For a process that waits: says so, and nothing more."""
    say(f"waiting: {reason}")
    yield


@contextmanager
def locked(path: Path, waiting: Waiting = nullcontext) -> Iterator[None]:
    """Held by one process at a time; a second one waits here, inside of `waiting`. A dead process holds nothing."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_CREAT | os.O_WRONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with waiting():
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def is_locked(path: Path) -> bool:
    """Whether a process holds this right now."""
    try:
        lock = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False
