r"""A rule-based gold scorer: compares a response with a reference that ends in a final answer.

Works on GSM8K ("... 6 * 7 = 42\n#### 42") and on the miniature task of `rm_assets.embedded`. Five components,
each in [0, 1], are reported beside their weighted sum, the gold reward. Standard library only.

    rule = VerifierRule(format_pattern=r"(?:[a-z]+: \d+\n)+#### \d+")
    verify("pens: 3\n#### 4", "pens: 3\n#### 3", rule).reward

Any text is a valid response. An empty one gets 0 everywhere. One without a final answer gets 0 for `exact` and
`partial`, and all of it counts as body. A number that is not finite as a float is compared as text.
"""

import math
import re
from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

# A sign counts only where it cannot be a minus between two terms; a comma only between groups of thousands.
_NUMBER = re.compile(r"(?:(?<![\w)])-)?\d+(?:,\d{3}(?!\d))*(?:\.\d+)?")
_COMPONENTS = ("exact", "partial", "numerical", "lines", "format")


@dataclass(frozen=True, kw_only=True)
class VerifierRule:
    r"""What counts as the final answer, as close and as well formed, and how much each component weighs.

    Raises: ValueError for a pattern that does not compile or has no group, a negative tolerance, a weight
    that is not finite. A pattern that backtracks without bound is the rule's own risk; the defaults are linear.
    """

    answer_pattern: str = r"####\s*(-?[\d,\.]+)"
    """Regular expression whose group 1 is the final answer; the last match wins."""
    format_pattern: str = r".*####\s*-?[\d,\.]+"
    """Regular expression that a whole stripped response must match, `.` matching line breaks too."""
    numeric_tolerance: float = 0.0
    """Absolute distance within which two numbers are the same answer."""
    partial_tolerance: float = 1.0
    """Absolute distance at which the credit for a near answer has fallen to 0."""
    exact: float = 1.0
    """Weight of the final answer being equal to the reference's."""
    partial: float = 0.0
    """Weight of the final answer being near the reference's."""
    numerical: float = 0.0
    """Weight of the numbers before the final answer."""
    lines: float = 0.0
    """Weight of the lines before the final answer."""
    format: float = 0.0
    """Weight of the response being well formed."""

    def __post_init__(self) -> None:
        for name in ("answer_pattern", "format_pattern"):
            try:
                pattern = re.compile(getattr(self, name))
            except re.error as error:
                raise ValueError(
                    f"{name} {getattr(self, name)!r} is no regular expression ({error}); correct it"
                ) from error
            if name == "answer_pattern" and pattern.groups < 1:
                raise ValueError(f"answer_pattern {self.answer_pattern!r} has no group; put the answer in parentheses")
        for name in ("numeric_tolerance", "partial_tolerance", *_COMPONENTS):
            value = getattr(self, name)
            if not math.isfinite(value) or (name.endswith("tolerance") and value < 0):
                raise ValueError(f"{name} is {value}; use a finite number, and for a tolerance 0 or more")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The components of a gold reward, each in [0, 1], and the gold reward itself."""

    exact: float
    """1 if the final answer equals the reference's, as text or as a number, else 0."""
    partial: float
    """Closeness of the final answer: 1 when equal, falling linearly to 0 at the rule's `partial_tolerance`."""
    numerical: float
    """F1 of the numbers before the final answer against the reference's, repeated ones counted."""
    lines: float
    """F1 of the non-empty lines before the final answer against the reference's, repeated ones counted."""
    format: float
    """1 if the whole response matches the rule's `format_pattern`, else 0."""
    reward: float
    """The sum of the components times the rule's weights."""


def verify(response: str, reference: str, rule: VerifierRule) -> Verdict:
    """Score a response against a reference.

    Raises: ValueError if the reference has no final answer.
    """
    wanted_body, wanted = _split_answer(reference, rule.answer_pattern)
    if wanted is None:
        raise ValueError(
            f"reference {reference[:80]!r} has no final answer that matches {rule.answer_pattern!r}; "
            "add one to the reference or change answer_pattern"
        )
    if not response.strip():
        return _weigh(dict.fromkeys(_COMPONENTS, 0.0), rule)
    body, answer = _split_answer(response, rule.answer_pattern)
    exact, partial = _compare_answers(answer, wanted, rule)
    # Two bodies without numbers or lines agree, unless the response does not answer at all.
    both_empty = 0.0 if answer is None else 1.0
    components = {
        "exact": exact,
        "partial": partial,
        "numerical": _multiset_f1(_numbers(body), _numbers(wanted_body), both_empty),
        "lines": _multiset_f1(_lines(body), _lines(wanted_body), both_empty),
        "format": float(re.fullmatch(rule.format_pattern, response.strip(), re.DOTALL) is not None),
    }
    return _weigh(components, rule)


def _weigh(components: dict[str, float], rule: VerifierRule) -> Verdict:
    # Rounded: rewards that are equal as fractions are equal as numbers, so that a tie is seen as one.
    reward = round(math.fsum(getattr(rule, name) * value for name, value in components.items()), 9)
    return Verdict(**components, reward=reward)


def _split_answer(text: str, answer_pattern: str) -> tuple[str, str | None]:
    """The text before the last final answer, and that answer; all of the text and None if there is none."""
    last: re.Match[str] | None = None
    for match in re.finditer(answer_pattern, text):
        if _normalise(match.group(1) or ""):
            last = match
    return (text, None) if last is None else (text[: last.start()], _normalise(last.group(1)))


def _normalise(answer: str) -> str:
    """The answer without commas, white space and a full stop at its end."""
    return re.sub(r"[,\s]", "", answer).rstrip(".")


def _compare_answers(answer: str | None, wanted: str, rule: VerifierRule) -> tuple[float, float]:
    """The components `exact` and `partial`."""
    if answer is None:
        return 0.0, 0.0
    if answer == wanted:
        return 1.0, 1.0
    number, wanted_number = _finite_number(answer), _finite_number(wanted)
    if number is None or wanted_number is None:
        return 0.0, 0.0
    distance = abs(number - wanted_number)
    if distance <= rule.numeric_tolerance:
        return 1.0, 1.0
    return 0.0, max(0.0, 1 - distance / rule.partial_tolerance) if rule.partial_tolerance else 0.0


def _finite_number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _numbers(text: str) -> list[Hashable]:
    written = [match.group().replace(",", "") for match in _NUMBER.finditer(text)]
    numbers = [(_finite_number(text), text) for text in written]
    return [text if number is None else number for number, text in numbers]


def _lines(text: str) -> list[Hashable]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _multiset_f1(found: Iterable[Hashable], wanted: Iterable[Hashable], both_empty: float) -> float:
    found_counts, wanted_counts = Counter(found), Counter(wanted)
    size = found_counts.total() + wanted_counts.total()
    return 2 * (found_counts & wanted_counts).total() / size if size else both_empty
