"""The rule-based gold scorer, against answers worked out by hand."""

import time

import pytest

from rm_assets.core.gold.verifier import Verdict, VerifierRule, verify

REFERENCE = "pens: 3\ncups: 2\nhats: 4\n#### 9"
RULE = VerifierRule(
    format_pattern=r"(?:[a-z]+: \d+\n)+#### \d+",
    numeric_tolerance=0.0,
    partial_tolerance=4.0,
    exact=16.0,
    partial=8.0,
    numerical=4.0,
    lines=2.0,
    format=1.0,
)


def test_the_reference_itself_gets_every_component() -> None:
    assert verify(REFERENCE, REFERENCE, RULE) == Verdict(
        exact=1.0, partial=1.0, numerical=1.0, lines=1.0, format=1.0, reward=31.0
    )


def test_a_wrong_total_loses_exact_and_a_share_of_partial_only() -> None:
    verdict = verify("pens: 3\ncups: 2\nhats: 4\n#### 10", REFERENCE, RULE)
    assert verdict == Verdict(exact=0.0, partial=0.75, numerical=1.0, lines=1.0, format=1.0, reward=13.0)


def test_partial_credit_is_gone_at_the_tolerance_and_beyond() -> None:
    assert verify("#### 13", REFERENCE, RULE).partial == 0.0
    assert verify("#### 5000", REFERENCE, RULE).partial == 0.0
    assert verify("#### 10", REFERENCE, VerifierRule(partial_tolerance=0.0)).partial == 0.0


def test_a_wrong_item_loses_lines_but_no_numbers() -> None:
    verdict = verify("pens: 3\ncups: 2\nkeys: 4\n#### 9", REFERENCE, RULE)
    assert verdict.numerical == 1.0
    assert verdict.lines == pytest.approx(2 / 3)  # 2 of 3 found, 2 of 3 wanted


def test_a_wrong_number_loses_lines_and_numbers() -> None:
    verdict = verify("pens: 3\ncups: 2\nhats: 5\n#### 9", REFERENCE, RULE)
    assert verdict.numerical == pytest.approx(2 / 3)
    assert verdict.lines == pytest.approx(2 / 3)


def test_a_missing_line_costs_recall_and_an_extra_line_precision() -> None:
    assert verify("pens: 3\ncups: 2\n#### 9", REFERENCE, RULE).lines == pytest.approx(4 / 5)
    assert verify("pens: 3\ncups: 2\nhats: 4\nmaps: 1\n#### 9", REFERENCE, RULE).lines == pytest.approx(6 / 7)


def test_repeating_a_right_line_is_not_free() -> None:
    verdict = verify("pens: 3\npens: 3\npens: 3\n#### 9", REFERENCE, RULE)
    assert verdict.lines == pytest.approx(1 / 3)
    assert verdict.numerical == pytest.approx(1 / 3)


def test_the_order_of_lines_does_not_matter() -> None:
    assert verify("hats: 4\npens: 3\ncups: 2\n#### 9", REFERENCE, RULE).reward == 31.0


def test_broken_format_loses_format_even_with_a_right_answer() -> None:
    verdict = verify("Here is the list:\npens: 3\ncups: 2\nhats: 4\n#### 9", REFERENCE, RULE)
    assert verdict.format == 0.0
    assert verdict.exact == 1.0
    assert verdict.lines == pytest.approx(6 / 7)


def test_white_space_around_a_response_is_ignored() -> None:
    assert verify(f"\n  {REFERENCE} \n", REFERENCE, RULE).reward == 31.0


def test_text_after_the_answer_breaks_the_format_only() -> None:
    verdict = verify(f"{REFERENCE}\nThanks", REFERENCE, RULE)
    assert verdict == Verdict(exact=1.0, partial=1.0, numerical=1.0, lines=1.0, format=0.0, reward=30.0)


def test_an_empty_response_gets_nothing() -> None:
    for response in ("", " \n\t"):
        assert verify(response, "#### 9", RULE) == Verdict(
            exact=0.0, partial=0.0, numerical=0.0, lines=0.0, format=0.0, reward=0.0
        )


def test_without_a_final_answer_the_whole_response_is_body() -> None:
    verdict = verify("pens: 3\ncups: 2\nhats: 4", REFERENCE, RULE)
    assert verdict == Verdict(exact=0.0, partial=0.0, numerical=1.0, lines=1.0, format=0.0, reward=6.0)


