"""Search over settings of the training: which trials, and within what space."""

import difflib
import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import Discriminator, Field, Tag, ValidationError, field_validator, model_validator

from rm_assets.core.recipe.section import Section
from rm_assets.core.recipe.training import ExistingModel, TrainingSection

NOT_SEARCHED = {
    "kind": "a search trains",
    **dict.fromkeys(
        ("base", "max_length", "over_length"),
        "it decides which validation pairs are counted, so the values of two trials would be of different pairs; write a recipe for each and `rm-assets compare` them",
    ),
}
"""Fields of the training that a search does not vary, and why."""


class SearchRange(Section):
    """Every number from `low` to `high`: whole ones where the field is of whole numbers."""

    low: int | float = Field(description="Smallest value, included.")
    high: int | float = Field(description="Largest value, included; above `low`.")
    log: bool = Field(
        False, description="Draw evenly between orders of magnitude, as for a learning rate; needs a `low` above 0."
    )

    @model_validator(mode="after")
    def _is_a_range(self) -> "SearchRange":
        if self.low >= self.high:
            raise ValueError("'low' must be below 'high'; leave the field out to keep it as the recipe has it")
        if self.log and self.low <= 0:
            raise ValueError("with 'log', 'low' must be above 0")
        return self


Choices = Annotated[list[Any], Field(min_length=2)]


def _of_what(value: Any) -> Literal["choices", "range"] | None:
    if isinstance(value, list):
        return "choices"
    return "range" if isinstance(value, dict | SearchRange) else None


Dimension = Annotated[
    Annotated[Choices, Tag("choices")] | Annotated[SearchRange, Tag("range")],
    Discriminator(
        _of_what,
        custom_error_type="no_dimension",
        custom_error_message="Write a list of choices, or {low: ..., high: ...}",
    ),
]


class SearchSection(Section):
    """A search by `rm-assets search`: many trainings, judged by their accuracy on the validation pairs."""

    num_trials: int = Field(20, gt=0, description="Trials in all, with those that were pruned or failed.")
    seed: int = Field(0, ge=0, description="Seed of the trials: the same seed asks for the same settings.")
    space: dict[str, Dimension] = Field(
        min_length=1,
        description="For each key of `training` that varies, a list of choices or {low, high, log}. Not `base`, `max_length`, `over_length`: they change which validation pairs are counted.",
    )

    @field_validator("space")
    @classmethod
    def _of_settings_that_can_vary(cls, space: dict[str, list[Any] | SearchRange]) -> Any:
        for name, dimension in space.items():
            if name not in TrainingSection.model_fields:
                known = [field for field in TrainingSection.model_fields if field not in NOT_SEARCHED]
                close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
                raise ValueError(
                    f"'{name}' is no key of the section training; "
                    + (f"did you mean '{close[0]}'?" if close else f"known there: {', '.join(sorted(known))}")
                )
            if name in NOT_SEARCHED:
                raise ValueError(f"'{name}' cannot be searched: {NOT_SEARCHED[name]}")
            if isinstance(dimension, SearchRange):
                _require_numbers(name, dimension)
            elif any(choice in dimension[:place] for place, choice in enumerate(dimension)):
                raise ValueError(f"'{name}' has a choice twice; each counts once")
        return space

    @property
    def num_settings(self) -> float:
        """Number of different settings in the space; infinite where a range is of fractions."""
        return math.prod(
            len(dimension)
            if isinstance(dimension, list)
            else dimension.high - dimension.low + 1
            if takes_whole_numbers(name)
            else math.inf
            for name, dimension in self.space.items()
        )


def choice_label(choice: Any) -> str:
    """A choice as JSON text, under which the study keeps it: mappings and texts alike."""
    return json.dumps(choice, sort_keys=True)


def takes_whole_numbers(name: str) -> bool:
    """Whether the training's field is of whole numbers."""
    annotation = TrainingSection.model_fields[name].annotation
    return int in (annotation, *get_args(annotation))


def _require_numbers(name: str, dimension: SearchRange) -> None:
    annotation = TrainingSection.model_fields[name].annotation
    if {int, float}.isdisjoint((annotation, *get_args(annotation))):
        raise ValueError(f"'{name}' takes no number, so a range of it means nothing; write a list of choices")
    if takes_whole_numbers(name) and not (isinstance(dimension.low, int) and isinstance(dimension.high, int)):
        raise ValueError(f"'{name}' takes whole numbers; write 'low' and 'high' without a fraction")


def with_settings(training: TrainingSection, settings: Mapping[str, Any]) -> TrainingSection:
    """`training` with these settings in place of its own. Raises: ValueError that names what the section refuses."""
    try:
        return TrainingSection.model_validate({**training.model_dump(), **settings})
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        said = fault["msg"].removeprefix("Value error, ")
        raise ValueError(f"training{'.' * bool(where)}{where}: {said[:1].lower()}{said[1:]}") from None


def require_searchable(
    search: SearchSection, training: TrainingSection | ExistingModel, share_of_validation: float
) -> None:
    """Tries every choice and both ends of every range alone. Raises: ValueError that names key, value and reason."""
    if isinstance(training, ExistingModel):
        raise ValueError("search has nothing to vary: training.kind is existing, so nothing is trained")
    if share_of_validation == 0:
        raise ValueError(
            "search judges trials on validation pairs, and there are none: give prompts.split.validation a share, for example 0.1"
        )
    for name, dimension in search.space.items():
        values = [dimension.low, dimension.high] if isinstance(dimension, SearchRange) else dimension
        for value in values:
            try:
                with_settings(training, {name: value})
            except ValueError as error:
                raise ValueError(
                    f"search.space.{name}: the training refuses {value!r}: {error}; take it out of the space"
                ) from None
