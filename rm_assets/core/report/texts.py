"""Figures and foreign texts as people read them."""

import re
from collections.abc import Mapping
from typing import Any

_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def decimal(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}" if abs(value) >= 1000 or 0 < abs(value) < 0.01 else f"{value:.2f}"


def count_text(value: int) -> str:
    return f"{value:,}"


def points(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:+.1f}".replace("-", "−")


def interval_text(rate: Mapping[str, Any]) -> str:
    return "–" if not rate["n"] else f"{100 * rate['low']:.1f} to {100 * rate['high']:.1f} %"


def printable(text: str) -> str:
    """The text with a replacement mark for control characters and lone surrogates, which no file could hold."""
    return _UNPRINTABLE.sub("\ufffd", text.replace("\r\n", "\n"))