def test_an_answer_of_punctuation_is_no_answer() -> None:
    assert verify("#### .,.", REFERENCE, RULE).exact == 0.0


def test_bodies_without_numbers_agree_only_if_the_response_answers() -> None:
    assert verify("#### 7", "#### 9", RULE).numerical == 1.0
    assert verify("no idea", "#### 9", RULE).numerical == 0.0
    assert verify("no idea", "#### 9", RULE).lines == 0.0


def test_the_last_answer_wins() -> None:
    assert verify("#### 4\nNo, wait.\n#### 9", REFERENCE, RULE).exact == 1.0
    assert verify("#### 9\nNo, wait.\n#### 4", REFERENCE, RULE).exact == 0.0


def test_gsm8k_answers_are_equal_whatever_their_commas_and_full_stops() -> None:
    reference = "He earns 20*70=<<20*70=1400>>1,400 dollars.\n#### 1,400"
    rule = VerifierRule(exact=1.0, numerical=1.0)
    for answer in ("1400", "1,400", "1400.", "1,400.00"):
        assert verify(f"He earns 20*70=<<20*70=1400>>1400 dollars.\n#### {answer}", reference, rule).reward == 2.0


def test_negative_numbers_differ_from_positive_ones() -> None:
    assert verify("#### -9", "#### 9", RULE).exact == 0.0
    assert verify("#### -9", "#### -9.0", RULE).exact == 1.0


def test_a_minus_between_terms_is_no_sign() -> None:
    assert verify("5-3 is 2\n#### 2", "5 - 3 is 2\n#### 2", RULE).numerical == 1.0
    assert verify("it is -3\n#### 2", "it is 3\n#### 2", RULE).numerical == 0.0


def test_numbers_within_the_numeric_tolerance_are_exact() -> None:
    rule = VerifierRule(numeric_tolerance=0.5)
    verdict = verify("#### 9.5", "#### 9", rule)
    assert (verdict.exact, verdict.partial) == (1.0, 1.0)
    assert verify("#### 9.51", "#### 9", rule).exact == 0.0


def test_answers_that_are_not_numbers_are_compared_as_text() -> None:
    rule = VerifierRule(answer_pattern=r"Answer: (.+)", format_pattern=r".*", partial_tolerance=5.0)
    assert verify("Answer: New York.", "Answer: New York", rule).exact == 1.0
    boston = verify("Answer: Boston", "Answer: New York", rule)
    assert (boston.exact, boston.partial) == (0.0, 0.0)
    assert verify("Answer: nan", "Answer: nan", rule).exact == 1.0
    assert verify("Answer: inf", "Answer: 3", rule).partial == 0.0


def test_a_number_too_long_for_a_float_is_compared_as_text() -> None:
    huge = "9" * 5000
    assert verify(f"{huge}\n#### {huge}", f"{huge}\n#### {huge}", RULE).reward == 30.0
    assert verify(f"#### {huge}", REFERENCE, RULE).partial == 0.0
    assert verify(f"#### 1{'0' * 308}", f"#### -1{'0' * 308}", RULE).partial == 0.0


def test_odd_text_never_raises() -> None:
    for response in ("####", "#### 1.2.3", "#### ٣", "\x00\ud800", "#### -", "1,2,,3 #### ,", "<|eos|>" * 100, "--5"):
        assert 0.0 <= verify(response, REFERENCE, RULE).reward <= 31.0


def test_long_hostile_responses_are_scored_in_linear_time() -> None:
    started = time.process_time()
    for response in ("#" * 200_000, "#### " * 40_000, "#### " + " " * 200_000, "1,000" * 40_000, "a: 1\n" * 40_000):
        verify(response, REFERENCE, RULE)
        verify(response, REFERENCE, VerifierRule())
    assert time.process_time() - started < 5.0  # about 0.5 s; a quadratic pattern takes minutes


def test_a_reference_without_an_answer_is_refused_with_the_fix() -> None:
    with pytest.raises(ValueError, match=r"no final answer.*change answer_pattern"):
        verify("#### 9", "nine", RULE)


def test_rules_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="no regular expression"):
        VerifierRule(format_pattern="(")
    with pytest.raises(ValueError, match="has no group"):
        VerifierRule(answer_pattern=r"####")
    with pytest.raises(ValueError, match="partial_tolerance is -1"):
        VerifierRule(partial_tolerance=-1)
    with pytest.raises(ValueError, match="exact is nan"):
        VerifierRule(exact=float("nan"))
