"""What `rm-assets health` finds: one condition for each thing that it looks at."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from rm_assets.core.errors import RmAssetsError

Status = Literal["ok", "warning", "error"]
WORSE: tuple[Status, ...] = ("ok", "warning", "error")


@dataclass(frozen=True)
class Condition:
    """One thing, how it is, and where it is not as it should be the code, why and fix of the error that it leads to."""

    name: str
    status: Status
    what: str
    code: str = ""
    why: str = ""
    fix: str = ""


def sound(name: str, what: str) -> Condition:
    """It is as it should be."""
    return Condition(name, "ok", what)


def faulty(name: str, error: RmAssetsError, status: Status = "error") -> Condition:
    """It is not: an error stops the work, a warning may."""
    return Condition(name, status, error.what, error.code, error.why, error.fix)


def worst(conditions: Iterable[Condition]) -> Status:
    """The worst status of all."""
    return max((condition.status for condition in conditions), key=WORSE.index, default="ok")
