"""Whether a recipe that is out of date is made again now: by its setting, its ceiling, and how earlier tries ended."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rm_assets.core.recipe.automation import AutomationSection

SECONDS_BETWEEN_TRIES = (60.0, 300.0, 1800.0)
"""Waited after the first, second and third try of the same work that failed; after a fourth it is not asked for again."""
SECONDS_AFTER_DONE = 3600.0
"""Waited after a run that ended well; what is out of date then has been removed since, or was never where this looks for it."""
MAY_PASS = ("HUB_", "MODEL_001", "RELEASE_003", "SERVER_001", "SERVER_006", "STORE_001", "STORE_006", "TASK_")
"""Beginnings of the codes of errors that the same work may not meet again: a server, the Hub, a disk, a process that was killed."""


@dataclass(frozen=True)
class Try:
    """A finished run of this work. `code` is None where it ended without an error of ours, as when its process was killed."""

    status: Literal["failed", "cancelled", "done", "refused"]
    ended_at: float
    code: str | None = None

    @property
    def is_last_word(self) -> bool:
        """Whether it counts though the run had made a part of the work before it ended."""
        return self.status in ("cancelled", "refused")


@dataclass(frozen=True)
class Decision:
    """`launch`, `propose` (a person has to start it), or `wait`; and why."""

    action: Literal["launch", "propose", "wait"]
    why: str


def decide(section: AutomationSection, tries: Sequence[Try], *, operations: float | None, now: float) -> Decision:
    """What to do about work that is out of date; `tries` of it in the order in which they ended, `now` in Unix seconds.

    `operations` are those of the plan, None where it cannot tell; they matter only beside a ceiling.
    """
    if section.rebuild != "auto":
        return Decision("propose", f"automation.rebuild is {section.rebuild}")
    most = section.max_operations
    if most is not None and operations is None:
        return Decision("propose", f"what it takes cannot be told beforehand, and the ceiling is {most:.2g} operations")
    if most is not None and operations is not None and operations > most:
        return Decision("propose", f"{operations:.2g} operations are above the ceiling of {most:.2g}")
    return _after(tries, now) if tries else Decision("launch", "it has not been tried")


def _after(tries: Sequence[Try], now: float) -> Decision:
    last = tries[-1]
    if last.status == "cancelled":
        return Decision("wait", "the last run of it was cancelled")
    if last.status == "refused":
        return Decision("wait", "a check refused what the last run made")
    if last.status == "done":
        if now < last.ended_at + SECONDS_AFTER_DONE:
            return Decision("wait", "the last run of it ended well without making it")
        return Decision("launch", "what the last run of it made is not there any more")
    if last.code is not None and not last.code.startswith(MAY_PASS):
        return Decision("wait", f"the last run of it failed for a reason that does not pass by itself ({last.code})")
    num_failed = next((n for n, each in enumerate(reversed(tries)) if each.status == "done"), len(tries))
    if num_failed > len(SECONDS_BETWEEN_TRIES):
        return Decision("wait", f"it failed {num_failed} times")
    seconds = last.ended_at + SECONDS_BETWEEN_TRIES[num_failed - 1] - now
    if seconds > 0:
        return Decision("wait", f"try {num_failed} of it failed; the next is in {seconds:.0f} s")
    return Decision("launch", f"try {num_failed} of it failed for a reason that may have passed")
