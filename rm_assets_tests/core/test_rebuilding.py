"""Whether work that is out of date is launched, proposed or waited for."""

import pytest

from rm_assets.core.rebuilding import Decision, Try, decide
from rm_assets.core.recipe.automation import AutomationSection

AUTO = AutomationSection(rebuild="auto")


def test_only_auto_launches() -> None:
    assert decide(AUTO, [], operations=None, now=0) == Decision("launch", "it has not been tried")
    for rebuild in ("notify", "off"):
        section = AutomationSection(rebuild=rebuild)  # type: ignore[arg-type]
        assert decide(section, [], operations=1, now=0).action == "propose"


@pytest.mark.parametrize(("operations", "action"), [(10.0, "launch"), (10.1, "propose"), (None, "propose")])
def test_a_ceiling_holds_what_is_above_it_and_what_cannot_be_told(operations: float | None, action: str) -> None:
    section = AutomationSection(rebuild="auto", max_operations=10)
    assert decide(section, [], operations=operations, now=0).action == action


@pytest.mark.parametrize(
    ("num_tries", "seconds", "action"),
    [(1, 59, "wait"), (1, 60, "launch"), (2, 299, "wait"), (2, 300, "launch"), (3, 1799, "wait"), (3, 1800, "launch"), (4, 1e9, "wait")],
)  # fmt: skip
def test_a_cause_that_may_pass_is_tried_again_after_a_while(num_tries: int, seconds: float, action: str) -> None:
    tries = [Try("failed", 100.0 * n, "TASK_001") for n in range(1, num_tries + 1)]
    assert decide(AUTO, tries, operations=None, now=100.0 * num_tries + seconds).action == action


@pytest.mark.parametrize("code", ["SERVER_001", "SERVER_006", "HUB_001", "STORE_001", "TASK_002", "MODEL_001", None])
def test_causes_that_may_pass(code: str | None) -> None:
    assert decide(AUTO, [Try("failed", 0, code)], operations=None, now=1e6).action == "launch"


def test_what_was_made_once_and_is_gone_is_made_again() -> None:
    """Removed by hand, as STORE_003 asks, or by retention: the same work has the same name, and its old run ended well."""
    made = [Try("failed", n, "TASK_001") for n in range(4)] + [Try("done", 100)]
    assert decide(AUTO, made, operations=None, now=100 + 3599).action == "wait"
    assert decide(AUTO, made, operations=None, now=100 + 3600).action == "launch"
    again = [*made, Try("failed", 5000, "TASK_001")]  # the first failure since
    assert decide(AUTO, again, operations=None, now=5060) == Decision(
        "launch", "try 1 of it failed for a reason that may have passed"
    )


@pytest.mark.parametrize("last", [
    Try("failed", 0, "DATA_003"), Try("failed", 0, "MODEL_002"), Try("failed", 0, "SERVER_002"), Try("failed", 0, "STORE_003"),
    Try("failed", 0, "RELEASE_004"), Try("cancelled", 0), Try("refused", 0),
])  # fmt: skip
def test_ends_after_which_the_same_work_is_left(last: Try) -> None:
    assert decide(AUTO, [Try("failed", -1, None), last], operations=None, now=1e9).action == "wait"
