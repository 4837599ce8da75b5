"""Gold rewards and how they become pairs."""

from itertools import permutations
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from rm_assets.core.gold.judging import INSTRUCTIONS, REQUIRED_PLACES
from rm_assets.core.gold.verifier import VerifierRule
from rm_assets.core.recipe.prompts import RowSource
from rm_assets.core.recipe.sampling import Alignment
from rm_assets.core.recipe.section import Backend, Dtype, ModelRef, Section, ServedModel

Combine = Literal["mean", "worst_case", "weighted"]


class ClassifierGold(Section):
    """Gold rewards from a sequence classifier with one output."""

    kind: Literal["classifier"] = Field(description="A gold model.")
    model: ModelRef = Field(description="The gold model's checkpoint.")
    max_length: int = Field(
        2048,
        gt=1,
        description="Longest prompt and response together, in tokens; see `over_length` for longer ones.",
    )
    over_length: Literal["cut", "drop", "error"] = Field(
        "cut",
        description="What to do with longer responses: `cut` labels their beginning and counts them as truncated, `drop` leaves them without gold reward and counts them, `error` ends the run. Rewards that are there are not computed again when this changes.",
    )
    dtype: Dtype = Field("float32", description="Precision of the gold model's weights.")
    backend: Backend = Field(
        "torch",
        description="What computes the rewards: PyTorch, or JAX, which knows Llama and Qwen3 and is meant for TPUs (never run on one).",
    )


class VerifierGold(Section):
    """Gold rewards from rules: the weighted sum of five components, each in [0, 1], each reported."""

    kind: Literal["verifier"] = Field(description="Rules and a reference answer.")
    answer_pattern: str = Field(
        r"####\s*(-?[\d,\.]+)",
        description="Regular expression whose group 1 is the final answer; the last match counts.",
    )
    format_pattern: str = Field(
        r".*####\s*-?[\d,\.]+",
        description="Regular expression that the whole response must match to be in format ('.' matches line ends).",
    )
    numeric_tolerance: float = Field(
        0.0, ge=0, description="Answers this near to the reference count as equal (absolute)."
    )
    partial_tolerance: float = Field(
        1.0, gt=0, description="Distance at which the credit for a near answer has fallen to 0 (absolute)."
    )
    exact: float = Field(1.0, ge=0, description="Weight: the final answer equals the reference's.")
    partial: float = Field(0.0, ge=0, description="Weight: nearness of the final answer.")
    numerical: float = Field(0.0, ge=0, description="Weight: agreement of the numbers before the final answer (F1).")
    lines: float = Field(0.0, ge=0, description="Weight: agreement of the lines before the final answer (F1).")
    format: float = Field(0.0, ge=0, description="Weight: the response is in format.")

    @model_validator(mode="after")
    def _sound_rule(self) -> "VerifierGold":
        if self.exact + self.partial + self.numerical + self.lines + self.format <= 0:
            raise ValueError("at least one of the weights exact, partial, numerical, lines, format must be above 0")
        VerifierRule(**self.model_dump(exclude={"kind"}))  # the rule itself knows what is wrong with a pattern
        return self


class RecordedGold(Section):
    """Gold rewards or ranks that already exist."""

    kind: Literal["recorded"] = Field(description="Rewards or ranks that already exist.")
    source: RowSource | None = Field(
        None,
        description="Where the rewards lie; may be the file of the responses. When not given, in the rows of the prompts.",
    )
    align: Alignment = Field("prompt", description="How a row finds its prompt, as for recorded responses.")
    prompt_field: str = Field("prompt", description="Column with the prompt's id or text; unused with align `row`.")
    response_field: str | None = Field(
        None,
        description="Column with the response that the reward is of. Without it, rewards are taken in the order of the responses and their number must agree.",
    )
    reward_fields: list[str] = Field(
        default=["gold_reward"],
        min_length=1,
        description="Column with the reward (or rank) or a list of them, or several columns; a row that is a plain list has columns '0', '1', ...",
    )
    ranks: bool = Field(False, description="The numbers are ranks (1 is best): the gold reward is minus the rank.")

    @property
    def reads_prompt_rows(self) -> bool:
        """Whether there is no other source."""
        return self.source is None

    @model_validator(mode="after")
    def _one_reward_a_response(self) -> "RecordedGold":
        if self.response_field is not None and len(self.reward_fields) > 1:
            raise ValueError("'response_field' names one response a row, so 'reward_fields' must name one column")
        return self


class PreferenceGold(Section):
    """Which of the two responses in a row of the prompts is preferred.

    The preferred one gets the margin as gold reward and the other 0, both 0 in a tie. Such rewards compare within their row
    alone: a prompt in three rows gives three pairs, not fifteen.
    """

    kind: Literal["preferences"] = Field(description="Which of a row's two responses is preferred.")
    winner_field: str | None = Field(
        None, description="Column that says which one; when not given, the first of sampling.response_fields."
    )
    winners: tuple[str, str] = Field(
        ("0", "1"), description="What `winner_field` holds where the first, and where the second response is preferred."
    )
    ties: list[str] = Field(default=["tie"], description="What `winner_field` holds where neither is preferred.")
    margin_field: str | None = Field(
        None, description="Column that says by how much, at least 0 (0 is a tie); 1 when not given."
    )

    @property
    def reads_prompt_rows(self) -> bool:
        """Always."""
        return True

    @model_validator(mode="after")
    def _distinct_labels(self) -> "PreferenceGold":
        labels = [*self.winners, *self.ties]
        if len(set(labels)) < len(labels):
            raise ValueError("the labels of 'winners' and 'ties' must be distinct")
        return self


