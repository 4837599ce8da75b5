"""What this machine has, found without PyTorch, whose import takes seconds."""

import os
import platform
import sys
from pathlib import Path


def has_gpu() -> bool:
    """Whether PyTorch is likely to find a GPU."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    return any(Path("/dev").glob("nvidia[0-9]*")) and os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1")


def available_memory() -> int | None:
    """Bytes that may still be taken without swapping, within the container's limit; None where the system does not say."""
    return min((known for known in (_free_and_caches(), _cgroup_room()) if known is not None), default=None)


def _free_and_caches() -> int | None:
    """What Linux could give: free pages and caches it can drop."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _cgroup_room() -> int | None:
    """What the container's limit leaves; caches of files are counted as used there, and dropped when there is need."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit, used, stat = (
            (folder / name).read_text("ascii").strip() for name in ("memory.max", "memory.current", "memory.stat")
        )
    except OSError:
        return None
    known = dict(line.split() for line in stat.splitlines())
    caches = sum(int(known.get(name, 0)) for name in ("active_file", "inactive_file"))
    return None if limit == "max" else int(limit) - int(used) + caches
