"""Where prompts come from, and the sources that other rows are read from too."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rm_assets.core.recipe.section import Section


class FileSource(Section):
    """Rows in files."""

    kind: Literal["files"] = Field(description="Rows in files.")
    files: list[str] = Field(
        min_length=1,
        description="Files or glob patterns, relative to the recipe file: .jsonl, .json, .csv, .parquet, each also .gz or .zst (not Parquet). ${VAR} is read from the environment.",
    )


class DatasetSource(Section):
    """Rows of a dataset on the Hugging Face Hub."""

    kind: Literal["dataset"] = Field(description="Rows of a dataset on the Hub.")
    dataset: str = Field(description="Dataset id on the Hub.")
    config: str | None = Field(None, description="Configuration (subset) of the dataset.")
    split: str = Field("train", description="Split of the dataset.")
    revision: str | None = Field(None, description="Commit, tag or branch. Pin a commit: a branch can move under you.")


class GeneratorSource(Section):
    """Prompts of the miniature task that ships with rm_assets."""

    kind: Literal["generator"] = Field(description="Prompts of the miniature task.")
    num_prompts: int = Field(gt=0, description="Number of distinct prompts.")
    seed: int = Field(0, ge=0, description="Seed of the generator.")


RowSource = Annotated[FileSource | DatasetSource, Field(discriminator="kind")]
PromptSource = Annotated[FileSource | DatasetSource | GeneratorSource, Field(discriminator="kind")]


class SplitFractions(Section):
    """Shares of the prompts; decided by a hash of the normalised prompt, so a prompt never changes sides when others are added."""

    train: float = Field(0.8, gt=0, le=1, description="Share for training.")
    validation: float = Field(0.1, ge=0, lt=1, description="Share for validation while training.")
    test: float = Field(
        0.1, ge=0, lt=1, description="Share for evaluation. Must be 0 where `test` names a source of its own."
    )

    @model_validator(mode="after")
    def _sum_to_one(self) -> "SplitFractions":
        if abs(self.train + self.validation + self.test - 1) > 1e-9:
            raise ValueError("train + validation + test must be 1")
        return self


class PromptsSection(Section):
    """Where prompts come from and how they are split."""

    source: PromptSource = Field(description="Where the prompts lie.")
    test: PromptSource | None = Field(
        None,
        description="A source of test prompts of its own; prompts of `source` that are also here are left out of training.",
    )
    prompt_field: str = Field("prompt", description="Column with the prompt's text.")
    id_field: str | None = Field(
        None, description="Column with your own id, by which recorded responses can refer to the prompt."
    )
    system_field: str | None = Field(None, description="Column with a system message per prompt.")
    reference_field: str | None = Field(None, description="Column with the reference answer, for a verifier.")
    source_field: str | None = Field(
        None, description="Column that names where a prompt is from, for tables by source."
    )
    system: str | None = Field(
        None, description="System message of every prompt; an empty text is rendered as an empty system message."
    )
    split: SplitFractions = Field(default=SplitFractions(), description="Shares of train, validation and test.")
    split_seed: int = Field(0, ge=0, description="Changes which prompts fall on which side.")
    max_prompts: int | None = Field(
        None, gt=0, description="Keep at most so many prompts of each source, in order of the source."
    )

    @model_validator(mode="after")
    def _one_test_set(self) -> "PromptsSection":
        if (self.test is None) == (self.split.test == 0):
            raise ValueError(
                "give test prompts once: either 'test' (then split.test must be 0) or a split.test above 0"
            )
        return self