class HumanGold(Section):
    """Rankings that people make with `rm-assets rank`: the gold reward is minus the rank (1 is best), its mean over annotators.

    Tied responses share the mean of their ranks.
    """

    kind: Literal["human"] = Field(description="Rankings by people, as `rm-assets rank` takes them.")
    rankings: str = Field(
        description="File of the rankings, relative to the recipe file, ending in .jsonl; `rm-assets rank` begins it."
    )
    pending: Literal["wait", "drop"] = Field(
        "wait",
        description="While prompts are not ranked: `wait` for a person before anything is built on them, or `drop` them and build with those that are.",
    )

    @field_validator("rankings")
    @classmethod
    def _can_be_written(cls, rankings: str) -> str:
        if "://" in rankings or not rankings.endswith(".jsonl"):
            raise ValueError("rankings are kept on this machine; name a path that ends in .jsonl")
        return rankings


class JudgeGold(ServedModel):
    """A language model behind an OpenAI-compatible server compares each two responses of a prompt, in both orders.

    A response wins only if it wins in both; else it is a tie. Its gold reward is the share of the prompt's other responses
    that it beats, a tie counting half.
    """

    kind: Literal["judge"] = Field(description="A language model that compares two responses.")
    instructions: str = Field(
        INSTRUCTIONS,
        description="What the judge is asked, with the texts in the places {prompt}, {first} and {second}. {mark} becomes eight hex digits of a hash of the texts, which none of them can foresee, to mark where a text ends.",
    )
    verdicts: tuple[str, str, str] = Field(
        ("[[1]]", "[[2]]", "[[tie]]"),
        description="What an answer holds where the first response is better, the second, neither; the last one in it counts. When these change, no question is asked again.",
    )
    max_new_tokens: int = Field(
        64, gt=0, description="Longest answer, in tokens; an answer that is cut counts as unreadable."
    )

    @model_validator(mode="after")
    def _sound_instructions(self) -> "JudgeGold":
        if missing := [place for place in REQUIRED_PLACES if "{" + place + "}" not in self.instructions]:
            raise ValueError("'instructions' must hold " + ", ".join("{" + place + "}" for place in missing))
        if any(a in b for a, b in permutations(self.verdicts, 2)) or not all(self.verdicts):
            raise ValueError("none of 'verdicts' may be empty or part of another")
        return self


class GoldScorer(Section):
    """One of several scorers."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9_-]+$", description="Its name in `components`, counts and facts: letters, digits, _ and -."
    )
    gold: Annotated[ClassifierGold | VerifierGold | RecordedGold | JudgeGold, Field(discriminator="kind")] = Field(
        description="Where its rewards come from."
    )
    weight: float = Field(1.0, gt=0, description="Its weight with combine `weighted`, relative to the others'.")


class CombinedGold(Section):
    """One gold reward from several scorers, each of which is kept in `components`.

    Each scorer labels by itself: when one changes, the others' rewards stay. What one of them leaves without reward has none.
    """

    kind: Literal["combined"] = Field(description="Several scorers.")
    scorers: list[GoldScorer] = Field(min_length=2, description="The scorers.")
    combine: Combine = Field(
        "mean", description="The gold reward of a response: the mean of its scores, the lowest, or the weighted mean."
    )
    standardize: bool = Field(
        True,
        description="First bring each scorer's rewards to mean 0 and standard deviation 1 over all responses. Without it, scorers count by their scales, and the lowest score is that of the scorer with the lowest scale.",
    )

    @property
    def reads_prompt_rows(self) -> bool:
        """Whether one of the scorers does."""
        return any(scorer.gold.reads_prompt_rows for scorer in self.scorers)

    @model_validator(mode="after")
    def _distinct_scorers(self) -> "CombinedGold":
        names = [scorer.name for scorer in self.scorers]
        if len(set(names)) < len(names):
            raise ValueError("the names of 'scorers' must be distinct")
        if self.combine != "weighted" and any(scorer.weight != 1 for scorer in self.scorers):
            raise ValueError(f"'weight' means nothing with combine '{self.combine}'; set combine: weighted")
        if self.combine == "weighted" and not any("weight" in scorer.model_fields_set for scorer in self.scorers):
            raise ValueError("give 'scorers' a weight, or set combine: mean")
        return self


GoldSection = Annotated[
    ClassifierGold | VerifierGold | RecordedGold | PreferenceGold | HumanGold | JudgeGold | CombinedGold,
    Field(discriminator="kind"),
]


def scorers_of(gold: GoldSection) -> dict[str, GoldSection]:
    """The scorers of a combined gold by name; any other gold is its own only one, without a name."""
    return {scorer.name: scorer.gold for scorer in gold.scorers} if isinstance(gold, CombinedGold) else {"": gold}


class PairsSection(Section):
    """How gold rewards become chosen and rejected."""

    policy: Literal["best_worst", "all", "adjacent"] = Field(
        "all",
        description="Which two of a prompt's K responses make a pair: best against worst, every two, or neighbours in rank.",
    )
    min_margin: float = Field(
        0.0, ge=0, description="Least gold margin of a pair, in units of the gold reward. Ties are dropped in any case."
    )
    duplicates: Literal["drop", "keep"] = Field(
        "drop",
        description="What to do with a pair whose two texts an earlier pair of the prompt has: responses that were sampled twice.",
    )
