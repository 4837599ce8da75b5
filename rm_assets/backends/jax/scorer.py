"""Rewards of conversations from a Llama or Qwen3 sequence classifier with one output, computed by JAX."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from rm_assets.backends.jax import packed_rows
from rm_assets.backends.jax.architecture import read_architecture
from rm_assets.backends.jax.checkpoints import DTYPES, identity, load_parameters
from rm_assets.backends.jax.devices import by_rows, room_on
from rm_assets.backends.jax.reward_forward import rewards
from rm_assets.backends.prompt_groups import num_shared_tokens, parts_of_prompts
from rm_assets.backends.rendering import Encoded
from rm_assets.backends.room import require_room_for_weights
from rm_assets.backends.scoring import ConversationScorer
from rm_assets.backends.token_budget import TokenBudget
from rm_assets.backends.tokenization import (
    check_context,
    load_config,
    load_renderer,
    require_one_output,
    require_pad_token,
)
from rm_assets.core.protocols import Reporter
from rm_assets.core.recipe import Dtype, ModelRef

FORWARD_VERSION = "1"
"""To be raised when rewards of the same weights change by more than rounding."""


class JaxScorer(ConversationScorer):
    """Conversations to rewards: a gold model or a trained reward model."""

    def __init__(
        self,
        model: ModelRef,
        *,
        max_length: int,
        dtype: Dtype,
        mesh: Mesh,
        token_budget: int,
        reporter: Reporter,
    ) -> None:
        self._config = load_config(model)
        architecture = read_architecture(model, self._config)
        require_one_output(model, self._config)
        renderer = load_renderer(model)
        require_pad_token(model, self._config, renderer.tokenizer)
        check_context(model, self._config, renderer, max_length)
        require_room_for_weights(self._config, model.location, dtype, room_on(mesh), reporter)
        super().__init__(renderer, max_length=max_length, token_budget=token_budget, reporter=reporter)
        computed_in = DTYPES[dtype]
        self._parameters = load_parameters(model, self._config, architecture, dtype=computed_in, mesh=mesh)
        self._rewards_at_tokens: Any = jax.jit(
            partial(rewards, architecture=architecture, dtype=computed_in, mesh=mesh)
        )  # fmt: skip
        self._dtype, self._mesh, self._num_tokens_forwarded = dtype, mesh, 0
        self._budget = TokenBudget(token_budget, reporter)

    @property
    def identity(self) -> Mapping[str, str]:
        """What decides a reward besides conversation and weights."""
        return {**identity(self._config, self._renderer, self._dtype, self._mesh), "forward": FORWARD_VERSION}

    @property
    def num_tokens_forwarded(self) -> int:
        """Tokens that the model has computed so far, padding included; a shared prompt counts once."""
        return self._num_tokens_forwarded

    @property
    def num_compilations(self) -> int:
        """Shapes that the forward pass was compiled for."""
        return int(self._rewards_at_tokens._cache_size())

    @property
    def facts(self) -> dict[str, int]:
        """What else a manifest says of its work so far."""
        return self._budget.facts

    def _rewards(self, prompts: list[str], rows: list[Encoded], num_before: int) -> list[float]:
        before = self._num_tokens_forwarded

        def attempt(token_budget: int) -> list[float]:
            self._num_tokens_forwarded = before
            return self._rewards_within(token_budget, prompts, rows, num_before)

        return self._budget.spend(attempt)

    def _rewards_within(
        self, token_budget: int, prompts: list[str], rows: list[Encoded], num_before: int
    ) -> list[float]:
        longest = 2 * self.max_length  # attention takes the square of a row's tokens
        parts = parts_of_prompts(prompts, rows, num_shared_tokens, min(token_budget, longest))
        groups = [[rows[index] for index in part] for part in parts]
        result, num_done = [math.nan] * len(rows), num_before
        for batch in packed_rows.batches(groups, token_budget, self._mesh.size):
            packed = packed_rows.pack(groups, batch, int(self._renderer.tokenizer.pad_token_id))
            self._num_tokens_forwarded += packed.num_tokens
            tokens = jax.device_put(packed.tokens, by_rows(self._mesh))
            at_tokens = np.asarray(self._rewards_at_tokens(self._parameters, tokens)).ravel()
            members = [place for row in batch.rows for place in row]
            for place, ends in zip(members, packed.ends, strict=True):
                for index, end in zip(parts[place], ends, strict=True):
                    result[index] = float(at_tokens[end])
                num_done += len(ends)
            self._reporter.progress(num_done, num_before + len(rows), "conversations")
        budgets = {self.token_budget, token_budget}
        most = sum(packed_rows.most_shapes(longest, budget) for budget in budgets)
        assert self.num_compilations <= most, "shapes are a fixed set"
        return result
