"""The shared-prefix forward against the padded float32 reference: rewards, losses and every gradient."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForSequenceClassification,
    LlamaConfig,
    MistralConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from rm_assets.backends.prompt_groups import common_prefix
from rm_assets.backends.rendering import Encoded
from rm_assets.backends.torch.reward_forward import RewardForward, check_rope
from rm_assets.backends.torch.shared_prefix import MaskCache, Segment, pack, why_not_shared
from rm_assets.core.errors import ModelError
from rm_assets_tests.fakes import in_float64

torch.set_num_threads(1)
PAD, VOCABULARY = 0, 40
LLAMA3_ROPE = {
    "rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
FAMILIES: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "qwen3": (Qwen3Config, {}),
    "qwen3-sliding": (Qwen3Config, {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),
    "qwen2": (Qwen2Config, {}),
    "llama": (LlamaConfig, {}),
    "llama-tied": (LlamaConfig, {"tie_word_embeddings": True, "attention_bias": True}),
    "llama-3.1-rope": (LlamaConfig, {"rope_parameters": LLAMA3_ROPE}),
    "llama-linear-rope": (LlamaConfig, {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}),
    "mistral": (MistralConfig, {"sliding_window": None}),
    "mistral-sliding": (MistralConfig, {"sliding_window": 6}),
}
Rows = list[list[int]]


def build(family: str, *, attention: str = "eager", **changes: Any) -> PreTrainedModel:
    config_class, options = FAMILIES[family]
    values = {
        "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 3, "intermediate_size": 48,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256,
        "pad_token_id": PAD, "num_labels": 1, "initializer_range": 0.1, **options, **changes,
    }  # fmt: skip
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(
        config_class(**values), attn_implementation=attention, dtype=torch.float32
    )
    return model.train()


def padded_rewards(model: Any, rows: Rows, side: str) -> torch.Tensor:
    width = max(map(len, rows))
    blanks = [[PAD] * (width - len(row)) for row in rows]
    ids = [blank + row if side == "left" else row + blank for blank, row in zip(blanks, rows, strict=True)]
    mask = [[int(token != PAD) for token in row] for row in ids]
    # Without positions, left padding would shift them, which costs 1e-7: rotary tables are float32 in every dtype.
    positions = (torch.tensor(mask).cumsum(1) - 1).clamp(min=0)
    logits = model(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask), position_ids=positions).logits
    rewards: torch.Tensor = logits[:, 0]
    return rewards


def gradients(model: PreTrainedModel, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def loss_of(rewards: torch.Tensor, groups: list[Rows]) -> torch.Tensor:
    """Bradley-Terry over all pairs of each group, in the order of its rows."""
    losses, start = [], 0
    for rows in groups:
        of_group = rewards[start : start + len(rows)]
        start += len(rows)
        losses += [
            -torch.nn.functional.logsigmoid(of_group[i] - of_group[j])
            for i in range(len(rows))
            for j in range(i + 1, len(rows))
        ]
        losses.append(0.1 * of_group.sum())  # a group of one has no pair
    return torch.stack(losses).mean()


def assert_equal_to_reference(
    family: str, groups: list[Rows], side: str, dtype: torch.dtype = torch.float32, **changes: Any
) -> None:
    # In float64 the reference takes SDPA as well: the eager attention of transformers has its softmax in float32.
    tolerance, attention = (1e-5, "eager") if dtype == torch.float32 else (1e-9, "sdpa")
    reference, model = build(family, attention=attention, **changes), build(family, attention="sdpa", **changes)
    if dtype == torch.float64:
        reference, model = in_float64(reference), in_float64(model)
    rows = [row for group in groups for row in group]
    expected_rewards = padded_rewards(reference, rows, side)
    expected_loss = loss_of(expected_rewards, groups)
    expected = gradients(reference, expected_loss)
    forward = RewardForward(model, PAD)
    assert forward.shares_prefix
    rewards = forward.rewards([[Encoded(row) for row in group] for group in groups])
    loss = loss_of(rewards, groups)
    found = gradients(model, loss)
    # What is zero but for rounding (the loss of a reward near 0, gradients of attention over equal tokens) has no
    # relative error of its own, hence the floors of some units in the last place.
    ulp = torch.finfo(dtype).eps
    assert rewards.tolist() == pytest.approx(expected_rewards.tolist(), abs=tolerance)
    assert loss.item() == pytest.approx(expected_loss.item(), rel=tolerance, abs=32 * ulp)
    assert found.keys() == expected.keys()
    scale = max(float(gradient.norm()) for gradient in expected.values())
    for name, gradient in expected.items():
        error = float((found[name] - gradient).norm())
        assert error <= max(tolerance * float(gradient.norm()), 32 * ulp * scale), name


tokens = st.lists(st.integers(1, VOCABULARY - 1), min_size=1, max_size=12)


@st.composite
def groups_of_rows(draw: st.DrawFn) -> list[Rows]:
    groups = []
    for _ in range(draw(st.integers(1, 3))):
        prompt = draw(st.lists(st.integers(1, VOCABULARY - 1), max_size=14))
        groups.append([prompt + draw(tokens) for _ in range(draw(st.integers(1, 5)))])
    return groups


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=12, deadline=None)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@given(groups=groups_of_rows(), side=st.sampled_from(["left", "right"]))
def test_rewards_loss_and_gradients_equal_the_padded_reference(
    family: str, dtype: torch.dtype, groups: list[Rows], side: str
) -> None:
    # With a window, left padding moves it in transformers too; both sides hold for full attention.
    assert_equal_to_reference(family, groups, "right" if "sliding" in family else side, dtype)


A, B = [5, 6, 7, 8], [9, 10, 11]


@pytest.mark.parametrize("family", ["qwen3", "llama", "mistral-sliding"])
@pytest.mark.parametrize(
    "rows",
    [
        [A, B],  # nothing shared
        [[*A, 1], [*A, 2]],  # everything but the last token
        [A, A + B],  # one is a prefix of the other
        [A + B, A + B],  # the same twice
        [[3], [3]],  # one token each
        [A + B, [*A, 12], A, B + A, A + B + A],  # a short prefix of many
        [A * 12 + B, A * 12 + [4], A * 12],  # a long prompt
    ],
)
def test_shared_prefixes_of_every_length_equal_the_padded_reference(family: str, rows: Rows) -> None:
    assert_equal_to_reference(family, [rows, [B + A]], "right")


def test_recomputed_activations_give_the_same_gradients() -> None:
    rows = [Encoded(A * 3 + B), Encoded(A * 3 + [4])]
    found = []
    for recompute in (False, True):
        model = build("qwen3")
        if recompute:
            model.activation_checkpointing_enable()  # type: ignore[no-untyped-call]
        rewards = RewardForward(model, PAD).rewards([rows])
        found.append(gradients(model, (rewards[0] - rewards[1]) ** 2))
    for name in found[0]:
        assert torch.equal(found[0][name], found[1][name])


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([[1, 2, 3], [1, 2, 4]], 2), ([[1, 2], [1, 2, 3]], 1), ([[1], [1]], 0), ([[1, 2, 3]], 0), ([[1, 2], [3, 4]], 0),
        ([[1, 2, 3, 4], [1, 2, 3, 5], [1, 2, 9]], 2),
    ],
)  # fmt: skip
def test_the_prefix_leaves_each_row_a_token(rows: Rows, expected: int) -> None:
    assert common_prefix(rows) == expected


def test_a_packed_row_holds_each_token_once_and_the_longest_response_first() -> None:
    packed = pack([[[1, 2, 3], [1, 2, 4, 5]], [[7]]], MaskCache())
    assert packed.input_ids.tolist() == [[1, 2, 4, 5, 3, 7]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 3, 2, 0]]
    assert packed.ends.tolist() == [4, 3, 5]  # in the order the rows were given
    assert packed.segments == (Segment(0, 4, 0, 0), Segment(4, 1, 0, 2), Segment(5, 1, 5, 0))


def test_masks_let_a_response_see_the_prompt_and_its_own_past() -> None:
    seen = MaskCache().window(Segment(4, 2, 0, 3), torch.zeros(1), None) == 0
    assert seen.tolist() == [[True, True, True, True, False], [True, True, True, True, True]]
    windowed = MaskCache().window(Segment(4, 2, 0, 3), torch.zeros(1), 2) == 0
    assert windowed.tolist() == [[False, False, True, True, False], [False, False, False, True, True]]


def varlen_reference(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, query_bounds: torch.Tensor, key_bounds: torch.Tensor,
    longest_query: int, longest_key: int, *, scale: float, window_size: tuple[int, int], enable_gqa: bool,
) -> torch.Tensor:  # fmt: skip
    """What torch.nn.attention.varlen promises, sequence by sequence: causal from the right end, window to the left."""
    outputs = []
    for index in range(len(query_bounds) - 1):
        q = query[query_bounds[index] : query_bounds[index + 1]].transpose(0, 1)
        k, v = (part[key_bounds[index] : key_bounds[index + 1]].transpose(0, 1) for part in (key, value))
        assert q.shape[1] <= longest_query and k.shape[1] <= longest_key and window_size[1] == 0
        place = torch.arange(k.shape[1]) - (k.shape[1] - q.shape[1])
        distance = torch.arange(q.shape[1])[:, None] - place[None]
        mask = (distance >= 0) & ((distance <= window_size[0]) if window_size[0] >= 0 else True)
        outputs.append(
            torch.nn.functional.scaled_dot_product_attention(
                q[None], k[None], v[None], attn_mask=mask, scale=scale, enable_gqa=enable_gqa
            )[0].transpose(0, 1)
        )
    return torch.cat(outputs)


@pytest.mark.parametrize("family", ["qwen3", "llama", "mistral-sliding"])
def test_the_segments_for_the_gpu_kernel_describe_the_same_attention(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel itself needs a GPU; here its documented meaning stands in for it."""
    import torch.nn.attention.varlen as kernel

    groups = [[A * 3 + B, A * 3 + [4], A * 2], [B], [A, B]]
    encoded = [[Encoded(row) for row in group] for group in groups]
    expected = RewardForward(build(family), PAD).rewards(encoded)
    monkeypatch.setattr("rm_assets.backends.torch.shared_prefix._has_varlen", lambda query: True)
    monkeypatch.setattr(kernel, "varlen_attn", varlen_reference)
    found = RewardForward(build(family), PAD).rewards(encoded)
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_other_families_are_computed_with_padding() -> None:
    from transformers import GemmaConfig

    config = GemmaConfig(
        vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=1, intermediate_size=16, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, pad_token_id=PAD, num_labels=1,
    )  # fmt: skip
    model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32).eval()
    assert "GemmaForSequenceClassification" in str(why_not_shared(model))
    forward = RewardForward(model, PAD)
    together = forward.rewards([[Encoded(A), Encoded(A + B)], [Encoded(B)]])
    alone = [forward.rewards([[Encoded(row)]]).item() for row in (A, A + B, B)]
    assert together.tolist() == pytest.approx(alone, abs=1e-6)


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_rope_that_follows_the_batch_is_refused_beyond_the_original_context(kind: str) -> None:
    rope: dict[str, Any] = {"rope_type": kind, "rope_theta": 1e4, "factor": 2.0}
    if kind == "longrope":
        rope |= {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "original_max_position_embeddings": 64}
    config = build("llama", rope_parameters=rope, max_position_embeddings=64).config
    check_rope(config, 64)
    with pytest.raises(ModelError, match=f"MODEL_007.*{kind}"):
        check_rope(config, 65)


@pytest.mark.parametrize("budget", [1, 20, 40, 1000])
def test_micro_batches_hold_every_group_once_within_the_budget(budget: int) -> None:
    forward = RewardForward(build("llama"), PAD)
    groups = [[Encoded(A * n + B), Encoded(A * n + [4])] for n in (1, 5, 2, 8, 3)]
    batches = list(forward.micro_batches(groups, budget))
    assert sorted(index for batch in batches for index in batch) == [0, 1, 2, 3, 4]
    for batch in batches:
        rows = forward.prepare([groups[index] for index in batch])
        assert len(batch) == 1 or rows.num_tokens <= budget
        assert rows.num_tokens == sum(forward.num_tokens(groups[index]) for index in batch)
