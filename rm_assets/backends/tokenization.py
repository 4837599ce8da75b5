"""Tokenizers and configurations of the checkpoints that a recipe names: what is known of a model without its weights.

Remote code runs only where the recipe allows it, and a local folder is read without touching the network. Nothing here
imports transformers' models, which takes longer than all the rest.
"""

from typing import Any

from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from rm_assets.backends.loading_errors import as_model_errors, require_folder, require_tokenizer
from rm_assets.backends.rendering import Renderer, require_sound_template
from rm_assets.core.errors import ModelError
from rm_assets.core.recipe import ModelRef


def load_config(ref: ModelRef) -> PretrainedConfig:
    """The checkpoint's configuration, without its weights."""
    require_folder(ref)
    with as_model_errors(ref, "configuration"):
        config: PretrainedConfig = AutoConfig.from_pretrained(ref.location, **loading_options(ref))
    return config


def reads_text_pairs(config: PretrainedConfig) -> bool:
    """Whether the model is an encoder, which reads prompt and response as a text pair instead of a chat template."""
    if getattr(config, "is_encoder_decoder", False):
        return True
    return config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)


def load_tokenizer(ref: ModelRef, *, needs_chat_template: bool) -> PreTrainedTokenizerBase:
    """The checkpoint's tokenizer, with the recipe's `chat_template` and `pad_token` in place of its own.

    Raises: ModelError MODEL_001 if it cannot be read, MODEL_003 without a chat template where one is needed,
    MODEL_004 if the recipe's pad token is not in the vocabulary.
    """
    require_folder(ref)
    require_tokenizer(ref)
    with as_model_errors(ref, "tokenizer"):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(ref.location, **loading_options(ref))
    if ref.chat_template is not None:
        tokenizer.chat_template = ref.chat_template
    if ref.pad_token is not None:
        if ref.pad_token not in tokenizer.get_vocab():
            raise ModelError(
                "MODEL_004",
                f"The recipe's pad_token {ref.pad_token!r} is not in the vocabulary of {ref.location}",
                why="a new token would have an untrained embedding and change the size of the model",
                fix="name a token that the vocabulary reserves, for example one of its unused special tokens",
            )
        tokenizer.pad_token = ref.pad_token
    if needs_chat_template and not tokenizer.chat_template:
        raise ModelError(
            "MODEL_003",
            f"The checkpoint {ref.location} has no chat template",
            why="prompts and responses of a causal model are written through one",
            fix="take the instruction-tuned checkpoint, or give `chat_template` in the recipe",
        )
    return tokenizer


def load_renderer(ref: ModelRef) -> Renderer:
    """The tokenizer and the way in which the checkpoint reads conversations.

    Raises: ModelError MODEL_001, MODEL_003 or MODEL_004.
    """
    renderer = unchecked_renderer(ref, load_config(ref))
    require_sound_template(renderer)
    return renderer


def unchecked_renderer(ref: ModelRef, config: PretrainedConfig) -> Renderer:
    """As `load_renderer`, whatever the chat template writes: for those who look for its faults."""
    text_pairs = reads_text_pairs(config)
    return Renderer(load_tokenizer(ref, needs_chat_template=not text_pairs), text_pairs=text_pairs)


def require_pad_token(ref: ModelRef, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises ModelError MODEL_004 where padding would be mistaken for the end of the text, or the other way round."""
    is_missing = tokenizer.pad_token_id is None
    if is_missing or (tokenizer.pad_token_id == tokenizer.eos_token_id and not reads_text_pairs(config)):
        raise ModelError(
            "MODEL_004",
            f"{ref.location} " + ("has no pad token" if is_missing else "pads with its end-of-sequence token"),
            why="a reward is read at the last token that is not the pad token, so the two must differ",
            fix="give `pad_token` in the recipe: a token of the vocabulary that no text uses",
        )


def require_one_output(ref: ModelRef, config: PretrainedConfig) -> None:
    """Raises ModelError MODEL_002 for what is no reward model."""
    if config.num_labels == 1:
        return
    kind = ", ".join(config.architectures or [config.model_type])
    # Without a head of its own, a configuration has transformers' default of two.
    is_headless = config.architectures and not kind.endswith("ForSequenceClassification")
    has = f"is a {kind}, which gives no reward" if is_headless else f"({kind}) has {config.num_labels} outputs"
    raise ModelError(
        "MODEL_002",
        f"{ref.location} {has}; a reward model has one output",
        fix="name a sequence classifier with num_labels 1; a language model is no reward model before it is trained as one",
    )


def context_length(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The most tokens that the model reads at once, where it says so."""
    limits = [getattr(config.get_text_config(), "max_position_embeddings", None), tokenizer.model_max_length]
    # Tokenizers write a number like 1e30 for "no limit".
    known = [int(limit) for limit in limits if isinstance(limit, int | float) and 0 < limit < 10**9]
    return min(known, default=None)


def check_context(ref: ModelRef, config: PretrainedConfig, renderer: Renderer, max_length: int) -> None:
    """Raises ModelError MODEL_005 if `max_length` is more than the model can read."""
    limit = context_length(config, renderer.tokenizer)
    if limit is not None and max_length > limit:
        raise ModelError(
            "MODEL_005",
            f"max_length is {max_length}, but {ref.location} reads at most {limit} tokens",
            fix=f"set max_length to {limit} or less",
        )


def loading_options(ref: ModelRef) -> dict[str, Any]:
    """What `from_pretrained` is told of every part of a checkpoint."""
    options: dict[str, Any] = {"trust_remote_code": ref.trust_remote_code}
    if ref.path is not None:
        options["local_files_only"] = True
    if ref.revision is not None:
        options["revision"] = ref.revision
    return options
