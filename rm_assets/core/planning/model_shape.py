"""How large a model is, from its config.json alone: parameters by formula, widths for estimates of work and memory.

The count is that of the reward model: a sequence classifier with one output, so without the head over the vocabulary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rm_assets.core.errors import ModelError

Family = Literal["llama", "qwen3", "bert"]
FAMILIES: dict[str, Family] = {
    "llama": "llama", "mistral": "llama", "qwen2": "llama", "qwen3": "qwen3",
    "bert": "bert", "distilbert": "bert", "roberta": "bert",
}  # fmt: skip
OTHER_NAMES = {
    "dim": "hidden_size", "hidden_dim": "intermediate_size", "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
}  # fmt: skip


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a transformer. `num_parameters` counts the reward model: backbone and score head, which `num_head_parameters` counts alone."""

    num_parameters: int
    hidden_size: int
    num_layers: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    family: Family = "llama"
    tied_embeddings: bool = True
    num_head_parameters: int = 0

    @property
    def attention_size(self) -> int:
        """Width of all queries together."""
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Width of all keys together, and of all values."""
        return self.num_kv_heads * self.head_dim

    @property
    def num_non_embedding_parameters(self) -> int:
        """Parameters that multiply every token: without the table of token embeddings, which is only looked up."""
        return self.num_parameters - self.vocab_size * self.hidden_size

    @property
    def num_policy_parameters(self) -> int:
        """Parameters of the causal language model of this shape: no score head, a head over the vocabulary unless tied."""
        own_head = 0 if self.tied_embeddings else self.vocab_size * self.hidden_size
        return self.num_parameters - self.hidden_size + own_head


def shape_from_config(config: Mapping[str, Any]) -> ModelShape:
    """The shape that a transformers config.json describes.

    Raises: ModelError MODEL_002 for a kind of model whose parameters no formula here counts, or a config without sizes.
    """
    kind = str(config.get("model_type"))
    if kind not in FAMILIES:
        raise ModelError(
            "MODEL_002",
            f"the shape of a model of type '{kind}' is not known",
            why=f"parameters are counted by formula for {', '.join(FAMILIES)}",
            fix="plan with the config.json of a model of one of these types and about the same size",
        )
    sizes = {OTHER_NAMES.get(key, key): value for key, value in config.items()}
    try:
        return _bert(sizes, kind) if FAMILIES[kind] == "bert" else _decoder(sizes, kind)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ModelError(
            "MODEL_002",
            f"the config.json of a {kind} model has no sound sizes",
            why=f"{type(error).__name__}: {error}",
            fix="give the config.json that lies beside the model's weights",
        ) from None


def num_adapted_parameters(shape: ModelShape, *, rank: int, target_modules: Sequence[str] | None) -> int:
    """What low-rank adaptation trains: rank x (inputs + outputs) of each adapted linear layer, and the score head.

    As peft finds them: a target is a layer's name or its end; without targets all linear layers are adapted.
    """

    def is_adapted(names: tuple[str, ...]) -> bool:
        return target_modules is None or any(f".{name}".endswith(f".{t}") for name in names for t in target_modules)

    adapted = [sizes for names, *sizes in _linear_layers(shape) if is_adapted(names)]
    return shape.num_head_parameters + sum(number * rank * (ins + outs) for number, ins, outs in adapted)


def _linear_layers(shape: ModelShape) -> list[tuple[tuple[str, ...], int, int, int]]:
    """The linear layers of one kind: the names they go by, their number, inputs, outputs."""
    layers, hidden, inner = shape.num_layers, shape.hidden_size, shape.intermediate_size
    queries, keys = shape.attention_size, shape.kv_size
    if shape.family == "bert":
        return [
            (("attention.self.query", "attention.q_lin"), layers, hidden, hidden),
            (("attention.self.key", "attention.k_lin"), layers, hidden, hidden),
            (("attention.self.value", "attention.v_lin"), layers, hidden, hidden),
            (("attention.output.dense", "attention.out_lin"), layers, hidden, hidden),
            (("intermediate.dense", "ffn.lin1"), layers, hidden, inner),
            (("output.dense", "ffn.lin2"), layers, inner, hidden),
            (("pooler.dense", "classifier.dense", "pre_classifier"), 1, hidden, hidden),
        ]
    return [
        (("self_attn.q_proj",), layers, hidden, queries),
        (("self_attn.k_proj",), layers, hidden, keys),
        (("self_attn.v_proj",), layers, hidden, keys),
        (("self_attn.o_proj",), layers, queries, hidden),
        (("mlp.gate_proj",), layers, hidden, inner),
        (("mlp.up_proj",), layers, hidden, inner),
        (("mlp.down_proj",), layers, inner, hidden),
    ]


def _decoder(sizes: Mapping[str, Any], kind: str) -> ModelShape:
    """Embedding, then per layer queries, keys, values, output, a gated MLP and two norms; a last norm, a score head."""
    hidden, layers, inner, heads, vocabulary = _widths(sizes)
    kv_heads = int(sizes.get("num_key_value_heads") or heads)
    # Qwen3's default is a number of its own; the others divide the hidden size.
    head_dim = int(sizes.get("head_dim") or (128 if kind == "qwen3" else hidden // heads))
    attention, kv = heads * head_dim, kv_heads * head_dim
    layer = 2 * hidden * attention + 2 * hidden * kv + 3 * hidden * inner + 2 * hidden
    if kind == "qwen3":
        layer += 2 * head_dim
    if kind == "qwen2":
        layer += attention + 2 * kv
    elif kind != "mistral" and sizes.get("attention_bias"):
        layer += attention + 2 * kv + hidden
    if kind == "llama" and sizes.get("mlp_bias"):
        layer += 2 * inner + hidden
    return ModelShape(
        num_parameters=vocabulary * hidden + layers * layer + 2 * hidden,
        hidden_size=hidden, num_layers=layers, intermediate_size=inner, num_heads=heads, num_kv_heads=kv_heads,
        head_dim=head_dim, vocab_size=vocabulary, family=FAMILIES[kind],
        tied_embeddings=bool(sizes.get("tie_word_embeddings", False)), num_head_parameters=hidden,
    )  # fmt: skip


def _bert(sizes: Mapping[str, Any], kind: str) -> ModelShape:
    """Embeddings of token, position and type, layers with biases and layer norms, a dense layer before the score."""
    hidden, layers, inner, heads, vocabulary = _widths(sizes)
    num_types = 0 if kind == "distilbert" else int(sizes.get("type_vocab_size", 2))
    positions = int(sizes.get("max_position_embeddings", 512))
    embeddings = (vocabulary + positions + num_types + 2) * hidden
    layer = 4 * (hidden * hidden + hidden) + 2 * hidden * inner + inner + hidden + 4 * hidden
    dense, score = hidden * hidden + hidden, hidden + 1
    return ModelShape(
        num_parameters=embeddings + layers * layer + dense + score,
        hidden_size=hidden, num_layers=layers, intermediate_size=inner, num_heads=heads, num_kv_heads=heads,
        head_dim=hidden // heads, vocab_size=vocabulary, family="bert",
        num_head_parameters=score if kind == "bert" else dense + score,  # BERT's dense layer is its own pooler
    )  # fmt: skip


def _widths(sizes: Mapping[str, Any]) -> tuple[int, int, int, int, int]:
    names = ("hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads", "vocab_size")
    hidden, layers, inner, heads, vocabulary = (int(sizes[name]) for name in names)
    if min(hidden, layers, inner, heads, vocabulary) <= 0:
        raise ValueError("a size is not above 0")
    return hidden, layers, inner, heads, vocabulary


def _config(kind: str, hidden: int, layers: int, inner: int, heads: int, kv: int, dim: int, vocab: int, tied: bool) -> dict[str, Any]:  # fmt: skip
    return {
        "model_type": kind, "hidden_size": hidden, "num_hidden_layers": layers, "intermediate_size": inner,
        "num_attention_heads": heads, "num_key_value_heads": kv, "head_dim": dim, "vocab_size": vocab,
        "tie_word_embeddings": tied,
    }  # fmt: skip


# Sizes from the config.json of each model on the Hub, by the ids it goes under there. The fine-tunes of the shipped
# recipes have the sizes of the model that their name says they were made from.
_KNOWN: dict[tuple[str, ...], dict[str, Any]] = {
    ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B-Base", "Skywork/Skywork-Reward-V2-Qwen3-0.6B"): _config(
        "qwen3", 1024, 28, 3072, 16, 8, 128, 151_936, True
    ),
    ("Qwen/Qwen3-1.7B", "Qwen/Qwen3-1.7B-Base"): _config("qwen3", 2048, 28, 6144, 16, 8, 128, 151_936, True),
    ("Qwen/Qwen3-4B", "Qwen/Qwen3-4B-Base", "Hahmdong/RMOOD-qwen3-4b-alpacafarm-sft"): _config(
        "qwen3", 2560, 36, 9728, 32, 8, 128, 151_936, True
    ),
    ("Qwen/Qwen3-8B", "Qwen/Qwen3-8B-Base"): _config("qwen3", 4096, 36, 12288, 32, 8, 128, 151_936, False),
    ("HuggingFaceTB/SmolLM2-135M", "HuggingFaceTB/SmolLM2-135M-Instruct"): _config(
        "llama", 576, 30, 1536, 9, 3, 64, 49_152, True
    ),
    ("HuggingFaceTB/SmolLM2-360M", "HuggingFaceTB/SmolLM2-360M-Instruct"): _config(
        "llama", 960, 32, 2560, 15, 5, 64, 49_152, True
    ),
    (
        "meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B-Instruct", "Skywork/Skywork-Reward-V2-Llama-3.1-8B",
    ): _config(
        "llama", 4096, 32, 14336, 32, 8, 128, 128_256, False
    ),
    ("meta-llama/Llama-3.2-1B", "meta-llama/Llama-3.2-1B-Instruct"): _config(
        "llama", 2048, 16, 8192, 32, 8, 64, 128_256, True
    ),
    ("distilbert/distilbert-base-uncased", "distilbert-base-uncased"): {
        "model_type": "distilbert", "dim": 768, "n_layers": 6, "hidden_dim": 3072, "n_heads": 12, "vocab_size": 30_522,
        "max_position_embeddings": 512,
    },
}  # fmt: skip
KNOWN_CONFIGS: dict[str, dict[str, Any]] = {hub_id: config for ids, config in _KNOWN.items() for hub_id in ids}
