"""Models from the checkpoints that a recipe names, every failure a ModelError. Only safetensors weights are read."""

from typing import Any

import torch
import transformers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from rm_assets.backends.loading_errors import as_model_errors, require_weights, untrained
from rm_assets.backends.rendering import Renderer
from rm_assets.backends.tokenization import (
    load_config,
    loading_options,
    reads_text_pairs,
    require_one_output,
    require_pad_token,
)
from rm_assets.core.errors import ModelError
from rm_assets.core.recipe import Dtype, ModelRef

DTYPES: dict[Dtype, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


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
    require_one_output(ref, config)
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


def identity(config: PretrainedConfig, renderer: Renderer, dtype: Dtype, device: torch.device) -> dict[str, str]:
    """All that decides a backend's output besides its inputs and a local checkpoint's weights.

    Of a checkpoint from the Hub it holds the commit that a branch or tag stood for when it was loaded.
    """
    return {
        "commit": str(getattr(config, "_commit_hash", None)),
        "backend": "torch",
        "chat_template": renderer.template_hash,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "dtype": dtype,
        "device": device.type,
    }


def _load(auto_class: Any, ref: ModelRef, *, new_head: bool = False, **options: Any) -> PreTrainedModel:
    require_weights(ref)
    with as_model_errors(ref, "weights"):
        model, report = auto_class.from_pretrained(
            ref.location, use_safetensors=True, output_loading_info=True, **options, **loading_options(ref)
        )
    backbone = model.base_model_prefix + "."
    # A head is new in a reward model, and so is the pooler in front of it that some encoders have.
    # A tensor of another shape than the configuration says would be as random as a missing one.
    resized = {key[0] if isinstance(key, tuple) else key for key in report["mismatched_keys"]}
    untrained_weights = sorted(
        key for key in {*report["missing_keys"], *resized}
        if not new_head or (key.startswith(backbone) and "pooler" not in key)
    )  # fmt: skip
    if untrained_weights:
        raise untrained(ref, untrained_weights, type(model).__name__)
    result: PreTrainedModel = model
    return result


def _placed(model: Any, device: torch.device) -> PreTrainedModel:
    result: PreTrainedModel = model.to(device).eval()
    return result


def _agree_on_padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    model.config.pad_token_id = tokenizer.pad_token_id
    # Models with several parts read the pad token from the configuration of the text part.
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
