"""Alerts: bodies as receivers take them, and which figures are unusual, by hand."""

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
    # Median 0.70, deviations 0.02, 0.01, 0, 0.01, 0.02, MAD 0.01: z = 67.45 (x - 0.7), 3.5 at 0.7 +- 0.0519.
    [(0.70, False), (0.751, False), (0.753, True), (0.649, False), (0.647, True)],
)
def test_a_rate_far_from_the_median_of_the_earlier_ones_is_unusual(value: float, is_unusual: bool) -> None:
    found = unusual({"match_rate": value}, rates(0.68, 0.69, 0.70, 0.71, 0.72))
    assert (list(found) == ["match_rate"]) == is_unusual


def test_the_sentence_says_by_how_much() -> None:
    assert unusual({"match_rate": 0.5}, rates(0.68, 0.69, 0.70, 0.71, 0.72)) == {
        "match_rate": "match_rate 0.5; the median of 5 before is 0.7 (robust z -13.5)"
    }


def test_four_earlier_values_are_too_few_to_tell() -> None:
    assert unusual({"match_rate": 0.1}, rates(0.7, 0.7, 0.7, 0.7)) == {}
    assert unusual({"match_rate": 0.1}, [*rates(0.7, 0.7, 0.7, 0.7), {}]) == {}


def test_after_equal_values_a_small_difference_is_usual() -> None:
    equal = rates(0.7, 0.7, 0.7, 0.7, 0.7)  # z = 134.9 (x - 0.7), 3.5 at 0.7 +- 0.0259
    assert unusual({"match_rate": 0.72}, equal) == {}
    assert list(unusual({"match_rate": 0.73}, equal)) == ["match_rate"]
