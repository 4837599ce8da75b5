"""Low-rank adaptation through peft, with the score head trained beside it and merged weights at the end."""

from difflib import get_close_matches
from typing import Any

import torch
from peft import LoraConfig, LoraModel
from transformers import PreTrainedModel

from rm_assets.core.errors import ModelError
from rm_assets.core.recipe import Dtype, LoraSettings


class Adapter:
    """The low-rank matrices in a reward model. Their draw depends on the seed alone."""

    def __init__(self, model: PreTrainedModel, settings: LoraSettings, *, seed: int, dtype: Dtype) -> None:
        _check_names(model, settings.target_modules or [])
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
                f"{type(model).__name__} has layers that training.lora.target_modules names and that cannot be adapted",
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


def _check_names(model: PreTrainedModel, wanted: list[str]) -> None:
    """Raises ModelError MODEL_002 if a name matches no layer; peft would train without it."""
    modules = [name for name, _ in model.named_modules()]
    unknown = [name for name in wanted if not any(m == name or m.endswith(f".{name}") for m in modules)]
    if unknown:
        layers = {n.rpartition(".")[2] for n, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
        close = {match for name in unknown for match in get_close_matches(name, layers)}
        raise ModelError(
            "MODEL_002",
            f"training.lora.target_modules names {', '.join(unknown)}, which {type(model).__name__} does not have",
            why=f"its {'closest ' if close else ''}linear layers are {', '.join(sorted(close or layers))}",
            fix="name layers of this model, or leave target_modules out to adapt all linear layers",
        )
