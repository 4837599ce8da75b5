"""What tests that start servers need: a port, and patience."""

import socket
import time
from collections.abc import Callable
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
