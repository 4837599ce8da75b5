"""Alerts: bodies as receivers take them, and which figures are unusual, by hand."""

from random import Random

import pytest

from rm_assets.core.alerts import Alert, as_json, as_slack, unusual

ALERT = Alert(
    key="run:1", kind="run_failed", title="toy: <failed>", text="a & b", path="/runs/1", recipe="toy", code="DATA_001"
)


def test_the_body_has_key_link_and_what_it_is_about() -> None:
    assert as_json(ALERT, "http://dagster.example/") == {
        "key": "run:1", "kind": "run_failed", "title": "toy: <failed>", "text": "a & b",
        "url": "http://dagster.example/runs/1", "recipe": "toy", "asset": None, "code": "DATA_001",
    }  # fmt: skip


def test_slack_gets_one_text_in_which_nothing_is_taken_for_a_link() -> None:
    body = as_slack(ALERT, "http://dagster.example")
    assert body == {"text": "*toy: &lt;failed&gt;*\na &amp; b\n<http://dagster.example/runs/1|open>"}


def test_a_long_text_is_cut() -> None:
    long = Alert(key="k", kind="released", title="t", text="x" * 5000, path="/")
    assert as_json(long, "")["text"] == "x" * 1997 + "..."


def rates(*values: float) -> list[dict[str, float]]:
    return [{"match_rate": value} for value in values]


@pytest.mark.parametrize(
    ("value", "is_unusual"),
    # Mean 0.70, sd sqrt(0.001 / 4) = 0.01581, t of 4 degrees of freedom at 0.995 4.604, sqrt(6 / 5) 1.0954: 0.7 +- 0.0797.
    [(0.70, False), (0.779, False), (0.781, True), (0.621, False), (0.619, True)],
)
def test_a_rate_far_from_the_earlier_ones_is_unusual(value: float, is_unusual: bool) -> None:
    found = unusual({"match_rate": value}, rates(0.68, 0.69, 0.70, 0.71, 0.72))
    assert (list(found) == ["match_rate"]) == is_unusual


def test_the_sentence_says_by_how_much() -> None:
    assert unusual({"match_rate": 0.5}, rates(0.68, 0.69, 0.70, 0.71, 0.72)) == {
        "match_rate": "match_rate 0.5; the mean of 5 before is 0.7, usual would be 0.6203 to 0.7797"
    }


@pytest.mark.parametrize("num_earlier", [5, 10, 30])
def test_one_report_in_a_hundred_is_called_unusual_where_nothing_has_changed(num_earlier: int) -> None:
    random = Random(7)
    num_reports, names = 4000, ("match_rate", "tie_rate", "expected_calibration_error", "spearman")

    def report() -> dict[str, float]:
        return {name: random.gauss(0.7, 0.02) for name in names}

    found = sum(bool(unusual(report(), [report() for _ in range(num_earlier)])) for _ in range(num_reports))
    assert 0.006 < found / num_reports < 0.014  # 0.01, whose standard error is 0.0016


def test_four_earlier_values_are_too_few_to_tell() -> None:
    assert unusual({"match_rate": 0.1}, rates(0.7, 0.7, 0.7, 0.7)) == {}
    assert unusual({"match_rate": 0.1}, [*rates(0.7, 0.7, 0.7, 0.7), {}]) == {}


def test_after_equal_values_a_small_difference_is_usual() -> None:
    equal = rates(0.7, 0.7, 0.7, 0.7, 0.7)  # 4.604 x 0.005 x 1.0954: 0.7 +- 0.0252
    assert unusual({"match_rate": 0.72}, equal) == {}
    assert list(unusual({"match_rate": 0.73}, equal)) == ["match_rate"]
