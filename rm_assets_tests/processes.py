"""What tests that start processes need: a port, patience, and whether one is alive."""

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def free_port() -> int:
    """A port of this machine's loopback that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_for(holds: Callable[[], Any], seconds: float, what: str = "") -> Any:
    """What `holds` gives as soon as that is true. Raises: AssertionError after `seconds`."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, f"{what or holds} did not come in {seconds} s"
        time.sleep(0.1)
    return found


def is_alive(pid: int) -> bool:
    """Whether a process of this machine has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
