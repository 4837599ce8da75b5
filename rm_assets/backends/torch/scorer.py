"""Rewards of conversations from a sequence classifier with one output.

Conversations are sorted by length inside a call, batched under a token budget and padded on the right; the reward is
the model's own logit. Shapes: R conversations, T tokens.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from transformers import PreTrainedModel

from rm_assets.backends.torch.checkpoints import check_context, identity, load_classifier, load_renderer
from rm_assets.backends.torch.rendering import Encoded, Renderer, excerpt
from rm_assets.core.errors import ModelError
from rm_assets.core.protocols import Reporter, Score
from rm_assets.core.recipe import Dtype, ModelRef
from rm_assets.core.records import Messages


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
        self._max_length, self._dtype, self._device = max_length, dtype, device
        self._token_budget, self._reporter = token_budget, reporter

    @property
    def identity(self) -> Mapping[str, str]:
        """What decides a reward besides conversation and weights."""
        return identity(self._model, self._renderer, self._dtype, self._device)

    def text(self, messages: Messages) -> str | None:
        """The conversation as the model reads it; None for an encoder, which reads a text pair."""
        return None if self._renderer.text_pairs else self._renderer.text(messages)

    def has_room(self, prompt: Messages) -> bool:
        """Whether the prompt leaves room for a response within `max_length`."""
        return len(self._renderer.encode_prompts([prompt])[0]) < self._max_length

    def score(self, conversations: Sequence[Messages]) -> Iterator[Score]:
        """One score a conversation, in the order given; a longer one than `max_length` is cut at its end.

        Raises: ModelError MODEL_006 if a reward is not finite, MODEL_005 if a prompt leaves no room for its response.
        """
        encoded = self._renderer.encode(conversations)
        was_cut = [len(row.ids) > self._max_length for row in encoded]
        for index, messages in enumerate(conversations):
            if was_cut[index]:
                encoded[index] = self._renderer.truncate(messages, encoded[index], self._max_length)
        rewards = score_encoded(
            self._model, self._renderer, encoded, self._token_budget,
            name=lambda index: f"conversation {index} ({excerpt(conversations[index])})",
            progress=lambda done: self._reporter.progress(done, len(encoded), "conversations"),
        )  # fmt: skip
        for row, reward, cut in zip(encoded, rewards, was_cut, strict=True):
            yield Score(reward=reward, num_tokens=len(row.ids), truncated=cut)


@torch.inference_mode()
def score_encoded(
    model: PreTrainedModel,
    renderer: Renderer,
    encoded: Sequence[Encoded],
    token_budget: int,
    *,
    name: Callable[[int], str],
    progress: Callable[[int], None] = lambda done: None,
) -> list[float]:
    """The reward of each row, in the order given; `name` says which row an error is about.

    Raises: ModelError MODEL_006 if a reward is not finite, MODEL_004 if a row ends with the pad token.
    """
    pad_id = int(renderer.tokenizer.pad_token_id)
    for index, row in enumerate(encoded):
        require_real_end(renderer, row, name(index))
    rewards = [math.nan] * len(encoded)
    num_done = 0
    for batch in length_batches([len(row.ids) for row in encoded], token_budget):
        inputs = right_padded([encoded[index] for index in batch], pad_id, model.device)
        logits = model(**inputs).logits  # (R, 1)
        for index, reward in zip(batch, logits[:, 0].float().tolist(), strict=True):
            if not math.isfinite(reward):
                raise ModelError(
                    "MODEL_006",
                    f"The reward of {name(index)} is {reward}",
                    why="weights or activations are not finite, often because float16 overflows",
                    fix="use dtype bfloat16 or float32; if it is float32 already, the checkpoint is damaged",
                )
            rewards[index] = reward
        num_done += len(batch)
        progress(num_done)
    return rewards


def require_real_end(renderer: Renderer, row: Encoded, name: str) -> None:
    """Raises ModelError MODEL_004 where a decoder's reward would be read before the end, at the last non-pad token."""
    if not renderer.text_pairs and (not row.ids or row.ids[-1] == renderer.tokenizer.pad_token_id):
        raise ModelError(
            "MODEL_004",
            f"The text of {name} " + ("ends with the pad token" if row.ids else "is empty"),
            why="a reward is read at the last token that is not the pad token, which would be an earlier one",
            fix="give a `pad_token` that no text and no chat template uses",
        )


def length_batches(lengths: Sequence[int], token_budget: int) -> Iterator[list[int]]:
    """Positions in batches of similar length, each of at most `token_budget` tokens with padding; longest first, so
    that a lack of memory shows at once."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > token_budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def right_padded(rows: Sequence[Encoded], pad_id: int, device: torch.device | str = "cpu") -> dict[str, torch.Tensor]:
    """A model's inputs for rows of unequal length."""
    width = max(len(row.ids) for row in rows)

    def padded(values: list[list[int]], filler: int) -> torch.Tensor:
        return torch.tensor([row + [filler] * (width - len(row)) for row in values], device=device)

    inputs = {
        "input_ids": padded([row.ids for row in rows], pad_id),  # (R, T)
        "attention_mask": padded([[1] * len(row.ids) for row in rows], 0),  # (R, T)
    }
    if rows[0].type_ids is not None:
        inputs["token_type_ids"] = padded([row.type_ids or [] for row in rows], 0)  # (R, T)
    return inputs
