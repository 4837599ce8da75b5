"""Low-rank adaptation through peft, with the score head trained beside it and merged weights at the end.

The adapter is kept as peft stores one: adapter_config.json and adapter_model.safetensors, the score head among its weights.
"""

import json
import shutil
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, LoraModel
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import PreTrainedModel

from rm_assets.backends.loading_errors import quiet_transformers
from rm_assets.core.errors import ModelError, ReleaseError
from rm_assets.core.recipe import Dtype, LoraSettings

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PEFT_PREFIX = "base_model.model."


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
            self._tuner, self._config = LoraModel(model, config, "default"), config
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

    def save(self, folder: Path) -> None:
        """Writes the matrices and the score head as an adapter of peft; nothing where a layer of the head is adapted, too."""
        model: Any = self._tuner.model
        trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        head = {name for name in trained if "lora_" not in name}
        modules = sorted({name.partition(".")[0] for name in head})
        if any(name.partition(".")[0] in modules for name in trained.keys() - head):
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._config.modules_to_save, self._config.inference_mode = modules, True
        self._config.save_pretrained(str(folder))
        tensors = {
            PEFT_PREFIX + name.replace(".default.", "."): weight.detach().float().cpu().contiguous()
            for name, weight in trained.items()
        }
        save_file(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})

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


def merge_adapter(folder: Path, target: Path) -> None:
    """Loads an adapter with its base as a user does, and writes the merged model with the other files of `folder`.

    Raises: ReleaseError RELEASE_009.
    """
    from peft import AutoPeftModelForSequenceClassification
    from transformers import AutoTokenizer

    _check_adapter(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    try:
        with quiet_transformers():
            adapted: Any = AutoPeftModelForSequenceClassification.from_pretrained(
                str(folder), num_labels=1, pad_token_id=tokenizer.pad_token_id, dtype=torch.float32
            )
            merged = adapted.merge_and_unload()
    except (OSError, RuntimeError, ValueError) as error:
        raise ReleaseError(
            "RELEASE_009",
            f"the adapter in {folder} does not load",
            why=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            fix="name the base that it was trained on, in the same revision",
        ) from None
    merged.save_pretrained(target)
    for file in folder.iterdir():
        if file.name not in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
            shutil.copyfile(file, target / file.name)


def _check_adapter(folder: Path) -> None:
    """Raises ReleaseError RELEASE_009 unless it is a LoRA of a sequence classifier with its base and its score head."""
    try:
        config = json.loads((folder / ADAPTER_CONFIG).read_text("utf-8"))
    except ValueError:
        config = {}
    faults = [
        f"{key} is {config.get(key)!r} and not {value!r}"
        for key, value in (("peft_type", "LORA"), ("task_type", "SEQ_CLS"))
        if config.get(key) != value
    ]
    faults += [f"{key} is missing" for key in ("base_model_name_or_path", "modules_to_save") if not config.get(key)]
    with safe_open(folder / ADAPTER_WEIGHTS, framework="pt") as weights:
        names = set(weights.keys())
    faults += [
        f"{ADAPTER_WEIGHTS} has no {module}"
        for module in config.get("modules_to_save") or []
        if not any(name.startswith(f"{PEFT_PREFIX}{module}.") for name in names)
    ]
    if faults:
        raise ReleaseError(
            "RELEASE_009",
            f"{ADAPTER_CONFIG} in {folder} describes no reward model",
            why="; ".join(faults),
            fix="make reward_model and hub_release again",
        )
