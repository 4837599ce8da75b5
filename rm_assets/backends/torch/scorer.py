"""Rewards of conversations from a sequence classifier with one output, through the forward pass that training uses."""

from collections.abc import Mapping

import torch

from rm_assets.backends.prompt_groups import parts_of_prompts
from rm_assets.backends.rendering import Encoded
from rm_assets.backends.room import require_room_for_weights
from rm_assets.backends.scoring import ConversationScorer
from rm_assets.backends.token_budget import TokenBudget
from rm_assets.backends.tokenization import check_context, load_config, load_renderer
from rm_assets.backends.torch.checkpoints import identity, load_classifier
from rm_assets.backends.torch.memory import room_on
from rm_assets.backends.torch.reward_forward import RewardForward, check_rope
from rm_assets.core.protocols import Reporter
from rm_assets.core.recipe import Dtype, ModelRef

FORWARD_VERSION = "2"
"""To be raised when rewards of the same weights change by more than rounding."""


class TorchScorer(ConversationScorer):
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
        renderer = load_renderer(model)
        super().__init__(renderer, max_length=max_length, token_budget=token_budget, reporter=reporter)
        require_room_for_weights(load_config(model), model.location, dtype, room_on(device), reporter)
        self._model = load_classifier(model, dtype, device, renderer.tokenizer)
        check_context(model, self._model.config, renderer, max_length)
        check_rope(self._model.config, max_length)
        self._forward = RewardForward(self._model, int(renderer.tokenizer.pad_token_id))
        self.shares_prefix = self._forward.shares_prefix
        self._dtype, self._device, self._budget = dtype, device, TokenBudget(token_budget, reporter)

    @property
    def facts(self) -> dict[str, int]:
        """The token budget, where it was halved."""
        return self._budget.facts

    @property
    def identity(self) -> Mapping[str, str]:
        """What decides a reward besides conversation and weights."""
        return {**identity(self._model.config, self._renderer, self._dtype, self._device), "forward": FORWARD_VERSION}

    @property
    def num_tokens_forwarded(self) -> int:
        """Tokens that the model has computed so far, padding included; a shared prompt counts once."""
        return self._forward.num_tokens_forwarded

    def _rewards(self, prompts: list[str], rows: list[Encoded], num_before: int) -> list[float]:
        """The reward of each row of a window, in its order."""
        # Without sharing, rows are better put together by length than by prompt.
        keys = prompts if self.shares_prefix else [str(index) for index in range(len(rows))]
        rewards: dict[int, float] = {}

        def compute(token_budget: int) -> None:
            left = [index for index in range(len(rows)) if index not in rewards]
            parts = [
                [left[place] for place in part]
                for part in parts_of_prompts(
                    [keys[i] for i in left], [rows[i] for i in left], self._forward.num_tokens, token_budget
                )
            ]
            for batch in self._forward.micro_batches([[rows[i] for i in part] for part in parts], token_budget):
                computed = self._forward.rewards([[rows[i] for i in parts[place]] for place in batch]).tolist()
                rewards.update(zip((index for place in batch for index in parts[place]), computed, strict=True))
                self._reporter.progress(num_before + len(rewards), num_before + len(rows), "conversations")

        # Called here and not around `score`: a generator must not keep the mode while its caller computes.
        with torch.inference_mode():
            self._budget.spend(compute)
        return [rewards[index] for index in range(len(rows))]
