"""The sections `gate`, what a model must be to be released, and `release`, what is released and where to."""

from typing import Literal

from pydantic import Field

from rm_assets.core.recipe.checks import CheckSettings, SeveritySection, ShareCheck
from rm_assets.core.recipe.section import Section


class GateSection(SeveritySection):
    """What a model must be for its release to be built. Enters no digest: a changed limit lets a release pass, or not, without a new report."""

    match_rate_is_high: ShareCheck = Field(
        default=ShareCheck(severity="error", limit=0.5),
        description="evaluation_report: the lower end of the match rate's 95 % interval is above this.",
    )
    no_worse_than_release: CheckSettings = Field(
        default=CheckSettings(severity="error"),
        description="evaluation_report: on the same test pairs, the match rate is not significantly below that of the recipe's release in production, or in staging where none is in production.",
    )
    confidence_is_calibrated: ShareCheck = Field(
        default=ShareCheck(severity="error", limit=0.15),
        description="evaluation_report: largest expected calibration error beyond what chance gives at this number of pairs. A model trained by regression has no probabilities: turn it off.",
    )
    length_is_not_the_reason: ShareCheck = Field(
        default=ShareCheck(severity="error", limit=0.5),
        description="evaluation_report: the lower end of the length-balanced match rate's 95 % interval is above this; 0.5 is a model that goes by length alone.",
    )


class ReleaseSection(Section):
    """What is released, and where to."""

    form: Literal["whole", "adapter"] = Field(
        "whole",
        description="`whole`: all weights, those of a LoRA training merged; `adapter`: the LoRA matrices and the score head, to be loaded with the base.",
    )
    hub_id: str | None = Field(
        None,
        pattern=r"^[\w.-]+/[\w.-]+$",
        description="Repository on the Hub to push to, OWNER/NAME; without it the release stays a local folder.",
    )
    revision: str | None = Field(
        None, description="Tag of the release on the Hub; when not given the release's name, RECIPE-DIGEST."
    )
    private: bool = Field(True, description="Create the repository as private.")
    validate_only: bool = Field(False, description="Build and validate the release folder, push nothing.")
    license: str = Field("other", description="License identifier for the model card.")
    language: list[str] = Field(default=["en"], description="Language codes for the model card.")
    tags: list[str] = Field(default=[], description="Further tags for the model card.")
