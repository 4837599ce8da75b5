"""Tokenizers and models from the checkpoints that a recipe names, every failure a ModelError.

Only safetensors weights are read, remote code runs only where the recipe allows it, and a local folder is read without
touching the network.
"""

from typing import Any

import torch
import transformers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES

from rm_assets.backends.torch.loading_errors import (
    as_model_errors,
    require_folder,
    require_tokenizer,
    require_weights,
)
from rm_assets.backends.torch.rendering import Renderer
from rm_assets.core.errors import ModelError, RecipeError
from rm_assets.core.recipe import Dtype, ModelRef

DTYPES: dict[Dtype, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def pick_device(name: str) -> torch.device:
    """The device that `execution.device` names; "auto" takes a GPU if there is one.

    Raises: RecipeError RECIPE_003 if the named device is not there.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, is_present in present.items() if is_present)
    if not present[name]:
        raise RecipeError(
            "RECIPE_003",
            f"execution.device is '{name}', but PyTorch {torch.__version__} sees no such device here",
            fix="set execution.device to auto or cpu, or install a PyTorch built for the device",
        )
    return torch.device(name)


def load_config(ref: ModelRef) -> PretrainedConfig:
    """The checkpoint's configuration, without its weights."""
    require_folder(ref)
    with as_model_errors(ref, "configuration"):
        config: PretrainedConfig = AutoConfig.from_pretrained(ref.location, **_options(ref))
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
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(ref.location, **_options(ref))
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
    """The tokenizer and the way in which the checkpoint reads conversations."""
    text_pairs = reads_text_pairs(load_config(ref))
    return Renderer(load_tokenizer(ref, needs_chat_template=not text_pairs), text_pairs=text_pairs)


def load_policy(ref: ModelRef, dtype: Dtype, device: torch.device) -> PreTrainedModel:
    """A causal language model, ready to sample from.

    Raises: ModelError MODEL_001 or MODEL_002.
    """
    config = load_config(ref)
    if reads_text_pairs(config) or (
        config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not ref.trust_remote_code
    ):
        raise ModelError(
            "MODEL_002",
            f"{ref.location} is a {config.model_type} model, which cannot write responses",
            why="a policy must be a causal language model",
            fix="name a causal language model as policy, or take recorded responses",
        )
    return _placed(_load(AutoModelForCausalLM, ref, dtype=DTYPES[dtype]), device)


def load_classifier(
    ref: ModelRef, dtype: Dtype, device: torch.device, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedModel:
    """A trained sequence classifier with one output: a gold model or a reward model.

    Raises: ModelError MODEL_001, MODEL_002 (more than one output, or no trained head), MODEL_004.
    """
    config = load_config(ref)
    if config.num_labels != 1:
        raise ModelError(
            "MODEL_002",
            f"{ref.location} has {config.num_labels} outputs; a reward model has one",
            why="the configuration has num_labels != 1" + ("" if config.id2label else ", its default without id2label"),
            fix="name a reward model with num_labels 1",
        )
    require_pad_token(ref, config, tokenizer)
    model = _load(AutoModelForSequenceClassification, ref, dtype=DTYPES[dtype])
    _agree_on_padding(model, tokenizer)
    return _placed(model, device)


def load_base_for_reward(
    ref: ModelRef, *, seed: int, device: torch.device, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedModel:
    """A float32 sequence classifier with one output on the weights of a causal LM or an encoder.

    Its score head is drawn from `seed`. A checkpoint that already has a head with one output keeps it.
    Raises: ModelError MODEL_001, MODEL_002, MODEL_004.
    """
    config = load_config(ref)
    require_pad_token(ref, config, tokenizer)
    config.num_labels = 1
    config.id2label, config.label2id = {0: "reward"}, {"reward": 0}
    # Anything but "regression" makes transformers' pipelines put a sigmoid on the reward.
    config.problem_type = "regression"
    config.use_cache = False
    torch.manual_seed(seed)
    model = _load(
        AutoModelForSequenceClassification, ref, new_head=True, config=config, dtype=torch.float32,
        ignore_mismatched_sizes=True,
    )  # fmt: skip
    _agree_on_padding(model, tokenizer)
    return _placed(model, device)


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


def identity(model: PreTrainedModel, renderer: Renderer, dtype: Dtype, device: torch.device) -> dict[str, str]:
    """All that decides a backend's output besides its inputs and a local checkpoint's weights.

    Of a checkpoint from the Hub it holds the commit that a branch or tag stood for when it was loaded.
    """
    return {
        "commit": str(getattr(model.config, "_commit_hash", None)),
        "backend": "torch",
        "chat_template": renderer.template_hash,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "dtype": dtype,
        "device": device.type,
    }


def _options(ref: ModelRef) -> dict[str, Any]:
    options: dict[str, Any] = {"trust_remote_code": ref.trust_remote_code}
    if ref.path is not None:
        options["local_files_only"] = True
    if ref.revision is not None:
        options["revision"] = ref.revision
    return options


def _load(auto_class: Any, ref: ModelRef, *, new_head: bool = False, **options: Any) -> PreTrainedModel:
    require_weights(ref)
    with as_model_errors(ref, "weights"):
        model, report = auto_class.from_pretrained(
            ref.location, use_safetensors=True, output_loading_info=True, **options, **_options(ref)
        )
    backbone = model.base_model_prefix + "."
    # A head is new in a reward model, and so is the pooler in front of it that some encoders have.
    # A tensor of another shape than the configuration says would be as random as a missing one.
    resized = {key[0] if isinstance(key, tuple) else key for key in report["mismatched_keys"]}
    untrained = sorted(
        key for key in {*report["missing_keys"], *resized}
        if not new_head or (key.startswith(backbone) and "pooler" not in key)
    )  # fmt: skip
    if untrained:
        raise ModelError(
            "MODEL_002",
            f"{ref.location} has no weights for {', '.join(untrained[:3])} of {type(model).__name__}",
            why="they would be random numbers",
            fix="name a checkpoint of this kind of model; a causal LM is no reward model before it is trained as one",
        )
    result: PreTrainedModel = model
    return result


def _placed(model: Any, device: torch.device) -> PreTrainedModel:
    result: PreTrainedModel = model.to(device).eval()
    return result


def _agree_on_padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    model.config.pad_token_id = tokenizer.pad_token_id
    # Models with several parts read the pad token from the configuration of the text part.
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
