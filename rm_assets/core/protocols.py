"""What a backend is: a sampler, a scorer, a trainer. Backends yield records; tasks write them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from rm_assets.core.recipe import ExecutionSection, TrainingSection
from rm_assets.core.records import Messages, Pair


class Reporter(Protocol):
    """Where a backend tells what it is doing while it does it."""

    def log(self, message: str) -> None:
        """One line for people."""

    def progress(self, done: int, total: int, unit: str) -> None:
        """`done` of `total` units are finished."""

    def training_begins(self, num_steps: int, device: str) -> None:
        """A training of `num_steps` optimizer steps begins or goes on; `device` is its name."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Figures of one optimizer step."""


class QuietReporter:
    """Tells nothing: for work whose caller counts for itself, or of which another process tells."""

    def log(self, message: str) -> None:
        """Drops the line."""

    def waiting(self, reason: str) -> AbstractContextManager[None]:
        """Drops the reason."""
        return nullcontext()

    def progress(self, done: int, total: int, unit: str) -> None:
        """Drops the count."""

    def training_begins(self, num_steps: int, device: str) -> None:
        """Drops the count and the name."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Drops the figures."""


class LogReporter(QuietReporter):
    """Passes on what is said, and counts nothing."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    def log(self, message: str) -> None:
        """Passes the line on."""
        self._reporter.log(message)


@dataclass(frozen=True)
class SampleRequest:
    """One prompt (messages up to and including the user's) and the seed of each response wanted."""

    prompt_id: str
    messages: Messages
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Sample:
    """One sampled response. `index` is its place in the request's seeds; `num_tokens` counts its end token if it has one."""

    prompt_id: str
    index: int
    response: str
    num_tokens: int
    finished: bool


class Sampler(Protocol):
    """Prompts to responses."""

    @property
    def identity(self) -> Mapping[str, str]:
        """All that decides a response besides prompt, seed and the recipe's sampling parameters: rendered template, backend, versions."""

    def sample(self, requests: Sequence[SampleRequest]) -> list[Sample]:
        """Responses to all requests, in the order of requests and their seeds. A response depends on its own request alone."""


@dataclass(frozen=True)
class Score:
    """The reward of one conversation, the tokens the model read, and whether the end was cut off."""

    reward: float
    num_tokens: int
    truncated: bool


class Scorer(Protocol):
    """Conversations to rewards."""

    @property
    def identity(self) -> Mapping[str, str]:
        """All that decides a reward besides the conversation and the checkpoint's weights."""

    def score(self, conversations: Iterable[Messages]) -> Iterator[Score]:
        """One score a conversation, in the order given; conversations with the same prompt cost least side by side.

        Raises: ModelError MODEL_006 if a reward is not finite, MODEL_005 if a prompt leaves no room for its response.
        """


class ResponseScorer(Protocol):
    """What judging a model asks of a scorer."""

    def has_room(self, prompt: Messages) -> bool:
        """Whether the prompt leaves room for a response."""

    def score(self, conversations: Iterable[Messages]) -> Iterator[Score]:
        """As `Scorer.score`."""


@dataclass(frozen=True)
class TrainingResult:
    """What training did. Pairs in = trained + over_length + identical + set_aside, counted by `num_pairs`.

    `num_tokens` were computed; `num_pair_tokens` would have been without shared prompts and responses, and without padding.
    `batch_comparison` holds the `largest_difference` of a reward computed alone and in a batch, the `spread` (standard
    deviation) of the rewards, and the number of `conversations`. `facts` are what else its manifest says.
    """

    num_pairs: dict[str, int]
    trained_pair_ids: Iterable[str]
    num_optimizer_steps: int
    num_tokens: int
    num_pair_tokens: int
    final_loss: float
    validation_accuracy: float | None
    batch_comparison: dict[str, float]
    history: list[dict[str, float]] = field(default_factory=list)
    facts: dict[str, int] = field(default_factory=dict)


ADAPTER = "adapter"
"""The folder beside the checkpoint where a LoRA training leaves its matrices and score head, as peft stores them."""


class Trainer(Protocol):
    """Pairs to a checkpoint folder that AutoModelForSequenceClassification loads."""

    def train(
        self,
        pairs: Iterable[Pair],
        validation_pairs: Iterable[Pair],
        *,
        settings: TrainingSection,
        execution: ExecutionSection,
        seed: int,
        checkpoint: Path,
        work: Path,
        reporter: Reporter,
    ) -> TrainingResult:
        """Trains, resuming from `work` if it holds a state of this very training, and writes the model into `checkpoint`."""
