"""The heartbeat of a run: while its process works a file is renewed, so that a run whose process is gone can be told.

Dagster's default launcher does not say whether a run's process is alive, and nobody watches one that a terminal started.
"""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import dagster as dg

from rm_assets.core.errors import StoreError
from rm_assets.storage.files import write_json

SECONDS_BETWEEN_BEATS = 10.0
SECONDS_WITHOUT_BEAT = 120.0
"""A run that has not beaten for so long is dead, if its process cannot be looked for from here."""
SECONDS_KEPT = 24 * 3600.0
"""The file of a run that is over is removed after this time at the latest."""
HEARTBEAT_TAG = "rm_assets/heartbeat"
"""The tag of a run that says where its file is: a run may work for another store than the sensor that looks at it."""
HOST_TAG, ALIVE_TAG = "rm_assets/host", "rm_assets/alive_at"
"""The tags of a run that say on which machine it works, and when it last did (Unix seconds), for those who do not see its file."""
SECONDS_BETWEEN_TAGS = 600.0
SECONDS_WITHOUT_TAG = 3600.0
"""A run whose file is not seen from here is dead if its tag is so old."""


@dataclass(frozen=True)
class Process:
    """A process, told from all others that have had its number: the machine since its last start, pid, and start (clock ticks)."""

    place: str
    pid: int
    started: str


@contextmanager
def beating(home: Path, run_id: str, instance: dg.DagsterInstance) -> Iterator[None]:
    """Keeps the heartbeat of a run below `home` while the block works, and interrupts the block if the run is cancelled.

    Dagster interrupts a cancelled run through the code location's server that started it; this is for a run without one.
    """
    file = home / "heartbeats" / f"{run_id}.json"
    try:
        write_json(file, asdict(Process(_place(), os.getpid(), _started(os.getpid()) or "")))
    except StoreError:  # which the first task will say as well
        yield
        return
    here = {HEARTBEAT_TAG: str(file), HOST_TAG: socket.gethostname()}
    instance.add_run_tags(run_id, here | {ALIVE_TAG: f"{time.time():.0f}"})
    for _, other in heartbeat_files(home):
        with suppress(FileNotFoundError):
            if time.time() - other.stat().st_mtime > SECONDS_KEPT:
                other.unlink()
    is_over = threading.Event()
    beater = threading.Thread(target=_beat, args=[file, run_id, instance, is_over], daemon=True)
    beater.start()
    try:
        yield
    finally:
        is_over.set()
        beater.join()
        # The file stays: Dagster writes how the run ended only after this.


def heartbeat_file(run: dg.DagsterRun) -> Path | None:
    """The file of a run, None if it has not begun to beat. A run that is started again has the tags of the one before."""
    file = Path(run.tags.get(HEARTBEAT_TAG, ""))
    return file if file.stem == run.run_id else None


def heartbeat_files(home: Path) -> list[tuple[str, Path]]:
    """The runs that have a file below `home`."""
    return [(file.stem, file) for file in sorted((home / "heartbeats").glob("*.json"))]


def missing_sign_of_life(file: Path, tags: Mapping[str, str], now: float) -> str | None:
    """Why the run with this heartbeat and these tags is dead, `now` in Unix seconds; None if it is not."""
    try:
        process, age = Process(**json.loads(file.read_text("utf-8"))), now - file.stat().st_mtime
    except OSError as error:
        if isinstance(error, FileNotFoundError) and tags.get(HOST_TAG) == socket.gethostname():
            return f"its heartbeat {file} is gone"
        age = now - float(tags.get(ALIVE_TAG, now))  # on another machine, or another user's
        return f"no sign of life for {age:.0f} s from {tags[HOST_TAG]}" if age > SECONDS_WITHOUT_TAG else None
    if process.place == _place() and process.started:
        is_there = _started(process.pid) == process.started
        return None if is_there else f"process {process.pid} is gone; its last heartbeat was {age:.0f} s ago"
    if age > SECONDS_WITHOUT_BEAT:
        return f"no heartbeat for {age:.0f} s of process {process.pid} on {process.place.split()[0]}"
    return None


def _beat(file: Path, run_id: str, instance: dg.DagsterInstance, is_over: threading.Event) -> None:
    was_cancelled, tagged = False, time.monotonic()
    while not is_over.wait(SECONDS_BETWEEN_BEATS):
        with suppress(OSError):
            os.utime(file)
        try:
            if time.monotonic() - tagged > SECONDS_BETWEEN_TAGS:
                instance.add_run_tags(run_id, {ALIVE_TAG: f"{time.time():.0f}"})
                tagged = time.monotonic()
            run = instance.get_run_by_id(run_id)
        # Broad, since any database may be behind it, and a look that fails is made up for by the next.
        except Exception:  # noqa: BLE001
            continue
        is_cancelled = run is not None and run.status in (dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED)
        if is_cancelled and was_cancelled:  # so Dagster's own interruption has not come
            os.kill(os.getpid(), signal.SIGINT)
        was_cancelled = is_cancelled


@cache
def _place() -> str:
    """This machine since it was started; of a container, the container. Its first word is the host's name."""
    words = [socket.gethostname()]
    with suppress(OSError):
        words += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(words)


def _started(pid: int) -> str | None:
    """When a process of this machine started, in clock ticks; None if it is gone, or the system is not Linux."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if after_name[0] == "Z" else after_name[19]
