"""This machine: processor, memory, GPUs, the store and its disk, Dagster's instance, task processes."""

import os
import re
import shutil
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from rm_assets.backends.machine import available_memory, has_gpu
from rm_assets.core.errors import RmAssetsError, SetupError, StoreError
from rm_assets.core.health import Condition, faulty, sound
from rm_assets.executors.local import start_fault
from rm_assets.resources.tracker import without_credentials
from rm_assets.storage.files import disk_errors, write_text
from rm_assets.storage.remote import find_remote
from rm_assets.storage.store import Store, locked

LITTLE_BYTES = 5_000_000_000
"""Free space under which a download or a training state of an ordinary model is likely to fill the disk."""


def processor() -> Condition:
    """Cores and memory."""
    free = available_memory()
    return sound("cpu", f"{os.cpu_count()} cores" + ("" if free is None else f", {gigabytes(free)} memory free"))


def gpus() -> Iterator[Condition]:
    """Each GPU that PyTorch sees, and one that it does not see."""
    if not has_gpu():
        yield sound("gpu", "none here; models run on the CPU")
        return
    try:
        from rm_assets.backends.torch.devices import gpus as seen_gpus

        seen = seen_gpus()
    except Exception as error:  # noqa: BLE001  a driver or a library that does not fit fails in many ways
        said = " ".join(str(error).split())[:200]
        yield faulty("gpu", _unseen(f"{type(error).__name__}: {said}"), "warning")
        return
    if not seen:
        yield faulty("gpu", _unseen("its build, or the driver, does not fit the GPU"), "warning")
    for number, gpu in enumerate(seen):
        yield sound(
            f"gpu {number}", f"{gpu.name}, {gigabytes(gpu.free_bytes)} of {gigabytes(gpu.total_bytes)} memory free"
        )


def _unseen(why: str) -> SetupError:
    return SetupError(
        "SETUP_004",
        "a GPU is here that PyTorch cannot use",
        why=why,
        fix="install the driver and a PyTorch built for it, or set execution.device: cpu in the recipes",
    )


def store(home: Path) -> Iterator[Condition]:
    """The store can be written, locked and holds a database; its disk has space. Leaves nothing behind."""
    try:
        with _existing(home):
            _use(home)
            if remote := find_remote(home):
                remote.try_out()
            free = shutil.disk_usage(home).free
    except RmAssetsError as error:
        yield faulty("store", error)
        return
    except (OSError, sqlite3.Error) as error:
        why = f"{type(error).__name__}: {error}"
        fix = "set RM_ASSETS_HOME to a folder on a local disk"
        yield faulty("store", StoreError("STORE_001", f"the store {home} cannot be used", why=why, fix=fix))
        return
    yield sound("store", f"{Store(home)} can be written")
    if free < LITTLE_BYTES:
        little = SetupError(
            "SETUP_005", f"{gigabytes(free)} free at {home}", why="checkpoints and training states take several times a model's size",
            fix="free some space, or set RM_ASSETS_HOME to a larger disk",
        )  # fmt: skip
        yield faulty("disk", little, "warning")
    else:
        yield sound("disk", f"{gigabytes(free)} free at the store")


def _use(home: Path) -> None:
    """Writes and locks as tasks do, and makes a database as Dagster does. Raises: StoreError STORE_001; OSError, sqlite3.Error."""
    trial = home / f".health-{uuid.uuid4().hex}"
    try:
        write_text(trial / "file", "written, synced, renamed")
        with locked(trial / "lock"), closing(sqlite3.connect(trial / "database")) as database, database:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("CREATE TABLE trial (number INTEGER)")
    finally:
        shutil.rmtree(trial, ignore_errors=True)


@contextmanager
def _existing(home: Path) -> Iterator[None]:
    """The folder exists within the block; what had to be made for it is removed again if it is empty."""
    made = [folder for folder in (home, *home.parents) if not folder.exists()]
    try:
        with disk_errors(home):
            home.mkdir(parents=True, exist_ok=True)
            yield
    finally:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()


def executors() -> Condition:
    """Whether processes of this machine can be tasks; what other executors need, a recipe says."""
    fault = start_fault()
    if fault is None:
        return sound("executor local", "task processes start")
    error = SetupError(
        "SETUP_008", "a task process does not start", why=fault, fix="install rm_assets for the Python that runs it"
    )
    return faulty("executor local", error)


def dagster_instance(home: Path, *, is_set: bool) -> Condition:
    """Opens the instance and reads from it; one that `rm-assets run` would only make at its first run is not made."""
    if not is_set and not (home / "dagster.yaml").is_file():
        return sound("dagster", f"DAGSTER_HOME is not set; the first `rm-assets run` makes an instance in {home}")
    import dagster as dg

    try:
        if not home.is_absolute() or not home.is_dir():
            raise FileNotFoundError(f"{home} is no absolute path of a folder")
        with dg.DagsterInstance.from_config(str(home)) as instance:
            runs = instance.get_runs_count()
    except Exception as error:  # noqa: BLE001  storages are plug-ins, and their errors share no class
        # Dagster repeats a value that it does not take, and it may be a password that is a number.
        said = re.sub(r'\bValue ".*?" of type', "A value of type", " ".join(str(error).split()))
        cause = without_credentials(said)[:300]
        fix = "set DAGSTER_HOME to the absolute path of a folder that you can write to, and look at its dagster.yaml"
        return faulty(
            "dagster", SetupError("SETUP_006", f"the instance in {home} cannot be opened", why=cause, fix=fix)
        )
    given = "" if is_set else "DAGSTER_HOME is not set; `rm-assets` uses "
    return sound("dagster", f"{given}{home}, {runs} runs")


def gigabytes(size: int) -> str:
    """A size as people read it."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.0f} MB"
