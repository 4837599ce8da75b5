"""What can go wrong while a checkpoint is loaded, as ModelErrors that say how to mend it."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import transformers
from transformers.utils import logging as transformers_logging

from rm_assets.core.errors import ModelError
from rm_assets.core.hub_refusals import refusal_in
from rm_assets.core.recipe import ModelRef


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars and no advice from transformers; errors still come through."""
    verbosity, had_bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if had_bars:
            transformers_logging.enable_progress_bar()


def require_folder(ref: ModelRef) -> None:
    """Raises ModelError MODEL_001 if the local folder or its configuration is not there."""
    if ref.path is None:
        return
    if not Path(ref.path).is_dir():
        raise ModelError(
            "MODEL_001", f"The checkpoint folder {ref.path} does not exist", fix="correct `path`, or give `hub_id`"
        )
    if not (Path(ref.path) / "config.json").is_file():
        raise missing(ref, "it has no config.json")


def require_weights(ref: ModelRef) -> None:
    """Raises ModelError MODEL_001 if the local folder has no safetensors weights."""
    if ref.path is None or any(Path(ref.path).glob("*.safetensors")):
        return
    pickled = sorted(path.name for path in Path(ref.path).iterdir() if path.suffix in (".bin", ".pt", ".pth"))
    if pickled:
        raise _only_pickle(ref, pickled[0])
    raise missing(ref, "it has no *.safetensors file")


def require_tokenizer(ref: ModelRef) -> None:
    """transformers makes up an empty tokenizer for a local folder without one."""
    patterns = ("tokenizer*", "vocab*", "*.model", "*.tiktoken")
    if ref.path is not None and not any(path for pattern in patterns for path in Path(ref.path).glob(pattern)):
        raise missing(ref, "it has no tokenizer files")


def missing(ref: ModelRef, why: str) -> ModelError:
    """The error of a checkpoint that lacks a part."""
    return ModelError(
        "MODEL_001",
        f"The checkpoint {ref.location} is not complete",
        why=why,
        fix="copy or download the whole checkpoint: configuration, tokenizer and safetensors weights",
    )


def untrained(ref: ModelRef, names: Sequence[str], kind: str) -> ModelError:
    """The error of a checkpoint that lacks weights of a `kind` of model, or has them in another shape."""
    return ModelError(
        "MODEL_002",
        f"{ref.location} has no weights for {', '.join(names[:3])} of {kind}",
        why="they would be random numbers",
        fix="name a checkpoint of this kind of model; a causal LM is no reward model before it is trained as one",
    )


def _only_pickle(ref: ModelRef, name: str) -> ModelError:
    return ModelError(
        "MODEL_001",
        f"The checkpoint {ref.location} has no safetensors weights",
        why=f"its weights are pickled ({name}), and unpickling can run any code",
        fix="load it once where you trust it and write it again with save_pretrained, which makes safetensors",
    )


@contextlib.contextmanager
def as_model_errors(ref: ModelRef, part: str) -> Iterator[None]:
    """Turns whatever loading raises into a ModelError, and keeps transformers quiet meanwhile."""
    try:
        with quiet_transformers():
            yield
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise _translated(ref, part, error) from error
    except Exception as error:
        # safetensors and tokenizers raise classes of their own for damaged files, directly below Exception.
        raise missing(ref, f"its {part} cannot be read: {_first_line(error)}") from error


def _translated(ref: ModelRef, part: str, error: Exception) -> ModelError:
    text = str(error)
    if "trust_remote_code" in text:
        return ModelError(
            "MODEL_002", f"{ref.location} brings Python code of its own, which is not run",
            fix="read the code, pin `revision`, and set trust_remote_code: true; or name another checkpoint",
        )  # fmt: skip
    if "does not recognize this architecture" in text or "Unrecognized model" in text:
        return ModelError(
            "MODEL_002", f"transformers {transformers.__version__} does not know the model type of {ref.location}",
            fix="install a transformers that knows it, or name another checkpoint",
        )  # fmt: skip
    if "Unrecognized configuration class" in text:
        return ModelError(
            "MODEL_002", f"{ref.location} cannot be loaded for this work",
            why="transformers has no " + text.partition("AutoModel: ")[2].partition(".")[0] + " class for its type",
            fix="name a checkpoint whose type has one: most causal language models and encoders do",
        )  # fmt: skip
    if ref.hub_id is not None and (refused := refusal_in(error, f"the model {ref.hub_id}")):
        return ModelError("MODEL_001", refused.what, why=refused.why, fix=refused.fix)
    if ref.hub_id is not None and ("connect" in text or "offline" in text.lower()):
        return ModelError(
            "MODEL_001", f"The Hugging Face Hub cannot be reached for the {part} of {ref.hub_id}",
            why="the checkpoint is not in the local cache, so the recipe needs the network",
            fix="connect to the network, or download the checkpoint elsewhere and give its folder as `path`",
        )  # fmt: skip
    if ref.hub_id is not None and "model.safetensors" in text:
        return _only_pickle(ref, "pytorch_model.bin or the like")
    return missing(ref, f"its {part} cannot be read: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
