"""Rewards of conversations from a sequence classifier with one output, through the forward pass that training uses."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

import torch

from rm_assets.backends.torch.checkpoints import identity, load_classifier
from rm_assets.backends.torch.rendering import Encoded, excerpt, require_real_end
from rm_assets.backends.torch.reward_forward import RewardForward, check_rope
from rm_assets.backends.torch.tokenization import check_context, load_renderer
from rm_assets.core.errors import ModelError
from rm_assets.core.protocols import Reporter, Score
from rm_assets.core.recipe import Dtype, ModelRef
from rm_assets.core.records import Messages

FORWARD_VERSION = "2"
"""To be raised when rewards of the same weights change by more than rounding."""
WINDOW = 2_048
"""Conversations that are tokenized, grouped and computed before the first of them is handed out."""


class TorchScorer:
    """Conversations to rewards with a transformers sequence classifier: a gold model or a trained reward model."""

    def __init__(
        self,
        model: ModelRef,
        *,
        max_length: int,
        dtype: Dtype,
        device: torch.device,
        token_budget: int,
        reporter: Reporter,
    ) -> None:
        self._renderer = load_renderer(model)
        self._model = load_classifier(model, dtype, device, self._renderer.tokenizer)
        check_context(model, self._model.config, self._renderer, max_length)
        check_rope(self._model.config, max_length)
        self._forward = RewardForward(self._model, int(self._renderer.tokenizer.pad_token_id))
        self._max_length, self._dtype, self._device = max_length, dtype, device
        self._token_budget, self._reporter = token_budget, reporter

    @property
    def identity(self) -> Mapping[str, str]:
        """What decides a reward besides conversation and weights."""
        return {**identity(self._model.config, self._renderer, self._dtype, self._device), "forward": FORWARD_VERSION}

    @property
    def num_tokens_forwarded(self) -> int:
        """Tokens that the model has computed so far, padding included; a shared prompt counts once."""
        return self._forward.num_tokens_forwarded

    def text(self, messages: Messages) -> str | None:
        """The conversation as the model reads it; None for an encoder, which reads a text pair."""
        return None if self._renderer.text_pairs else self._renderer.text(messages)

    def has_room(self, prompt: Messages) -> bool:
        """Whether the prompt leaves room for a response within `max_length`."""
        return len(self._renderer.encode_prompts([prompt])[0]) < self._max_length

    def score(self, conversations: Iterable[Messages]) -> Iterator[Score]:
        """One score a conversation, in the order given; a longer one than `max_length` is cut at its end.

        Conversations are taken a window at a time, so any number of them can be scored. Those of a window that have the
        same prompt are computed together.
        Raises: ModelError MODEL_006 if a reward is not finite, MODEL_005 if a prompt leaves no room for its response.
        """
        stream, num_done = iter(conversations), 0
        while window := list(islice(stream, WINDOW)):
            encoded = self._renderer.encode(window)
            was_cut = [len(row.ids) > self._max_length for row in encoded]
            for index, messages in enumerate(window):
                if was_cut[index]:
                    encoded[index] = self._renderer.truncate(messages, encoded[index], self._max_length)
                require_real_end(self._renderer, encoded[index], _name(num_done + index, messages))
            rewards = self._rewards([json.dumps(messages[:-1]) for messages in window], encoded, num_done)
            for index, (row, reward) in enumerate(zip(encoded, rewards, strict=True)):
                if not math.isfinite(reward):
                    raise ModelError(
                        "MODEL_006",
                        f"The reward of {_name(num_done + index, window[index])} is {reward}",
                        why="weights or activations are not finite, often because float16 overflows",
                        fix="use dtype bfloat16 or float32; if it is float32 already, the checkpoint is damaged",
                    )
                yield Score(reward=reward, num_tokens=len(row.ids), truncated=was_cut[index])
            num_done += len(window)

    def _rewards(self, prompts: list[str], rows: list[Encoded], num_before: int) -> list[float]:
        """The reward of each row of a window, in its order."""
        of_prompt: dict[str, list[int]] = {}
        for index, prompt in enumerate(prompts):
            # Without sharing, rows are better put together by length than by prompt.
            of_prompt.setdefault(prompt if self._forward.shares_prefix else str(index), []).append(index)
        parts = [part for members in of_prompt.values() for part in self._within_budget(members, rows)]
        rewards = [math.nan] * len(rows)
        num_done = num_before
        # Called here and not around `score`: a generator must not keep the mode while its caller computes.
        with torch.inference_mode():
            for batch in self._forward.micro_batches([[rows[i] for i in part] for part in parts], self._token_budget):
                computed = self._forward.rewards([[rows[i] for i in parts[place]] for place in batch]).tolist()
                members = [index for place in batch for index in parts[place]]
                for index, reward in zip(members, computed, strict=True):
                    rewards[index] = reward
                num_done += len(members)
                self._reporter.progress(num_done, num_before + len(rows), "conversations")
        return rewards

    def _within_budget(self, members: list[int], rows: list[Encoded]) -> Iterator[list[int]]:
        """The rows of one prompt, in as many parts as the token budget asks for."""
        if self._forward.num_tokens([rows[i] for i in members]) <= self._token_budget:
            yield members
            return
        part: list[int] = []
        for index in members:
            if part and self._forward.num_tokens([rows[i] for i in [*part, index]]) > self._token_budget:
                yield part
                part = []
            part.append(index)
        yield part


def _name(index: int, messages: Messages) -> str:
    return f"conversation {index} ({excerpt(messages)})"
