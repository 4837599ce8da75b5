"""The seven stages: what each reads, which task makes it, and the number to raise when its output changes.

Raising a version rebuilds that asset everywhere; a golden-output test fails when output changes without a new number.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rm_assets.core.errors import DataError
from rm_assets.core.recipe import Recipe, TaskName
from rm_assets.core.shares import at_shares

PLACES_OF_SERVERS = ("base_url", "api_key_env")
ROWS_OF_PROMPTS = ("source", "test", "prompt_field", "dialogue_fields", "transcript", "max_prompts")
"""What of the section `prompts` decides which rows are read, and how."""


@dataclass(frozen=True)
class Stage:
    """One asset: its task, recipe section and inputs.

    `parts` names the files of an input that alone decide the asset's content, where not all of the input does.
    """

    asset: str
    task: TaskName
    section: str
    inputs: tuple[str, ...]
    version: int
    parts: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def settings(self, recipe: Recipe, fingerprint: Callable[[str], str]) -> dict[str, Any]:
        """What of the recipe decides this asset's content, as plain data.

        Local files and folders are replaced by their fingerprints: their content counts, not where they lie. For the same
        reason a server's address and the name of its key's variable are left out.
        """
        section = getattr(recipe, self.section)
        settings: dict[str, Any] = _by_content(section.model_dump(mode="json"), fingerprint)
        if section.reads_prompt_rows:
            # The prompts' data version says nothing of what else their rows hold: a label, an answer.
            rows = recipe.prompts.model_dump(mode="json", include=set(ROWS_OF_PROMPTS))
            settings["rows_of_prompts"] = _by_content(rows, fingerprint)
        return settings | ({"run_seed": recipe.seed} if self.asset == "reward_model" else {})

    def reads(self, recipe: Recipe) -> dict[str, Recipe]:
        """What the asset reads, and of which recipe: its own, but for the models of a learning curve."""
        own = dict.fromkeys(self.inputs, recipe)
        shares = at_shares(recipe) if self.asset == "evaluation_report" else {}
        return own | {model_at(share): of for share, of in shares.items()}


def model_at(share: float) -> str:
    """The name under which the evaluation reads a model of the learning curve."""
    return f"reward_model at share {share}"


def asset_of(name: str) -> str:
    """The asset that stands behind the name of an input."""
    return name.partition(" ")[0]


def _by_content(value: Any, fingerprint: Callable[[str], str]) -> Any:
    if isinstance(value, list):
        return [_by_content(inner, fingerprint) for inner in value]
    if not isinstance(value, dict):
        return value
    return {
        key: fingerprint(inner)
        if key == "path" and inner is not None
        else [fingerprint(pattern) for pattern in inner]
        if key == "files"
        else _rankings_so_far(inner, fingerprint)
        if key == "rankings"
        else inner
        if key == "columns"  # its keys are a user's names, which may be `path` or `files`, too
        else _by_content(inner, fingerprint)
        for key, inner in value.items()
        if key not in PLACES_OF_SERVERS
    }


def _rankings_so_far(path: str, fingerprint: Callable[[str], str]) -> str | None:
    """The fingerprint, or None while nobody has ranked anything: the file comes with the first ranking."""
    try:
        return fingerprint(path)
    except DataError as error:
        if error.code != "DATA_001":
            raise
        return None


STAGES: dict[str, Stage] = {
    stage.asset: stage
    for stage in (
        Stage("prompts", "ingest", "prompts", (), version=3),
        Stage("sampled_responses", "sample", "sampling", ("prompts",), version=2),
        Stage("gold_rewards", "score", "gold", ("sampled_responses",), version=5),
        Stage("implicit_pairs", "pair", "pairs", ("gold_rewards",), version=3),
        Stage(
            "reward_model",
            "train",
            "training",
            ("implicit_pairs",),
            version=5,
            parts={"implicit_pairs": ("train.jsonl", "validation.jsonl")},
        ),
        Stage(
            "evaluation_report", "evaluate", "evaluation", ("gold_rewards", "implicit_pairs", "reward_model"), version=7
        ),
        Stage("hub_release", "release", "release", ("reward_model", "evaluation_report"), version=3),
    )
}
