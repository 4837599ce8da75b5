"""Where prompts come from, and the sources that other rows are read from too."""

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from rm_assets.core.recipe.section import Section


class Rows(Section):
    """What every source of rows has."""

    columns: dict[str, str] = Field(
        default={},
        description="Columns by other names: `question: prompt_text`, or from inside a row: `score: meta.score`, `answer: completions[].text` (a list, one for each completion).",
    )


class FileSource(Rows):
    """Rows in files."""

    kind: Literal["files"] = Field(description="Rows in files.")
    files: list[str] = Field(
        min_length=1,
        description="Files or glob patterns, relative to the recipe file, or URLs (s3://, gs://, https://, hf://): .jsonl, .json, .csv, .parquet, each also .gz or .zst (not Parquet). ${VAR} is read from the environment.",
    )


class DatasetSource(Rows):
    """Rows of a dataset on the Hugging Face Hub."""

    kind: Literal["dataset"] = Field(description="Rows of a dataset on the Hub.")
    dataset: str = Field(description="Dataset id on the Hub.")
    config: str | None = Field(None, description="Configuration (subset) of the dataset.")
    split: str = Field("train", description="Split of the dataset.")
    revision: str | None = Field(None, description="Commit, tag or branch. Pin a commit: a branch can move under you.")
    streaming: bool = Field(
        False,
        description="Read over the network as rows are needed; nothing is stored. For `max_prompts` of a large set.",
    )


class KaggleSource(Rows):
    """Rows in files of a dataset on Kaggle."""

    kind: Literal["kaggle"] = Field(description="Rows of a dataset on Kaggle.")
    dataset: str = Field(pattern=r"^[\w.-]+/[\w.-]+$", description="Dataset on Kaggle: OWNER/NAME.")
    version: int = Field(gt=0, description="Version of the dataset.")
    pattern: str = Field("**/*.csv", description="Files inside the dataset, as a glob pattern.")


class TfdsSource(Rows):
    """Rows of a dataset in TensorFlow Datasets."""

    kind: Literal["tfds"] = Field(description="Rows of a dataset in TensorFlow Datasets.")
    dataset: str = Field(description="Dataset name with configuration and version: NAME/CONFIG:VERSION.")
    split: str = Field("train", description="Split of the dataset.")


class GeneratorSource(Section):
    """Prompts of the miniature task that ships with rm_assets."""

    kind: Literal["generator"] = Field(description="Prompts of the miniature task.")
    num_prompts: int = Field(gt=0, description="Number of distinct prompts.")
    seed: int = Field(0, ge=0, description="Seed of the generator.")


RowSource = Annotated[FileSource | DatasetSource | KaggleSource | TfdsSource, Field(discriminator="kind")]


class MixturePart(Section):
    """One source of a mixture."""

    name: str = Field(min_length=1, description="Name in the tables by source.")
    source: RowSource = Field(description="Where its rows lie; `columns` gives all parts the same column names.")
    weight: float | None = Field(
        None, gt=0, description="Share in the mixture, relative to the other parts; all parts have one or none has."
    )
    max_prompts: int | None = Field(None, gt=0, description="Take at most so many of its prompts, in its order.")


class MixtureSource(Section):
    """Several sources together.

    With weights, the mixture is as large as the scarcest part allows; which prompts of the others are left out, a hash decides
    and not their order. Where the scarcest part grows, the others keep theirs, but for one by rounding; another part that
    grows exchanges some. A prompt that is in several parts counts for the first.
    """

    kind: Literal["mixture"] = Field(description="Several sources.")
    parts: list[MixturePart] = Field(min_length=1, description="The sources, in order.")

    @model_validator(mode="after")
    def _sound_parts(self) -> "MixtureSource":
        names = [part.name for part in self.parts]
        if len(set(names)) < len(names):
            raise ValueError("two parts have the same name")
        if len({part.weight is None for part in self.parts}) > 1:
            raise ValueError("some parts have a weight and some have none; give all of them one, or none")
        return self


PromptSource = Annotated[
    FileSource | DatasetSource | KaggleSource | TfdsSource | MixtureSource | GeneratorSource,
    Field(discriminator="kind"),
]


