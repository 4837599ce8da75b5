"""Rewards of responses that share their prompt: the row `[P | R1 | R2 | ...]`, in which the prompt is computed once.

Each response attends to the prompt and to itself, and its positions go on from the prompt's end, so its reward is that
of the row `[P | Ri]` alone. Nothing is padded. One attention function does it, registered with transformers; what the
last layer computes at other places than the responses' ends nobody reads, so it is not computed.

Shapes: T tokens of the packed row, R responses, H heads, D head width, W hidden width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import accumulate
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from rm_assets.backends.prompt_groups import common_prefix

ATTENTION = "rm_assets_shared_prefix"
"""Name under which transformers knows the attention function."""
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
"""Model types whose layers are known to be what `_last_layer` takes them for; the tests hold each of them."""
LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")
"""Rope scalings whose frequencies follow from the longest row of a batch, beyond the original context."""
VARLEN_DTYPES = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Segment:
    """Queries `start` to `start + length` of the row. They attend causally to each other, and to all of the prefix."""

    start: int
    length: int
    prefix_start: int = 0
    prefix_length: int = 0


@dataclass(frozen=True)
class PackedRow:
    """Token ids of several prompts with their responses, one after the other."""

    input_ids: torch.Tensor  # (1, T)
    position_ids: torch.Tensor  # (1, T)
    ends: torch.Tensor  # (R,) place of each response's last token, in the order the responses were given
    end_segments: tuple[int, ...]
    """Segment of each response, in the same order."""
    segments: tuple[Segment, ...]
    masks: "MaskCache"

    @property
    def num_tokens(self) -> int:
        """Tokens that are computed."""
        return self.input_ids.shape[1]

    def to(self, device: torch.device) -> "PackedRow":
        """The same row on another device."""
        return replace(
            self, input_ids=self.input_ids.to(device), position_ids=self.position_ids.to(device),
            ends=self.ends.to(device),
        )  # fmt: skip

    @cached_property
    def varlen(self) -> "Varlen":
        """The segments as CUDA's variable-length attention wants them, for every query."""
        return Varlen.of(self.segments, [segment.length for segment in self.segments], self.input_ids.device)

    @cached_property
    def varlen_ends(self) -> "Varlen":
        """The same for the last query of each response."""
        segments = [self.segments[index] for index in self.end_segments]
        return Varlen.of(segments, [1] * len(segments), self.input_ids.device)


@dataclass(frozen=True)
class Varlen:
    """Sequences of queries and the keys that each of them reads, which several of them share."""

    key_index: torch.Tensor  # (K,) place in the row of every key, sequence by sequence
    query_bounds: torch.Tensor  # (S + 1,) int32
    key_bounds: torch.Tensor  # (S + 1,) int32
    longest_query: int
    longest_key: int

    @staticmethod
    def of(segments: Sequence[Segment], query_lengths: list[int], device: torch.device) -> "Varlen":
        """The keys of each segment: its prefix, then itself."""
        key_lengths = [segment.prefix_length + segment.length for segment in segments]
        places = [
            torch.arange(start, start + length)
            for segment in segments
            for start, length in ((segment.prefix_start, segment.prefix_length), (segment.start, segment.length))
        ]
        return Varlen(
            key_index=torch.cat(places).to(device),
            query_bounds=torch.tensor([0, *accumulate(query_lengths)], dtype=torch.int32, device=device),
            key_bounds=torch.tensor([0, *accumulate(key_lengths)], dtype=torch.int32, device=device),
            longest_query=max(query_lengths),
            longest_key=max(key_lengths),
        )


