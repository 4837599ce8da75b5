"""Low-rank adaptation through peft, with the score head trained beside it and merged weights at the end."""

from typing import Any

import torch
from peft import LoraConfig, LoraModel
from transformers import PreTrainedModel

from rm_assets.core.errors import ModelError
from rm_assets.core.recipe import Dtype, LoraSettings


class Adapter:
    """The low-rank matrices in a reward model. Their draw depends on the seed alone."""

    def __init__(self, model: PreTrainedModel, settings: LoraSettings, *, seed: int, dtype: Dtype) -> None:
        torch.manual_seed(seed)
        config = LoraConfig(
            r=settings.rank, lora_alpha=settings.alpha, task_type="SEQ_CLS",
            target_modules=settings.target_modules or "all-linear",
        )  # fmt: skip
        try:
            self._tuner = LoraModel(model, config, "default")
        except ValueError as error:
            raise ModelError(
                "MODEL_002",
                f"{type(model).__name__} has no such layers as training.lora.target_modules names",
                why=str(error).splitlines()[0],
                fix="leave target_modules out to adapt all linear layers, or name layers of this model, such as q_proj",
            ) from error
        backbone = model.base_model_prefix + "."
        for name, weight in model.named_parameters():
            # The head is new: without it nothing that the adapter learns could be read.
            if not name.startswith(backbone):
                weight.requires_grad_(True)
            elif not weight.requires_grad and dtype == "bfloat16":
                weight.data = weight.data.to(torch.bfloat16)

    def merged(self) -> PreTrainedModel:
        """The plain float32 model with the matrices added to its weights."""
        self._tuner.model.float()
        model: Any = self._tuner.merge_and_unload()
        assert isinstance(model, PreTrainedModel)
        return model
