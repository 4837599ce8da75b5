"""Tiny real checkpoints on disk, of a few thousand parameters, and a reporter that remembers what it is told."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    DistilBertConfig,
    DistilBertForMaskedLM,
    DistilBertTokenizer,
    GenerationConfig,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from rm_assets.core.records import Pair, conversation

TEMPLATE = (
    "{%- for m in messages -%}{{- '<|' + m['role'] + '|>' + m['content'] + '<|end|>' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)
BOS_TEMPLATE = "{{- bos_token -}}" + TEMPLATE
SPECIALS = ["<|pad|>", "<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|spare|>"]
TEXTS = [
    "one apple and two pears please", "three plums make a fine pie", "the total of the order is seven",
    "good answers are short and right", "bad answers ramble on and on", "what is the sum of four and five",
]  # fmt: skip


CONFIGS: dict[str, Any] = {"qwen3": Qwen3Config, "llama": LlamaConfig}


class ListReporter:
    """Keeps everything that a backend reports."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.begun: list[tuple[int, str]] = []
        self.steps: list[tuple[int, dict[str, float]]] = []
        self.progresses: list[tuple[int, int, str]] = []

    def log(self, message: str) -> None:
        self.lines.append(message)

    def progress(self, done: int, total: int, unit: str) -> None:
        self.progresses.append((done, total, unit))

    def training_begins(self, num_steps: int, device: str) -> None:
        self.begun.append((num_steps, device))

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self.steps.append((step, dict(values)))


class StopAfter(ListReporter):
    """Ends a training in the middle."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def metrics(self, step: int, values: Any) -> None:
        if step > self.step:
            raise KeyboardInterrupt
        super().metrics(step, values)


def build_tokenizer(
    template: str | None = TEMPLATE, *, pad: str | None = "<|pad|>", adds_bos: bool = False
) -> PreTrainedTokenizerFast:
    """A byte-level BPE of 300 tokens. With `adds_bos` it writes a BOS token wherever special tokens are asked for."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(TEXTS, trainer)
    if adds_bos:
        bpe.post_processor = processors.TemplateProcessing(single="<|bos|> $A", special_tokens=[("<|bos|>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token=pad, eos_token="<|end|>", bos_token="<|bos|>", model_max_length=512
    )
    if template is not None:
        tokenizer.chat_template = template
    return tokenizer


def _tokenizer_of(kind: str) -> PreTrainedTokenizerFast:
    return build_tokenizer(BOS_TEMPLATE, adds_bos=True) if kind == "llama" else build_tokenizer()


def save_causal(
    folder: Path, kind: str = "qwen3", *, tokenizer: PreTrainedTokenizerFast | None = None, seed: int = 0, **config: Any
) -> Path:
    """A randomly initialised causal LM: "qwen3" or "llama"."""
    tokenizer = tokenizer or _tokenizer_of(kind)
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 512,
        "tie_word_embeddings": True, "initializer_range": 0.3, "bos_token_id": 1, "eos_token_id": 2,
        "pad_token_id": tokenizer.pad_token_id, **config,
    }  # fmt: skip
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(CONFIGS[kind](**settings))
    model.generation_config = GenerationConfig(eos_token_id=2, pad_token_id=tokenizer.pad_token_id)
    return _save(model, tokenizer, folder)


def save_classifier(
    folder: Path,
    kind: str = "qwen3",
    *,
    tokenizer: PreTrainedTokenizerFast | None = None,
    num_labels: int = 1,
    seed: int = 0,
    **config: Any,
) -> Path:
    """A randomly initialised reward model: "qwen3" or "llama"."""
    tokenizer = tokenizer or _tokenizer_of(kind)
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 512,
        "initializer_range": 0.3, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": tokenizer.pad_token_id,
        "num_labels": num_labels, "problem_type": "regression", **config,
    }  # fmt: skip
    torch.manual_seed(seed)
    return _save(AutoModelForSequenceClassification.from_config(CONFIGS[kind](**settings)), tokenizer, folder)


def save_encoder(folder: Path, *, classifier: bool = False, seed: int = 0) -> Path:
    """A randomly initialised DistilBERT with a WordPiece vocabulary: a masked LM, or a reward model."""
    words = sorted({word for text in TEXTS for word in text.split()})
    letters = list("abcdefghijklmnopqrstuvwxyz")
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = list(dict.fromkeys([*specials, *words, *letters, *("##" + letter for letter in letters)]))
    tokenizer = DistilBertTokenizer(vocab={word: index for index, word in enumerate(vocabulary)}, model_max_length=64)
    settings: dict[str, Any] = {
        "vocab_size": len(vocabulary), "dim": 16, "hidden_dim": 32, "n_layers": 2, "n_heads": 2, "pad_token_id": 0,
        "max_position_embeddings": 64, "initializer_range": 0.3, "num_labels": 1, "problem_type": "regression",
    }  # fmt: skip
    config = DistilBertConfig(**settings)
    torch.manual_seed(seed)
    model: Any = AutoModelForSequenceClassification.from_config(config) if classifier else DistilBertForMaskedLM(config)
    return _save(model, tokenizer, folder)


def in_float64(model: PreTrainedModel) -> PreTrainedModel:
    """The model in float64 throughout: norms and rotations of transformers go through float32 whatever the precision."""

    class Norm(torch.nn.Module):
        def __init__(self, norm: Any) -> None:
            super().__init__()
            self.weight, self.epsilon = norm.weight, norm.variance_epsilon

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            scale: torch.Tensor = torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + self.epsilon)
            return self.weight * hidden * scale

    class Rotary(torch.nn.Module):
        def __init__(self, rotary: Any) -> None:
            super().__init__()
            self.inv_freq = torch.nn.Buffer(rotary.inv_freq, persistent=False)

        def forward(self, hidden: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            angles = position_ids[..., None] * self.inv_freq
            angles = torch.cat([angles, angles], -1)
            return angles.cos(), angles.sin()

    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child).__name__.endswith("RMSNorm"):
                setattr(module, name, Norm(child))
            elif getattr(child, "rope_type", None) in ("default", "llama3"):
                setattr(module, name, Rotary(child))
    return model.double()


def toy_pairs(num_pairs: int, split: str = "train") -> list[Pair]:
    """Pairs that are easy to tell apart: the chosen response says "good", the rejected one "bad"."""
    pairs = []
    for index in range(num_pairs):
        prompt = f"what is {index % 7} and {index % 5} number {index}"
        pair = Pair(
            pair_id=f"{split}{index}", prompt_id=f"p{index}", source="toy", split=split,
            chosen=conversation(prompt, None, f"good {index % 3} right"),
            rejected=conversation(prompt, None, f"bad {index % 4}" + " ramble" * (index % 3)),
            chosen_id=f"{split}c{index}", rejected_id=f"{split}r{index}",
            chosen_gold_reward=1.0, rejected_gold_reward=0.0, gold_margin=1.0,
        )  # fmt: skip
        pairs.append(pair)
    return pairs


def _save(model: Any, tokenizer: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
