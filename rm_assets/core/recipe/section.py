"""What every section is made of: strict frozen models, checkpoints, served models, precisions."""

from collections.abc import Iterator
from typing import Any, Literal, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rm_assets.core.servers import address_fault

Dtype = Literal["float32", "bfloat16", "float16"]
Backend = Literal["torch", "jax"]
"""What computes the rewards of a model."""


class Section(BaseModel):
    """Frozen, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @property
    def reads_prompt_rows(self) -> bool:
        """Whether what this section describes is read from the rows of the prompts' sources."""
        return False

    @model_validator(mode="before")
    @classmethod
    def _no_truth_value_as_number(cls, values: Any) -> Any:
        # YAML reads yes, no, on and off as truth values, which pydantic would take for 1 and 0.
        for key, value in values.items() if isinstance(values, dict) else ():
            if isinstance(value, bool) and key in cls.model_fields and cls.model_fields[key].annotation is not bool:
                wanted = _wanted(cls.model_fields[key].annotation)
                raise ValueError(f"'{key}' is a truth value ({value}) here; {wanted}")
        return values


def _wanted(annotation: Any) -> str:
    """What to write where a truth value stands."""
    types = list(_types_in(annotation))
    or_null = ", or null" if type(None) in types else ""
    section = next((t for t in types if isinstance(t, type) and issubclass(t, Section)), None)
    if section is not None:
        return f"write a mapping of its keys, such as '{next(iter(section.model_fields))}'{or_null}"
    if get_origin(types[0]) is Literal:
        return f"write one of {', '.join(get_args(types[0]))}{or_null}"
    return f"quote it if a text is meant{or_null}" if str in types else f"write a number{or_null}"


def _types_in(annotation: Any) -> Iterator[Any]:
    """The types of a union, a list or an optional; a Literal stays whole."""
    if get_origin(annotation) is None or get_origin(annotation) is Literal:
        yield annotation
        return
    for inner in get_args(annotation):
        yield from _types_in(inner)


class ModelRef(Section):
    """A checkpoint: a local folder or a Hugging Face Hub id."""

    path: str | None = Field(
        None,
        description="Local checkpoint folder: absolute, relative to the recipe file, or package://PATH inside rm_assets. ${VAR} is read from the environment.",
    )
    hub_id: str | None = Field(
        None, pattern=r"^[\w.-]+(/[\w.-]+)?$", description="Model id on the Hugging Face Hub: OWNER/NAME."
    )
    revision: str | None = Field(
        None, description="Commit, tag or branch on the Hub. Pin a commit: a branch can move under you."
    )
    trust_remote_code: bool = Field(
        False, description="Run Python code that comes with the checkpoint. Leave off unless you have read it."
    )
    chat_template: str | None = Field(
        None, description="Jinja chat template to use instead of the checkpoint's own, or where it has none."
    )
    pad_token: str | None = Field(
        None,
        description="Pad token where the checkpoint has none or pads with its end token; must be in the vocabulary.",
    )

    @model_validator(mode="after")
    def _one_location(self) -> "ModelRef":
        if (self.path is None) == (self.hub_id is None):
            raise ValueError("give exactly one of 'path' and 'hub_id'")
        if self.path is not None and self.revision is not None:
            raise ValueError(
                "'revision' belongs to 'hub_id'; the revision of a local checkpoint is the hash of its files"
            )
        return self

    @property
    def location(self) -> str:
        """The folder or the Hub id, whichever was given."""
        return self.path or self.hub_id or ""


class ServedModel(Section):
    """A model behind a server with an OpenAI-compatible API.

    `base_url` and `api_key_env` enter no digest: the same model served elsewhere gives the same answers.
    """

    base_url: str = Field(
        description="Root of the server's API, for example http://127.0.0.1:8000/v1. Enters no digest."
    )
    model: str = Field(min_length=1, description="Name under which the server offers the model.")
    revision: str = Field(
        min_length=1,
        description="Your name for what is served: weights, chat template, precision. The weights of a server cannot be hashed, so the server is asked anew when this changes, and only then.",
    )
    api_key_env: str | None = Field(
        None,
        pattern="^[A-Z_][A-Z0-9_]*$",
        description="Name of the environment variable that holds the API key, never the key itself. Enters no digest.",
    )

    @model_validator(mode="after")
    def _sound_address(self) -> Self:
        if fault := address_fault(self.base_url, sends_key=self.api_key_env is not None):
            raise ValueError(f"base_url {fault}")
        return self
