"""Conversations read, cut, scored and accounted for in the same way whatever computes the rewards."""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from rm_assets.backends.prompt_groups import common_prefix
from rm_assets.backends.rendering import Encoded, Renderer, excerpt, require_real_end
from rm_assets.core.errors import ModelError
from rm_assets.core.protocols import Reporter, Score
from rm_assets.core.records import Messages

WINDOW = 2_048
"""Conversations that are tokenized, grouped and computed before the first of them is handed out."""


@dataclass(frozen=True)
class ReadConversation:
    """One conversation as the model reads it, cut where `truncated`. `name` is for messages; conversations of one `prompt` share it."""

    name: str
    prompt: str
    row: Encoded
    truncated: bool


class ConversationScorer(ABC):
    """A scorer but for its forward pass, which a backend adds."""

    shares_prefix = True
    """Whether a prompt is computed once for all its responses."""

    def __init__(self, renderer: Renderer, *, max_length: int, token_budget: int, reporter: Reporter) -> None:
        self._renderer, self._reporter = renderer, reporter
        self.max_length, self.token_budget = max_length, token_budget

    @property
    def facts(self) -> dict[str, int]:
        """What else a manifest says of its work so far."""
        return {}

    @property
    @abstractmethod
    def identity(self) -> Mapping[str, str]:
        """What decides a reward besides conversation and weights."""

    @property
    @abstractmethod
    def num_tokens_forwarded(self) -> int:
        """Tokens that the model has computed so far, padding included; a shared prompt counts once."""

    @abstractmethod
    def _rewards(self, prompts: list[str], rows: list[Encoded], num_before: int) -> list[float]:
        """The reward of each row of a window, in its order."""

    def text(self, messages: Messages) -> str | None:
        """The conversation as the model reads it; None for an encoder, which reads a text pair."""
        return None if self._renderer.text_pairs else self._renderer.text(messages)

    def has_room(self, prompt: Messages) -> bool:
        """Whether the prompt leaves room for a response within `max_length`."""
        return len(self._renderer.encode_prompts([prompt])[0]) < self.max_length

    def num_tokens(self, messages: Messages) -> int:
        """Tokens of the whole conversation, however long."""
        return len(self._renderer.encode([messages])[0].ids)

    def score(self, conversations: Iterable[Messages]) -> Iterator[Score]:
        """One score a conversation, in the order given; a longer one than `max_length` is cut at its end.

        Conversations are taken a window at a time, so any number of them can be scored. Those of a window that have the
        same prompt are computed together.
        Raises: ModelError MODEL_006 if a reward is not finite, MODEL_005 if a prompt leaves no room for its response.
        """
        stream, num_done = iter(conversations), 0
        while window := list(islice(stream, WINDOW)):
            yield from self.score_read(self.read(window, num_before=num_done), num_before=num_done)
            num_done += len(window)

    def read(self, conversations: Sequence[Messages], *, num_before: int = 0) -> list[ReadConversation]:
        """The conversations as the model reads them; `num_before` were read before and count in an error's text.

        Raises: ModelError MODEL_005 if a prompt leaves no room for its response, MODEL_004 if a text ends in padding.
        """
        encoded = self._renderer.encode(conversations)
        read: list[ReadConversation] = []
        for index, (messages, row) in enumerate(zip(conversations, encoded, strict=True)):
            name = f"conversation {num_before + index} ({excerpt(messages)})"
            is_cut = len(row.ids) > self.max_length
            kept = self._renderer.truncate(messages, row, self.max_length) if is_cut else row
            require_real_end(self._renderer, kept, name)
            read.append(ReadConversation(name, json.dumps(messages[:-1]), kept, is_cut))
        return read

    def score_read(self, read: Sequence[ReadConversation], *, num_before: int = 0) -> list[Score]:
        """The scores of conversations that were read. Raises: ModelError MODEL_006 if a reward is not finite."""
        rewards = self._rewards([each.prompt for each in read], [each.row for each in read], num_before)
        for each, reward in zip(read, rewards, strict=True):
            if not math.isfinite(reward):
                raise ModelError(
                    "MODEL_006",
                    f"The reward of {each.name} is {reward}",
                    why="weights or activations are not finite, often because float16 overflows",
                    fix="use dtype bfloat16 or float32; if it is float32 already, the checkpoint is damaged",
                )
        return [
            Score(reward=reward, num_tokens=len(each.row.ids), truncated=each.truncated)
            for each, reward in zip(read, rewards, strict=True)
        ]

    def num_added_tokens(self, read: ReadConversation, beside: ReadConversation | None) -> int:
        """Tokens that a forward pass computes more with `read` in it; `beside` has the same prompt and is in it already."""
        if beside is None or not self.shares_prefix:
            return len(read.row.ids)
        return len(read.row.ids) - common_prefix([beside.row.ids, read.row.ids])
