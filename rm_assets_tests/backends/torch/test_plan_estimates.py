"""The planner's formulas against real models: parameters counted, saved activations measured."""

import weakref
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
    RobertaConfig,
)

from rm_assets.backends.torch.lora import Adapter
from rm_assets.backends.torch.sampler import CACHE_POSITIONS_PER_BUDGET
from rm_assets.core.planning.arithmetic import training_memory
from rm_assets.core.planning.model_shape import num_adapted_parameters, shape_from_config
from rm_assets.core.planning.stage_plans import CACHED_TOKENS_PER_BUDGET
from rm_assets.core.recipe import LoraSettings

torch.set_num_threads(1)
SIZES: dict[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 3, "intermediate_size": 160, "num_attention_heads": 4, "vocab_size": 300,
    "max_position_embeddings": 96, "num_labels": 1, "pad_token_id": 0,
}  # fmt: skip
GROUPED = {**SIZES, "num_key_value_heads": 2}
CONFIGS: dict[str, PretrainedConfig] = {
    "qwen3": Qwen3Config(**GROUPED, head_dim=24, tie_word_embeddings=True),
    "qwen3 untied with biases": Qwen3Config(
        **GROUPED, head_dim=24, tie_word_embeddings=False, attention_bias=True
    ),
    "qwen2": Qwen2Config(**GROUPED),
    "llama as SmolLM2": LlamaConfig(**GROUPED, tie_word_embeddings=True),
    "llama untied with biases": LlamaConfig(**GROUPED, tie_word_embeddings=False, attention_bias=True, mlp_bias=True),
    "mistral": MistralConfig(**GROUPED),
    "mistral with another head_dim": MistralConfig(**GROUPED, head_dim=32),
    "bert": BertConfig(**SIZES),
    "roberta": RobertaConfig(**SIZES, type_vocab_size=1),
    "distilbert": DistilBertConfig(
        dim=64, n_layers=3, hidden_dim=160, n_heads=4, vocab_size=300, max_position_embeddings=96, num_labels=1
    ),
}  # fmt: skip


def num_parameters(model: Any) -> int:
    return sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_by_formula_are_those_of_the_real_classifier(name: str) -> None:
    config = CONFIGS[name]
    model = AutoModelForSequenceClassification.from_config(config)
    assert shape_from_config(config.to_dict()).num_parameters == num_parameters(model)


@pytest.mark.parametrize("name", [name for name in CONFIGS if "bert" not in name])
def test_policy_parameters_by_formula_are_those_of_the_real_language_model(name: str) -> None:
    config = CONFIGS[name]
    model = AutoModelForCausalLM.from_config(config)
    assert shape_from_config(config.to_dict()).num_policy_parameters == num_parameters(model)


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("qwen3", None), ("llama as SmolLM2", None), ("bert", None), ("distilbert", None),
        ("qwen3", ["q_proj", "self_attn.v_proj"]), ("bert", ["query", "output.dense"]), ("roberta", ["query"]),
        ("distilbert", ["q_lin", "pre_classifier"]),
    ],
)  # fmt: skip
def test_adapted_parameters_by_formula_are_those_that_peft_trains(name: str, targets: list[str] | None) -> None:
    config = CONFIGS[name]
    model = AutoModelForSequenceClassification.from_config(config)
    Adapter(model, LoraSettings(rank=4, target_modules=targets), seed=0, dtype="float32")
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert num_adapted_parameters(shape_from_config(config.to_dict()), rank=4, target_modules=targets) == trained


def test_the_cache_is_as_large_as_the_samplers() -> None:
    assert CACHED_TOKENS_PER_BUDGET == CACHE_POSITIONS_PER_BUDGET


class Saved:
    """Bytes of distinct tensors kept for the backward pass, weights apart, and the most there were at once."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
        self._holders: dict[int, int] = {}
        self._bytes: dict[int, int] = {}
        self.most = 0

    def pack(self, tensor: torch.Tensor) -> "Kept":
        kept = Kept(tensor)
        storage = tensor.untyped_storage()
        where = storage.data_ptr()
        if where not in self._weights:
            self._holders[where] = self._holders.get(where, 0) + 1
            self._bytes[where] = storage.nbytes()
            self.most = max(self.most, sum(self._bytes.values()))
            weakref.finalize(kept, self._release, where)
        return kept

    def _release(self, where: int) -> None:
        self._holders[where] -= 1
        if not self._holders[where]:
            del self._holders[where], self._bytes[where]


class Kept:
    """A saved tensor whose end can be seen."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


def most_saved_bytes(config: PretrainedConfig, *, dtype: torch.dtype, checkpointing: bool, padded: bool) -> int:
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="sdpa")
    model.config.use_cache = False
    if checkpointing:
        # The reentrant form saves its inputs where the hooks below see them; both forms keep the same tensors.
        model.activation_checkpointing_enable({"use_reentrant": True})
    model.train()
    ids = torch.randint(5, 300, (4, 256))  # (R, T)
    mask = torch.ones_like(ids)
    if padded:
        ids[0, 200:], mask[0, 200:] = 0, 0
    saved = Saved(model)
    with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda kept: kept.tensor):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            rewards = model(input_ids=ids, attention_mask=mask).logits
        rewards.float().sum().backward()
    return saved.most


@pytest.mark.parametrize("padded", [False, True], ids=["unpadded", "padded"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["qwen3", "llama", "distilbert"])
def test_estimated_activations_are_within_half_of_what_is_saved(
    kind: str, dtype: torch.dtype, checkpointing: bool, padded: bool
) -> None:
    sizes = {
        **GROUPED, "hidden_size": 128, "num_hidden_layers": 4, "intermediate_size": 384, "max_position_embeddings": 256,
    }  # fmt: skip
    config = {
        "qwen3": Qwen3Config(**sizes, head_dim=32),
        "llama": LlamaConfig(**sizes),
        "distilbert": DistilBertConfig(
            dim=128, n_layers=4, hidden_dim=384, n_heads=4, vocab_size=300, max_position_embeddings=256,
            num_labels=1, dropout=0.0, attention_dropout=0.0, seq_classif_dropout=0.0,
        ),
    }[kind]  # fmt: skip
    measured = most_saved_bytes(config, dtype=dtype, checkpointing=checkpointing, padded=padded)
    shape = shape_from_config(config.to_dict())
    memory = training_memory(
        shape, tokens_per_forward=4 * 256, activation_bytes=dtype.itemsize, gradient_checkpointing=checkpointing
    )
    estimated = memory.activations
    if dtype == torch.bfloat16:
        # Autocast's copies of the weights are saved beside the activations; the estimate counts them as weights.
        estimated += memory.weights - 4 * shape.num_parameters
    assert measured / 1.5 < estimated < measured * 1.5
