"""Checkpoints with random weights and a tokenizer whose tokens are words, so that any row of token ids is also a text.

Product and peers load the same folder. The CPU's shape is frozen.
"""

from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from benchmarks.workloads import EOS, PAD, VOCABULARY, Item
from rm_assets.core.planning.model_shape import KNOWN_CONFIGS
from rm_assets.core.records import Messages

SMALL = "small"
"""The shape that is measured on a CPU."""
SHAPES: dict[str, dict[str, Any]] = {
    SMALL: {
        "vocab_size": VOCABULARY, "hidden_size": 256, "num_hidden_layers": 6, "intermediate_size": 768,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64,
    },
    "Qwen3-0.6B": KNOWN_CONFIGS["Qwen/Qwen3-0.6B"],
    "Qwen3-4B": KNOWN_CONFIGS["Qwen/Qwen3-4B"],
}  # fmt: skip
TEMPLATE = "{%- for m in messages -%}{{- m['content'] + ' ' + (eos_token if m['role'] == 'assistant' else '') -}}{%- endfor -%}"
END_HAZARD = 1 / 100
"""Chance that the next sampled token ends the response, so lengths are about geometric: mean 100, long tail."""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Token 7 is the word `w7`; PAD and EOS have their own. A conversation is its words, and EOS after the response."""
    words = {PAD: "<pad>", EOS: "<eos>"} | {i: f"w{i}" for i in range(2, VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in sorted(words.items())}, unk_token="w2"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(words[i], special=True) for i in (PAD, EOS)])
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=words[PAD], eos_token=words[EOS])
    wrapped.chat_template = TEMPLATE
    return wrapped


def conversations(item: Item) -> list[Messages]:
    """Each response with its prompt, as the messages whose token ids are the item's."""
    prompt = {"role": "user", "content": words(item.prompt)}
    return [[prompt, {"role": "assistant", "content": words(response[:-1])}] for response in item.responses]


def words(ids: list[int]) -> str:
    """The text of token ids."""
    return " ".join(f"w{i}" for i in ids)


def config(shape: str, **options: Any) -> Qwen3Config:
    """A shape's configuration."""
    sizes = {key: value for key, value in SHAPES[shape].items() if key != "model_type"}
    return Qwen3Config(
        **{
            **sizes, "max_position_embeddings": 2048, "pad_token_id": PAD, "eos_token_id": EOS, "bos_token_id": None,
            "attention_dropout": 0.0, **options,
        }
    )  # fmt: skip


def save_classifier(shape: str, folder: Path, *, dtype: torch.dtype = torch.float32) -> Path:
    """A reward model with random weights."""
    torch.manual_seed(0)
    options = {"num_labels": 1, "problem_type": "regression", "id2label": {0: "reward"}, "label2id": {"reward": 0}}
    model = AutoModelForSequenceClassification.from_config(config(shape, **options), dtype=dtype)
    return _save(model, folder)


def save_policy(shape: str, folder: Path, *, dtype: torch.dtype = torch.float32) -> Path:
    """A causal language model with random weights whose responses end at random.

    The embedding's first coordinate is large and the same for all tokens, so the first coordinate of the last hidden
    state varies little; the row of EOS in the head reads nothing else. The other rows give logits of deviation 2.5, of
    which the largest, unlike EOS, is what greedy decoding takes. Embeddings and layers weigh alike in the last state, so
    a token depends on all before it.
    """
    torch.manual_seed(0)
    options = {"tie_word_embeddings": False, "initializer_range": 0.64 / SHAPES[shape]["hidden_size"] ** 0.5}
    model: Any = AutoModelForCausalLM.from_config(config(shape, **options), dtype=dtype)
    width, vocabulary = model.config.hidden_size, model.config.vocab_size
    with torch.no_grad():
        model.model.embed_tokens.weight.normal_()
        model.model.embed_tokens.weight[:, 0] = width**0.5
        first = _last_states(model)[:, 0].mean()
        rest = _last_states(model)[:, 1:].square().sum(1).mean().sqrt()
        model.lm_head.weight.normal_(0, 2.5 / float(rest))
        model.lm_head.weight[:, 0] = 0
        logits = _last_states(model).float() @ model.lm_head.weight.float().T  # (T, V)
        others = logits[:, EOS + 1 : VOCABULARY].logsumexp(-1).mean()
        model.lm_head.weight[EOS] = 0
        wanted = float(others) + float(torch.logit(torch.tensor(END_HAZARD)))
        model.lm_head.weight[EOS, 0] = wanted / float(first)
        # Beyond the tokenizer's words and at PAD, no token is drawn.
        model.lm_head.weight[PAD] = 0
        model.lm_head.weight[[PAD, *range(VOCABULARY, vocabulary)], 0] = -20.0 / float(first)
    model.generation_config = GenerationConfig(eos_token_id=EOS, pad_token_id=PAD)
    return _save(model, folder)


def _last_states(model: Any) -> torch.Tensor:
    """(T, W) states that the head reads, of a row of random tokens."""
    ids = torch.randint(3, VOCABULARY, (1, 256), generator=torch.Generator().manual_seed(0))
    states: torch.Tensor = model.model(input_ids=ids, use_cache=False).last_hidden_state[0]
    return states


def _save(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder
