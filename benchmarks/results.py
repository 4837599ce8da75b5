"""The files of figures: one JSON line for each comparison, written whole or not at all."""

import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
CPU_FILE = FOLDER / "results.jsonl"
PACKAGES = ("torch", "transformers", "trl", "accelerate")


def file_of(device: str) -> Path:
    """Where a device's figures are: `cpu`, or the name of a GPU."""
    if device == "cpu":
        return CPU_FILE
    return FOLDER / f"results-{'-'.join(device.lower().split())}.jsonl"


def read(file: Path) -> list[dict[str, Any]]:
    """The lines of a file; none if it is not there."""
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def add(file: Path, line: dict[str, Any], order: Sequence[str]) -> None:
    """Puts a line in place of the one that compared the same before; names come in `order`, model by model."""
    key = (line["model"], line["name"])
    others = [other for other in read(file) if (other["model"], other["name"]) != key]
    _write(file, sorted([*others, line], key=lambda each: (each["model"], order.index(each["name"]))))


def _write(file: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Replaces the file in one go; figures keep four digits."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_text("".join(json.dumps(rounded(line)) + "\n" for line in lines), "utf-8")
    temporary.rename(file)


def rounded(line: dict[str, Any]) -> dict[str, Any]:
    """Floats with four significant digits."""
    return {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in line.items()}


def circumstances() -> dict[str, Any]:
    """Machine, versions and day, which every line carries."""
    return {
        "machine": f"{_processor()}, {os.cpu_count()} cores",
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "date": datetime.now(UTC).date().isoformat(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
