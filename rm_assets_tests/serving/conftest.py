"""One tiny reward model for all tests of this room, and a scorer that can be held up and made to fail."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from rm_assets.backends.scoring import ReadConversation
from rm_assets.core.protocols import Score
from rm_assets.core.records import Messages
from rm_assets.serving import RewardModel
from rm_assets_tests.fakes import save_classifier

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen3 of two layers that reads 512 tokens."""
    return save_classifier(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="session")
def model(checkpoint: Path) -> RewardModel:
    return RewardModel.load(checkpoint, device="cpu")


class HeldScorer:
    """A model's scorer whose forward passes wait until `free` is set; `passes` lists the responses of each."""

    def __init__(self, model: RewardModel, token_budget: int = 2_048) -> None:
        self._scorer, self.token_budget, self.max_length = model.scorer, token_budget, model.max_length
        self.free = threading.Event()
        self.begun = threading.Semaphore(0)
        self.passes: list[list[str]] = []

    def read(self, conversations: Sequence[Messages], *, num_before: int = 0) -> list[ReadConversation]:
        return self._scorer.read(conversations, num_before=num_before)

    def num_added_tokens(self, read: ReadConversation, beside: ReadConversation | None) -> int:
        return self._scorer.num_added_tokens(read, beside)

    def score_read(self, read: Sequence[ReadConversation], *, num_before: int = 0) -> list[Score]:
        self.passes.append([each.name for each in read])
        self.begun.release()
        assert self.free.wait(60)
        if any("poison" in each.name for each in read):
            raise RuntimeError("out of memory")
        return self._scorer.score_read(read)


@pytest.fixture
def held(model: RewardModel) -> Iterator[HeldScorer]:
    scorer = HeldScorer(model)
    yield scorer
    scorer.free.set()
