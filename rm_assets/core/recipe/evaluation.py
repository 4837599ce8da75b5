"""How the reward model is judged: test pairs, benchmarks, and how it fares with fewer training pairs."""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from rm_assets.core.recipe.prompts import RowSource
from rm_assets.core.recipe.section import Backend, Section


class RewardBench(Section):
    """A benchmark with known right answers, beside the recipe's own test prompts."""

    kind: Literal["reward_bench", "reward_bench_2"] = Field(
        description="`reward_bench` has columns prompt, chosen, rejected, subset; `reward_bench_2` has id, prompt, chosen and rejected (lists), subset. Prompts and answers are texts or messages."
    )
    source: RowSource = Field(description="Its rows: files, or the dataset on the Hub.")


class LearningCurve(Section):
    """Match rate against the number of training pairs: the model is trained again on shares of the training prompts."""

    shares: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        min_length=2,
        description="Shares of the training prompts, rising, above 0 and below 1; each contains the one before. Halving gives the clearest answer: 0.25, 0.5. All of them is the recipe's own model.",
    )

    @model_validator(mode="after")
    def _rise(self) -> "LearningCurve":
        if any(before >= after for before, after in pairwise(self.shares)):
            raise ValueError("shares must rise, for example [0.25, 0.5]")
        return self


class EvaluationSection(Section):
    """How the reward model is judged."""

    pairs: Literal["one_random", "all"] = Field(
        "one_random",
        description="Test pairs: one drawn at random for each prompt before its gold is looked at, or every pair.",
    )
    seed: int = Field(0, ge=0, description="Seed of the drawn pairs.")
    max_train_pairs: int = Field(
        500, gt=0, description="Training pairs that are scored for the accuracy on training data."
    )
    num_worst_mistakes: int = Field(20, ge=0, description="Confident mistakes shown as text.")
    num_canaries: int = Field(8, gt=0, description="Conversations whose rewards a release must reproduce.")
    backend: Backend = Field(
        "torch",
        description="What computes the reward model's rewards: PyTorch, or JAX, which knows Llama and Qwen3 and is meant for TPUs (never run on one).",
    )
    benchmarks: list[RewardBench] = Field(
        default=[], description="RewardBench or RewardBench 2, scored for the report."
    )
    learning_curve: LearningCurve | None = Field(
        None, description="Train on shares of the pairs too, to know whether more labels would help; not without it."
    )
