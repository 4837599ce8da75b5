"""How many prompts, responses and pairs a recipe comes to: counted where a stage is committed, else the most it allows."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Literal

from rm_assets.core.planning.model_shape import ModelShape
from rm_assets.core.recipe import GeneratorSource, PromptSource, Recipe, SamplingSettings
from rm_assets.core.records import SPLITS

Basis = Literal["made", "at_most", "at_most_about", "unknown"]
SURER: tuple[Basis, ...] = ("made", "at_most", "at_most_about", "unknown")


@dataclass(frozen=True)
class Count:
    """A number and how well it is known: counted in the store, or the most the recipe allows.

    `at_most_about`: prompts fall on a side of a split by a hash, so a bound on a split's share is off by chance.
    """

    value: int | None
    basis: Basis

    def times(self, factor: float) -> "Count":
        """As many of something else for each."""
        return self if self.value is None else Count(round(self.value * factor), self.basis)

    def plus(self, other: "Count") -> "Count":
        """Both together, known as well as the less known of them."""
        basis = max(self.basis, other.basis, key=SURER.index)
        return UNKNOWN if self.value is None or other.value is None else Count(self.value + other.value, basis)

    def capped(self, most: int | None) -> "Count":
        """At most `most`."""
        if most is None or (self.value is not None and self.value <= most):
            return self
        return Count(most, "at_most")

    def at_most(self) -> "Count":
        """The same as a bound, for what may lose some of them."""
        return Count(self.value, "at_most") if self.basis == "made" else self

    def as_json(self) -> dict[str, int | str | None]:
        """Plain data."""
        return {"value": self.value, "basis": self.basis}

    def __str__(self) -> str:
        words = {"made": "", "at_most": "at most ", "at_most_about": "at most about ", "unknown": ""}
        return "unknown" if self.value is None else f"{words[self.basis]}{self.value:,}"


UNKNOWN = Count(None, "unknown")


@dataclass(frozen=True)
class Made:
    """What of a committed stage the plan reads."""

    counts: Mapping[str, int]
    facts: Mapping[str, Any] = field(default_factory=dict)
    work: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Known:
    """What is known besides the recipe: committed stages, rows of its files, shapes of its models.

    `recorded`: for each prompt of the rows of recorded responses, the number of its responses; first of the prompts that
    are not in the test prompts' file, then of those that are. `num_benchmark_responses` are those of all benchmarks of the
    evaluation, None where they are in no file. `small_batches` are the tasks whose device is one of `SMALL_BATCHES`.
    """

    made: Mapping[str, Made] = field(default_factory=dict)
    num_source_rows: int | None = None
    num_test_rows: int | None = None
    recorded: tuple[Sequence[int], Sequence[int]] | None = None
    shapes: Mapping[str, ModelShape] = field(default_factory=dict)
    num_benchmark_responses: int | None = None
    small_batches: Set[str] = frozenset()


def split_prompts(recipe: Recipe, known: Known) -> dict[str, Count]:
    """Prompts of each split."""
    if made := known.made.get("prompts"):
        return {split: Count(made.counts[f"{split}_prompts"], "made") for split in SPLITS}
    section = recipe.prompts
    source = _source_rows(section.source, known.num_source_rows).capped(section.max_prompts)
    test = UNKNOWN if section.test is None else _source_rows(section.test, known.num_test_rows)
    return _of_splits(recipe, source, test.capped(section.max_prompts))


def _of_splits(recipe: Recipe, source: Count, test: Count) -> dict[str, Count]:
    """What the prompts' source gives, by its shares; a source of test prompts gives all of the test split."""
    section = recipe.prompts
    of_split: dict[str, Count] = {split: share_of(source, float(getattr(section.split, split))) for split in SPLITS}
    return of_split if section.test is None else {**of_split, "test": test}


def _of_recorded(recipe: Recipe, known: Known, of_prompt: Callable[[int], int]) -> dict[str, Count]:
    """The most that recorded responses come to, given what K responses of one prompt come to."""
    if known.recorded is None:
        return dict.fromkeys(SPLITS, UNKNOWN)
    source, test = (
        Count(
            sum(of_prompt(number) for number in sorted(numbers, reverse=True)[: recipe.prompts.max_prompts]), "at_most"
        )
        for numbers in known.recorded
    )
    return _of_splits(recipe, source, test)


def _source_rows(source: PromptSource, num_rows: int | None) -> Count:
    if isinstance(source, GeneratorSource):
        return Count(source.num_prompts, "at_most")
    return UNKNOWN if num_rows is None else Count(num_rows, "at_most")


def share_of(total: Count, share: float) -> Count:
    """A share that a hash decides."""
    if share in (0.0, 1.0) or total.value is None:
        return Count(0, "made") if share == 0.0 else total
    return Count(round(total.value * share), "at_most_about")


def pairs_per_prompt(policy: str, num_responses: int) -> int:
    """The most pairs of one prompt: best_worst 1, all K (K - 1) / 2, adjacent K - 1; ties and margins take some away."""
    if policy == "all":
        return num_responses * (num_responses - 1) // 2
    return num_responses - 1 if policy == "adjacent" else min(1, num_responses - 1)


def responses_by_split(recipe: Recipe, known: Known) -> dict[str, Count]:
    """Responses of each split."""
    section = recipe.sampling
    if not isinstance(section, SamplingSettings):
        return _of_recorded(recipe, known, lambda number: number)
    others = section.num_test_responses or section.num_responses
    prompts = split_prompts(recipe, known)
    return {
        split: prompts[split].times(section.num_responses if split == "train" else others).at_most() for split in SPLITS
    }


def num_responses(recipe: Recipe, known: Known) -> Count:
    """Responses of all splits."""
    if made := known.made.get("sampled_responses"):
        return Count(made.counts["responses"], "made")
    return total(responses_by_split(recipe, known))


def pairs_by_split(recipe: Recipe, known: Known) -> dict[str, Count]:
    """Pairs of each split, before any is dropped for its length."""
    if made := known.made.get("implicit_pairs"):
        return {split: Count(made.counts[f"{split}_pairs"], "made") for split in SPLITS}
    return _candidates(recipe, known, recipe.pairs.policy)


def num_judgements(recipe: Recipe, known: Known) -> Count:
    """What a judge is asked: each two responses of a prompt, in both orders. It is not asked of equal texts."""
    return total(_candidates(recipe, known, "all")).times(2)


def _candidates(recipe: Recipe, known: Known, policy: str) -> dict[str, Count]:
    """The most pairs of each split."""
    section = recipe.sampling
    if not isinstance(section, SamplingSettings):
        return _of_recorded(recipe, known, lambda number: pairs_per_prompt(policy, number))
    prompts = split_prompts(recipe, known)
    others = section.num_test_responses or section.num_responses
    num_responses = {"train": section.num_responses, "validation": others, "test": others}
    return {split: prompts[split].times(pairs_per_prompt(policy, num_responses[split])).at_most() for split in SPLITS}


def total(of_split: Mapping[str, Count]) -> Count:
    """All splits together."""
    return of_split["train"].plus(of_split["validation"]).plus(of_split["test"])
