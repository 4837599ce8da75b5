"""A release as its user loads it: in the precision that it is stored in, an adapter together with its base."""

import json
import tempfile
from pathlib import Path

from rm_assets.backends.rendering import FIXED_DATE
from rm_assets.backends.torch.devices import pick_device, takes_small_batches
from rm_assets.backends.torch.lora import ADAPTER_CONFIG, merge_adapter
from rm_assets.backends.torch.scorer import TorchScorer
from rm_assets.core.protocols import Reporter
from rm_assets.core.recipe import Dtype, ExecutionSection, ModelRef


def load_released(folder: Path, execution: ExecutionSection, reporter: Reporter) -> TorchScorer:
    """The model of a release folder, ready to score.

    Raises: ModelError if it does not load, ReleaseError RELEASE_009 if its adapter does not fit its base.
    """
    device = pick_device(execution.device)
    with tempfile.TemporaryDirectory(prefix="merged-") as merged:
        if (folder / ADAPTER_CONFIG).is_file():
            merge_adapter(folder, Path(merged))
        return TorchScorer(
            ModelRef(path=merged if (folder / ADAPTER_CONFIG).is_file() else str(folder)),
            max_length=json.loads((folder / "rm_assets.json").read_text("utf-8"))["max_length"],
            dtype=stored_dtype(folder),
            device=device,
            token_budget=execution.forward_tokens("scoring", on_cpu=takes_small_batches(device)),
            reporter=reporter,
        )


def stored_dtype(folder: Path) -> Dtype:
    """The precision of a release's weights, in which transformers loads them when nothing else is asked for."""
    config = folder / "config.json"
    named = json.loads(config.read_text("utf-8")).get("dtype") if config.is_file() else None
    return named if named in ("bfloat16", "float16") else "float32"


def template_options(folder: Path) -> dict[str, str]:
    """What the chat template of a release has to be given for the reported rewards."""
    files = [folder / name for name in ("chat_template.jinja", "tokenizer_config.json")]
    template = "".join(file.read_text("utf-8") for file in files if file.is_file())
    return {name: value for name, value in FIXED_DATE.items() if name in template}
