"""Rankings by people: what a person types, what is kept of it, and the gold rewards that follow.

A ranking is one of texts: responses of one prompt with the same text are one answer, shown and ranked once.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, count, islice, product
from typing import Literal

from rm_assets.core.digests import digest

Ranking = tuple[tuple[str, ...], ...]
"""Names from best to worst; those of one group are tied."""
Action = Literal["rank", "skip", "undo"]
State = Literal["ranked", "skipped", "pending", "one_text"]
LETTERS = "abcdefghijklmnoprtvwxyz"
"""Without q, s and u, which are commands."""


def text_id(of_prompt: str, response: str) -> str:
    """16 hex digits; equal for equal texts, so that a ranking holds in whatever order responses come."""
    return digest([of_prompt, response])[:16]


def labels(num: int) -> list[str]:
    """Names for `num` answers on the screen: a, b, c, ..., then aa, ab, ..."""
    words = ("".join(word) for length in count(1) for word in product(LETTERS, repeat=length))
    return list(islice(words, num))


def parse_ranking(typed: str, known: Sequence[str]) -> Ranking:
    """The ranking in `b > a = c`, which names every label once. `=` alone ties all; of two answers, the better is enough.

    Raises: ValueError with the sentence that the person gets.
    """
    if typed.strip() == "=":
        return (tuple(known),)
    groups = [[name.strip() for name in group.split("=")] for group in typed.lower().split(">")]
    named = list(chain(*groups))
    if len(known) == 2 and len(named) == 1 and named[0] in known:
        groups.append([name for name in known if name != named[0]])
        named += groups[-1]
    if "" in named:
        raise ValueError("an answer is missing beside '>' or '='")
    if unknown := [name for name in named if name not in known]:
        raise ValueError(f"there is no answer '{unknown[0]:.40}'; write for example {' > '.join(known)}")
    if twice := [name for name in known if named.count(name) > 1]:
        raise ValueError(f"{twice[0]} is named twice")
    if missing := [name for name in known if name not in named]:
        raise ValueError(f"not ranked: {', '.join(missing)}; name every answer, tied ones as {' = '.join(known[:2])}")
    return tuple(tuple(group) for group in groups)


def format_ranking(ranking: Ranking) -> str:
    """The ranking as a person types it."""
    return " > ".join(" = ".join(group) for group in ranking)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of a file of rankings: what a person did with one prompt, and when. `ranking` holds text ids; empty but for rank."""

    prompt_id: str
    action: Action
    ranking: Ranking = ()
    annotator: str | None = None
    at: str


def standing(entries: Iterable[Entry]) -> dict[tuple[str, str | None], Entry]:
    """What stands of each prompt and annotator, oldest first: the last entry counts, and an undo leaves none."""
    found: dict[tuple[str, str | None], Entry] = {}
    for entry in entries:
        key = entry.prompt_id, entry.annotator
        found.pop(key, None)
        if entry.action != "undo":
            found[key] = entry
    return found


def standing_by_prompt(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """What stands of each prompt, of whichever annotators."""
    found: dict[str, list[Entry]] = {}
    for (prompt_id, _), entry in standing(entries).items():
        found.setdefault(prompt_id, []).append(entry)
    return found


def ranking_of(ranking: Ranking, texts: Collection[str]) -> Ranking | None:
    """The ranking of these texts alone; None if it does not rank all of them, as they came later."""
    if not set(texts) <= set(chain(*ranking)):
        return None
    groups = (tuple(name for name in group if name in texts) for group in ranking)
    return tuple(group for group in groups if group)


def places(ranking: Ranking) -> dict[str, float]:
    """The place of each name: 1 is best, tied ones share the mean of their places."""
    found: dict[str, float] = {}
    for group in ranking:
        place = len(found) + (len(group) + 1) / 2
        found |= dict.fromkeys(group, place)
    return found


@dataclass(frozen=True)
class Verdict:
    """What people said of one prompt. `rankings` are the places that each gave; `num_stale` rankings lack a text."""

    state: State
    rankings: list[dict[str, float]]
    num_stale: int

    def gold_rewards(self) -> dict[str, float]:
        """Minus the mean place of each text over the annotators."""
        return {text: -sum(of[text] for of in self.rankings) / len(self.rankings) for text in self.rankings[0]}


def verdict(entries: Collection[Entry], texts: Collection[str]) -> Verdict:
    """Of the entries that stand for one prompt, and its distinct texts.

    One ranking by anyone is enough; a prompt that was only skipped is left to nobody. One text needs no person.
    """
    if len(texts) == 1:
        return Verdict("one_text", [dict.fromkeys(texts, 1.0)], 0)
    found = [ranking_of(entry.ranking, texts) for entry in entries if entry.action == "rank"]
    sound = [places(ranking) for ranking in found if ranking is not None]
    is_skipped = any(entry.action == "skip" for entry in entries) and not found
    return Verdict("ranked" if sound else "skipped" if is_skipped else "pending", sound, len(found) - len(sound))


class Agreement:
    """How often annotators order two texts the same: of all pairs of texts that two annotators both order, ties left out."""

    def __init__(self) -> None:
        self._num_pairs = self._num_same = 0

    def add(self, rankings: Sequence[Mapping[str, float]]) -> None:
        """The places that the annotators of one prompt gave."""
        for one, other in combinations(rankings, 2):
            for first, second in combinations(one, 2):
                agree = (one[first] - one[second]) * (other[first] - other[second])
                self._num_pairs += agree != 0
                self._num_same += agree > 0

    def facts(self) -> dict[str, float]:
        """The share and the number of pairs it is of; nothing where there are none."""
        if not self._num_pairs:
            return {}
        share = round(self._num_same / self._num_pairs, 4)
        return {"annotator_agreement": share, "annotator_agreement_n": self._num_pairs}