class SplitFractions(Section):
    """Shares of the prompts; decided by a hash of the opening, so a prompt never changes sides when others are added."""

    train: float = Field(0.8, gt=0, le=1, description="Share for training.")
    validation: float = Field(0.1, ge=0, lt=1, description="Share for validation while training.")
    test: float = Field(
        0.1, ge=0, lt=1, description="Share for evaluation. Must be 0 where `test` names a source of its own."
    )
    stratify: bool = Field(
        False,
        description="Hold the shares within each source, to within one group of prompts that belong together. The price: those at the border of a share can change sides when others are added.",
    )

    @model_validator(mode="after")
    def _sum_to_one(self) -> "SplitFractions":
        if abs(self.train + self.validation + self.test - 1) > 1e-9:
            raise ValueError("train + validation + test must be 1")
        return self


class NearDuplicates(Section):
    """Openings whose sets of word runs are nearly the same are one group, and so on one side of the split."""

    threshold: float = Field(
        0.8,
        ge=0.5,
        le=0.99,
        description="Least Jaccard similarity of two openings: runs that both have, as a share of those that either has.",
    )
    words: int = Field(3, gt=0, description="Words in a run; a shorter opening is one run.")


class EvaluationSet(Section):
    """A set that the model will be judged on elsewhere."""

    name: str = Field(min_length=1, description="Its name in the counts.")
    source: RowSource = Field(description="Where its rows lie.")
    field: str = Field("prompt", description="Column with the text.")
    words: int = Field(
        13,
        gt=0,
        description="Words in a run; a prompt that shares one with the set is left out. A shorter text is one run, so it must be the whole prompt.",
    )


class PromptsSection(Section):
    """Where prompts come from and how they are split."""

    source: PromptSource = Field(description="Where the prompts lie.")
    test: PromptSource | None = Field(
        None,
        description="A source of test prompts of its own; prompts of `source` that are also here are left out of training.",
    )
    test_set_hash: str | None = Field(
        None,
        description="Hash of the prompts and references of `test`, as the prompts asset shows it: if they are others one day, that is an error.",
    )
    near_duplicates: NearDuplicates | None = Field(
        None, description="Keep near-duplicates on one side of the split; without it only equal openings share a side."
    )
    decontaminate: list[EvaluationSet] = Field(
        default=[],
        description="Evaluation sets: prompts for training and validation that share a run of words with one are left out and counted.",
    )
    prompt_field: str = Field(
        "prompt", description="Column with the prompt: a text, or messages of which the last is the user's."
    )
    dialogue_fields: list[str] = Field(
        default=[],
        description="Columns with whole dialogues, for example [chosen, rejected]: their common beginning is the prompt, in place of `prompt_field`. Rows whose dialogues part before the last answer are left out and counted.",
    )
    transcript: tuple[str, str] | None = Field(
        None,
        description='What stands before a user\'s and before an assistant\'s turn where dialogues are plain texts, for example ["\\n\\nHuman:", "\\n\\nAssistant:"].',
    )
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

    @field_validator("test_set_hash")
    @classmethod
    def _whole_hash(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch("[0-9a-f]{32}", value):
            raise ValueError("write 32 hex digits, as `rm-assets show prompts` prints them")
        return value

    @model_validator(mode="after")
    def _pinned_test_set(self) -> "PromptsSection":
        if self.test_set_hash is not None and self.test is None:
            raise ValueError("'test_set_hash' pins the prompts of 'test', which is not given")
        return self

    @model_validator(mode="after")
    def _named_evaluation_sets(self) -> "PromptsSection":
        if len({named.name for named in self.decontaminate}) < len(self.decontaminate):
            raise ValueError("two sets of 'decontaminate' have the same name")
        return self

    @model_validator(mode="after")
    def _two_markers(self) -> "PromptsSection":
        if self.transcript is not None and ("" in self.transcript or self.transcript[0] == self.transcript[1]):
            raise ValueError("the two texts of 'transcript' must differ, and neither can be empty")
        return self

    @property
    def sources(self) -> "list[PromptSource]":
        """Where prompts are read: the source, and that of the test prompts if they have one of their own."""
        return [self.source, *([self.test] if self.test is not None else [])]