class MaskCache:
    """Additive causal masks. All of them are windows of one large triangle, which is made once per size and dtype."""

    def __init__(self) -> None:
        self._triangles: dict[tuple[torch.dtype, torch.device, int | None], torch.Tensor] = {}

    def window(self, segment: Segment, like: torch.Tensor, sliding_window: int | None) -> torch.Tensor:
        """(length, prefix_length + length): 0 where query may see key, -inf elsewhere."""
        size = segment.prefix_length + segment.length
        key = (like.dtype, like.device, sliding_window)
        triangle = self._triangles.get(key)
        if triangle is None or len(triangle) < size:
            side = 256 * -(-size // 256)
            hidden = torch.ones(side, side, dtype=torch.bool, device=like.device).triu(1)
            if sliding_window is not None:
                hidden |= torch.ones_like(hidden).tril(-sliding_window)
            triangle = torch.zeros(side, side, dtype=like.dtype, device=like.device).masked_fill_(hidden, -torch.inf)
            self._triangles[key] = triangle
        return triangle[segment.prefix_length : size, :size]


def why_not_shared(model: PreTrainedModel) -> str | None:
    """Why the prompt cannot be shared in this model, which is then computed row by row with padding; None if it can."""
    if model.config.model_type not in FAMILIES or not hasattr(model, "score"):
        return f"{type(model).__name__} is not one of the families that share prompts ({', '.join(FAMILIES)})"
    return None


def pack(groups: Sequence[Sequence[list[int]]], masks: MaskCache) -> PackedRow:
    """Rows that share what they begin with, group by group, as one row.

    The rewards come back in the order of the groups and of the rows in them. No row may be empty.
    """
    ids: list[int] = []
    positions: list[int] = []
    segments: list[Segment] = []
    ends: list[int] = []
    end_segments: list[int] = []
    for rows in groups:
        prefix = common_prefix(rows)
        group_start = len(ids)
        # The longest response is computed in one go with the prompt, which needs no mask.
        order = sorted(range(len(rows)), key=lambda index: -len(rows[index]))
        group_ends, group_segments = [0] * len(rows), [0] * len(rows)
        for place, index in enumerate(order):
            row, skipped = rows[index], prefix if place else 0
            group_segments[index] = len(segments)
            segments.append(Segment(len(ids), len(row) - skipped, group_start, skipped))
            ids += row[skipped:]
            positions += range(skipped, len(row))
            group_ends[index] = len(ids) - 1
        ends += group_ends
        end_segments += group_segments
    return PackedRow(
        torch.tensor([ids]), torch.tensor([positions]), torch.tensor(ends), tuple(end_segments), tuple(segments), masks
    )


def shared_prefix_attention(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any,
    *, packed: PackedRow, scaling: float, sliding_window: int | None = None, **unused: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """Attention of transformers' interface: (1, H, T, D) queries, keys and values to (1, T, H, D)."""
    query, key, value = _one_dtype(query, key, value)
    if _has_varlen(query):
        return _varlen_attention(query, key, value, packed.varlen, scaling, sliding_window), None
    queries = query.split([segment.length for segment in packed.segments], 2)
    outputs = []
    seen = zip(packed.segments, queries, _seen(key, packed.segments), _seen(value, packed.segments), strict=True)
    for segment, own, keys, values in seen:
        is_windowed = sliding_window is not None and keys.shape[2] > sliding_window
        is_plain = segment.prefix_length == 0 and not is_windowed
        outputs.append(
            scaled_dot_product_attention(
                own, keys, values, scale=scaling, is_causal=is_plain, enable_gqa=True,
                attn_mask=None if is_plain else packed.masks.window(segment, own, sliding_window if is_windowed else None),
            )
        )  # fmt: skip
    return torch.cat(outputs, 2).transpose(1, 2), None


def backbone_ends(model: PreTrainedModel, packed: PackedRow) -> torch.Tensor:
    """(R, W) final hidden states at the ends of the responses."""
    backbone: Any = model.model
    hidden = backbone.embed_tokens(packed.input_ids)  # (1, T, W)
    rotary = backbone.rotary_emb(hidden, packed.position_ids)  # cos and sin, (1, T, D) each
    *layers, last = backbone.layers[: model.config.num_hidden_layers]
    for layer in layers:
        hidden = layer(
            hidden, attention_mask=None, position_ids=packed.position_ids, position_embeddings=rotary,
            past_key_values=None, use_cache=False, packed=packed,
        )  # fmt: skip
    hidden = _last_layer(last, hidden, rotary, packed)  # (1, R, W)
    result: torch.Tensor = backbone.norm(hidden)[0]
    return result


def _last_layer(layer: Any, hidden: torch.Tensor, rotary: Any, packed: PackedRow) -> torch.Tensor:
    """(1, R, W): what the layer gives at the ends of the responses; keys and values come from everywhere."""
    attention, normed = layer.self_attn, layer.input_layernorm(hidden)  # (1, T, W)
    at_ends = normed[:, packed.ends]  # (1, R, W)
    cos, sin = (part.unsqueeze(1) for part in rotary)  # (1, 1, T, D)
    query = _heads(attention.q_proj(at_ends), attention, "q_norm")  # (1, H, R, D)
    key = _heads(attention.k_proj(normed), attention, "k_norm")
    value = _heads(attention.v_proj(normed), attention, None)
    query = _rotated(query, cos[:, :, packed.ends], sin[:, :, packed.ends])
    key = _rotated(key, cos, sin)
    query, key, value = _one_dtype(query, key, value)
    sliding_window = getattr(attention, "sliding_window", getattr(attention.config, "sliding_window", None))
    if _has_varlen(query):
        mixed = _varlen_attention(query, key, value, packed.varlen_ends, attention.scaling, sliding_window)
    else:
        outputs, all_keys, all_values = [], _seen(key, packed.segments), _seen(value, packed.segments)
        for own, index in zip(query.split(1, 2), packed.end_segments, strict=True):
            keys, values = all_keys[index], all_values[index]
            if sliding_window is not None:
                keys, values = keys[:, :, -sliding_window:], values[:, :, -sliding_window:]
            outputs.append(
                scaled_dot_product_attention(own, keys, values, scale=attention.scaling, enable_gqa=True)
            )  # fmt: skip
        mixed = torch.cat(outputs, 2).transpose(1, 2)  # (1, R, H, D)
    residual = hidden[:, packed.ends] + attention.o_proj(mixed.flatten(2))
    result: torch.Tensor = residual + layer.mlp(layer.post_attention_layernorm(residual))
    return result


def _heads(projected: torch.Tensor, attention: Any, norm: str | None) -> torch.Tensor:
    """(1, T, H * D) to (1, H, T, D), normalised by head where the family does so."""
    split = projected.view(*projected.shape[:2], -1, attention.head_dim)  # (1, T, H, D)
    if norm is not None and hasattr(attention, norm):
        split = getattr(attention, norm)(split)
    return split.transpose(1, 2)


def _rotated(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding (Su et al. 2021) in the half-split form of transformers."""
    first, second = heads.chunk(2, -1)
    return heads * cos + torch.cat([-second, first], -1) * sin


def _seen(states: torch.Tensor, segments: Sequence[Segment]) -> list[torch.Tensor]:
    """(1, H, prefix_length + length, D) keys or values that each segment reads.

    The row is split once, and each prompt's part of it cut once: every further slice of the whole row would cost a gradient as
    large as the row.
    """
    seen: list[torch.Tensor] = []
    first = prefix = states
    for segment, own in zip(segments, states.split([segment.length for segment in segments], 2), strict=True):
        if segment.prefix_length == 0:
            first = own
            seen.append(own)
            continue
        if seen[-1] is first:  # the second of its group; the others begin with the same
            prefix = first.narrow(2, 0, segment.prefix_length)
        seen.append(torch.cat([prefix, own], 2))
    return seen


def _one_dtype(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Under autocast, norms and rotations give float32 where the values are already in the lower precision."""
    device = query.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else value.dtype
    return query.to(dtype), key.to(dtype), value.to(dtype)


def _has_varlen(query: torch.Tensor) -> bool:
    """Whether the flash kernel takes these queries; everything else goes through one SDPA a segment."""
    is_known_size = query.shape[-1] % 8 == 0 and query.shape[-1] <= 256
    return query.is_cuda and query.dtype in VARLEN_DTYPES and is_known_size and _has_flash(query.device)


@cache
def _has_flash(device: torch.device) -> bool:
    """Ampere or newer."""
    return torch.cuda.get_device_capability(device) >= (8, 0)


def _varlen_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, varlen: Varlen, scaling: float,
    sliding_window: int | None,
) -> torch.Tensor:  # fmt: skip
    """(1, S, H, D) from (1, H, S, D) queries: causal, aligned at the end of each sequence."""
    from torch.nn.attention.varlen import varlen_attn

    mixed = varlen_attn(
        query[0].transpose(0, 1), key[0].transpose(0, 1)[varlen.key_index], value[0].transpose(0, 1)[varlen.key_index],
        varlen.query_bounds, varlen.key_bounds, varlen.longest_query, varlen.longest_key,
        scale=scaling, window_size=(-1 if sliding_window is None else sliding_window - 1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )  # fmt: skip
    assert isinstance(mixed, torch.Tensor)
    return mixed[None]


ALL_ATTENTION_FUNCTIONS.register(ATTENTION, shared_prefix_attention)
