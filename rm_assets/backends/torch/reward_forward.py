"""One way from token ids to rewards, for training and for scoring: with shared prompts where the model allows it, padded otherwise.

Rows come in groups: conversations that begin alike, such as the responses to one prompt. Shapes: R rows, T tokens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel

from rm_assets.backends.prompt_groups import num_shared_tokens
from rm_assets.backends.rendering import Encoded
from rm_assets.backends.torch.shared_prefix import (
    ATTENTION,
    LENGTH_DEPENDENT_ROPE,
    MaskCache,
    PackedRow,
    backbone_ends,
    pack,
    why_not_shared,
)
from rm_assets.core.errors import ModelError

Group = Sequence[Encoded]


@dataclass(frozen=True)
class PaddedRows:
    """A model's inputs for rows of unequal length, padded on the right."""

    inputs: dict[str, torch.Tensor]  # (R, T) each

    @property
    def num_tokens(self) -> int:
        """Tokens that are computed, padding included."""
        return self.inputs["input_ids"].numel()

    def to(self, device: torch.device) -> "PaddedRows":
        """The same rows on another device."""
        return PaddedRows({name: values.to(device) for name, values in self.inputs.items()})


class RewardForward(torch.nn.Module):
    """Rewards of a sequence classifier with one output, as a module that can be wrapped and sharded."""

    def __init__(self, model: PreTrainedModel, pad_id: int) -> None:
        super().__init__()
        self.model, self.pad_id = model, pad_id
        self.num_tokens_forwarded = 0
        """Tokens that `rewards` has computed so far, padding included; a shared prompt counts once."""
        self.shares_prefix = why_not_shared(model) is None
        self._masks = MaskCache()
        if self.shares_prefix:
            model.set_attn_implementation(ATTENTION)
            head: Any = model.score
            head.to(torch.promote_types(model.dtype, torch.float32))

    def forward(self, rows: PackedRow | PaddedRows) -> torch.Tensor:
        """(R,) rewards in the order of the groups and their rows, in float32 where the model computes in less."""
        model: Any = self.model
        if isinstance(rows, PackedRow):
            ends = backbone_ends(model, rows)  # (R, W)
            # In bfloat16 rewards near 10 are 0.06 apart, so that close ones would become ties.
            with torch.autocast(ends.device.type, enabled=False):
                logits = model.score(_at_least_float32(ends))  # (R, 1)
        else:
            logits = _at_least_float32(model(**rows.inputs).logits)  # (R, 1)
        rewards: torch.Tensor = logits[:, 0]
        return rewards

    def prepare(self, groups: Sequence[Group]) -> PackedRow | PaddedRows:
        """The groups as one input of the module, on the CPU."""
        if self.shares_prefix:
            return pack([[row.ids for row in group] for group in groups], self._masks)
        return PaddedRows(right_padded([row for group in groups for row in group], self.pad_id))

    def rewards(self, groups: Sequence[Group]) -> torch.Tensor:
        """(R,) rewards of one forward pass."""
        rows = self.prepare(groups)
        self.num_tokens_forwarded += rows.num_tokens
        result: torch.Tensor = self(rows.to(self.model.device))
        return result

    def micro_batches(self, groups: Sequence[Group], token_budget: int) -> Iterator[list[int]]:
        """Positions of `groups` in batches of at most `token_budget` computed tokens; a larger group stands alone.

        Padded batches hold rows of similar length, the longest first, so that a lack of memory shows at once.
        """
        batch: list[int] = []
        costs = [self._cost(group) for group in groups]
        order = range(len(groups)) if self.shares_prefix else sorted(range(len(groups)), key=lambda i: -costs[i][0])
        width = num_rows = num_tokens = 0
        for index in order:
            longest, tokens = costs[index]
            new_width, new_rows = max(width, longest), num_rows + len(groups[index])
            new_tokens = num_tokens + tokens if self.shares_prefix else new_width * new_rows
            if batch and new_tokens > token_budget:
                yield batch
                batch, new_width, new_rows, new_tokens = [], longest, len(groups[index]), tokens
            batch.append(index)
            width, num_rows, num_tokens = new_width, new_rows, new_tokens
        if batch:
            yield batch

    def num_tokens(self, group: Group) -> int:
        """Tokens that one group costs when it is computed alone."""
        return self._cost(group)[1]

    def _cost(self, group: Group) -> tuple[int, int]:
        """Longest row, and tokens computed."""
        lengths = [len(row.ids) for row in group]
        if not self.shares_prefix:
            return max(lengths), max(lengths) * len(lengths)
        return max(lengths), num_shared_tokens(group)


def _at_least_float32(values: torch.Tensor) -> torch.Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def right_padded(rows: Sequence[Encoded], pad_id: int) -> dict[str, torch.Tensor]:
    """A model's inputs for rows of unequal length."""
    width = max(len(row.ids) for row in rows)

    def padded(values: list[list[int]], filler: int) -> torch.Tensor:
        return torch.tensor([row + [filler] * (width - len(row)) for row in values])

    inputs = {
        "input_ids": padded([row.ids for row in rows], pad_id),  # (R, T)
        "attention_mask": padded([[1] * len(row.ids) for row in rows], 0),  # (R, T)
    }
    if rows[0].type_ids is not None:
        inputs["token_type_ids"] = padded([row.type_ids or [] for row in rows], 0)  # (R, T)
    return inputs


def check_rope(config: PretrainedConfig, max_length: int) -> None:
    """Raises ModelError MODEL_007 where a reward would depend on the longest row of its batch."""
    rope: dict[str, Any] = getattr(config.get_text_config(), "rope_parameters", None) or {}
    # Families with several kinds of layers keep one set of parameters for each kind.
    for name, parameters in {"": rope, **rope}.items():
        if not isinstance(parameters, dict) or parameters.get("rope_type") not in LENGTH_DEPENDENT_ROPE:
            continue
        original = (
            parameters.get("original_max_position_embeddings") or config.get_text_config().max_position_embeddings
        )
        if max_length > original:
            where = f" of its {name} layers" if name else ""
            raise ModelError(
                "MODEL_007",
                f"The rope scaling '{parameters['rope_type']}'{where} changes with the longest text of a batch",
                why=f"beyond {original} tokens a reward would depend on what it is computed together with",
                fix=f"set max_length to {original} or less",
            )
