"""Scores for many callers at a time: one thread owns the model, and what waits is computed together."""

import logging
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rm_assets.core.errors import RmAssetsError, ServiceError
from rm_assets.core.protocols import Score
from rm_assets.core.records import Messages
from rm_assets.serving.metrics import Metrics

if TYPE_CHECKING:
    from rm_assets.backends.scoring import ReadConversation
    from rm_assets.backends.torch.scorer import TorchScorer

logger = logging.getLogger(__name__)


@dataclass
class _Job:
    """One request: conversations with the same prompt; `unread` until its turn comes, then `rows` until they are scored."""

    unread: Sequence[Messages]
    future: Future[list[Score]]
    rows: deque["ReadConversation"] = field(default_factory=deque)
    scores: list[Score] = field(default_factory=list)


@dataclass
class _Part:
    """What one forward pass computes of a job."""

    job: _Job
    rows: list["ReadConversation"]


class Batcher:
    """Takes conversations from any thread; scores are the scorer's, whatever is computed beside them.

    A forward pass takes from the waiting requests in turn, the longest waiting first, as many responses as its token
    budget holds. A request with more of them goes to the end of the line with its rest, so that none keeps the others
    waiting. A fault fails the request that has it, and no other.
    """

    def __init__(
        self,
        scorer: "TorchScorer",
        *,
        batching: bool = True,
        wait_seconds: float = 0.0,
        max_queue: int = 256,
        metrics: Metrics | None = None,
    ) -> None:
        self._scorer, self._batching, self._wait_seconds = scorer, batching, wait_seconds
        self._max_queue, self._metrics = max_queue, metrics or Metrics()
        self._waiting: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._metrics.queue_length.set_function(lambda: len(self._waiting))
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="rm-assets-scoring", daemon=True)
        self._thread.start()

    @property
    def has_room(self) -> bool:
        """Whether another request would be taken."""
        return self._thread.is_alive() and not self._closed and len(self._waiting) < self._max_queue

    def submit(self, conversations: Sequence[Messages]) -> Future[list[Score]]:
        """The scores of conversations with one prompt, when they are there. Cancelled before, they are not computed.

        Raises: ServiceError SERVICE_005 if the queue is full or closed.
        """
        future: Future[list[Score]] = Future()
        with self._changed:
            if not self.has_room:
                raise ServiceError(
                    "SERVICE_005",
                    "the service shuts down" if self._closed else f"{len(self._waiting)} requests wait already",
                    fix="send the request again later",
                )
            self._waiting.append(_Job(conversations, future))
            self._changed.notify()
        return future

    def close(self) -> None:
        """Takes no more, and returns when all that was taken is answered."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while self._wait():
            if parts := self._next_batch():
                self._score(parts)

    def _wait(self) -> bool:
        """Until there is something to do; False when there will be nothing any more."""
        with self._changed:
            if not self._waiting:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._wait_seconds and not self._closed:
                    self._changed.wait_for(lambda: self._closed, self._wait_seconds)
            return bool(self._waiting)

    def _next_batch(self) -> list[_Part]:
        parts: list[_Part] = []
        beside: dict[str, ReadConversation] = {}
        num_left = self._scorer.token_budget
        while job := self._next_job():
            part = _Part(job, [])
            while job.rows:
                row = job.rows[0]
                num_left -= self._scorer.num_added_tokens(row, beside.get(row.prompt))
                if num_left < 0 and beside:
                    break
                beside.setdefault(row.prompt, row)
                part.rows.append(job.rows.popleft())
            if part.rows:
                parts.append(part)
            if job.rows:
                with self._changed:  # begun, it goes behind the others; else it stays the first
                    (self._waiting.append if part.rows else self._waiting.appendleft)(job)
            if num_left <= 0 or not self._batching:
                break
        return parts

    def _next_job(self) -> _Job | None:
        """The job that waits longest, read by the model's tokenizer; those that failed or were cancelled drop out."""
        while True:
            with self._changed:
                if not self._waiting:
                    return None
                job = self._waiting.popleft()
            if job.future.done():
                continue
            try:
                # The first alone, so that a prompt that is too long is read once and not for each response.
                for start, stop in ((0, 1), (1, None)):
                    job.rows.extend(self._scorer.read(job.unread[start:stop], num_before=start))
                job.unread = ()
            except Exception as error:  # noqa: BLE001 - whatever it is belongs to this request, and the thread must live
                _fail(job, error)
                continue
            return job

    def _score(self, parts: list[_Part]) -> None:
        rows = [row for part in parts for row in part.rows]
        try:
            scores = self._scorer.score_read(rows)
        except Exception as error:  # noqa: BLE001 - as above; alone, each shows whether it was at fault
            if len(parts) == 1:
                _fail(parts[0].job, error)
                return
            for part in parts:
                self._score([part])
            return
        self._metrics.batch_requests.observe(len(parts))
        self._metrics.batch_responses.observe(len(rows))
        self._metrics.tokens.inc(sum(score.num_tokens for score in scores))
        self._metrics.truncated.inc(sum(score.truncated for score in scores))
        remaining = iter(scores)
        for part in parts:
            part.job.scores.extend(next(remaining) for _ in part.rows)
            if not part.job.rows:
                with suppress(InvalidStateError):  # cancelled meanwhile
                    part.job.future.set_result(part.job.scores)


def _fail(job: _Job, error: Exception) -> None:
    if not isinstance(error, RmAssetsError):
        logger.error("the model failed at a request", exc_info=error)
        error = ServiceError("SERVICE_007", "the model failed at this request", fix="the service's log has the cause")
    with suppress(InvalidStateError):
        job.future.set_exception(error)
