"""The batcher: who is computed with whom, and that nobody suffers from it."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import pytest

from rm_assets.core.errors import ModelError, ServiceError
from rm_assets.core.protocols import Score
from rm_assets.serving import RewardModel
from rm_assets.serving.batching import Batcher
from rm_assets.serving.reward_model import conversations
from rm_assets_tests.fakes import TEXTS
from rm_assets_tests.serving.conftest import HeldScorer

LONG_PROMPT = "two pears please " * 200


class Line:
    """A batcher over a held scorer, whose first forward pass is under way when a test begins, so that what follows waits."""

    def __init__(self, scorer: HeldScorer, **options: Any) -> None:
        self.scorer = scorer
        self.batcher = Batcher(scorer, **options)
        self.first = self.ask("first", ["first"])
        assert scorer.begun.acquire(timeout=60)

    def ask(self, prompt: str, responses: Sequence[str]) -> Future[list[Score]]:
        return self.batcher.submit(conversations(prompt, responses))

    def passes(self) -> list[int]:
        """Responses of each forward pass after the first."""
        self.scorer.free.set()
        self.batcher.close()
        return [len(each) for each in self.scorer.passes[1:]]


@pytest.fixture
def line(held: HeldScorer) -> Iterator[Line]:
    made = Line(held)
    yield made
    held.free.set()
    made.batcher.close()


def rewards(future: Future[list[Score]]) -> list[float]:
    return [score.reward for score in future.result(60)]


def test_what_waits_is_computed_together_and_scores_as_alone(line: Line, model: RewardModel) -> None:
    asked = {prompt: line.ask(prompt, TEXTS[: 1 + i % 4]) for i, prompt in enumerate(TEXTS)}
    assert line.passes() == [1 + 2 + 3 + 4 + 1 + 2]
    for i, (prompt, future) in enumerate(asked.items()):
        assert rewards(future) == pytest.approx(model.score(prompt, TEXTS[: 1 + i % 4]), abs=1e-5)


def test_requests_with_the_same_prompt_share_it_in_the_budget(held: HeldScorer, model: RewardModel) -> None:
    prompt = "what is the sum of four and five " * 8
    ids = model.scorer.read(conversations(prompt, ["yes"]))[0].row.ids
    held.token_budget = 2 * len(ids)  # two whole conversations, or one and several ends
    line = Line(held)
    asked = [line.ask(prompt, [text]) for text in ("yes", "no", "two", "three")]
    assert line.passes() == [4]
    alone = [model.score(prompt, [text])[0] for text in ("yes", "no", "two", "three")]
    assert [rewards(future)[0] for future in asked] == pytest.approx(alone, abs=1e-5)


def test_without_batching_each_request_is_computed_alone(held: HeldScorer) -> None:
    line = Line(held, batching=False)
    for count in (2, 1, 3):
        line.ask("one apple", TEXTS[:count])
    assert line.passes() == [2, 1, 3]


def test_a_prompt_that_is_too_long_fails_alone(line: Line) -> None:
    good, bad, also_good = line.ask("a", ["b"]), line.ask(LONG_PROMPT, ["b", "c"]), line.ask("a", ["c"])
    assert line.passes() == [2]
    with pytest.raises(ModelError, match="MODEL_005"):
        bad.result(60)
    assert len(rewards(good)) == len(rewards(also_good)) == 1


def test_a_request_whose_computation_fails_does_not_fail_its_mates(line: Line, model: RewardModel) -> None:
    good, bad, also_good = line.ask("a", ["b"]), line.ask("a", ["poison"]), line.ask("a", ["c"])
    assert line.passes() == [3, 1, 1, 1]
    with pytest.raises(ServiceError, match="SERVICE_007"):
        bad.result(60)
    assert [*rewards(good), *rewards(also_good)] == pytest.approx(model.score("a", ["b", "c"]), abs=1e-5)


def test_a_large_request_does_not_keep_a_small_one_waiting(held: HeldScorer, model: RewardModel) -> None:
    held.token_budget = 60
    line = Line(held)
    texts = [f"{text} {number}" for number in range(10) for text in TEXTS]
    done: list[str] = []
    large, small = line.ask("one apple", texts), line.ask("a", ["b"])
    large.add_done_callback(lambda _: done.append("large"))
    small.add_done_callback(lambda _: done.append("small"))
    passes = line.passes()
    assert done == ["small", "large"] and sum(passes) == 61 and len(passes) > 10
    assert held.passes[2][0] == "conversation 0 ('b')"
    assert rewards(large) == pytest.approx(model.score("one apple", texts), abs=1e-5)


def test_a_full_line_takes_nobody_and_a_cancelled_request_is_not_computed(held: HeldScorer) -> None:
    line = Line(held, max_queue=2)
    given_up, kept = line.ask("a", ["b"]), line.ask("a", ["c"])
    with pytest.raises(ServiceError, match=r"SERVICE_005.*2 requests wait"):
        line.ask("a", ["d"])
    assert not line.batcher.has_room
    assert given_up.cancel()
    assert line.passes() == [1] and len(rewards(kept)) == 1


def test_closing_answers_what_was_taken_and_takes_no_more(line: Line) -> None:
    asked = [line.ask("a", [text]) for text in TEXTS]
    line.scorer.free.set()
    line.batcher.close()
    assert all(future.done() for future in [line.first, *asked])
    with pytest.raises(ServiceError, match="shuts down"):
        line.ask("a", ["b"])


def test_an_idle_model_waits_for_a_second_request_when_told_to(held: HeldScorer) -> None:
    held.free.set()
    batcher = Batcher(held, wait_seconds=0.5)
    asked = [batcher.submit(conversations("a", [text])) for text in TEXTS[:3]]
    assert [len(rewards(future)) for future in asked] == [1, 1, 1]
    batcher.close()
    assert [len(each) for each in held.passes] == [3]
