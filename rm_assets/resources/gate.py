"""The gate of a recipe: reads report and rewards, compares with the release in use, and keeps a record of what is refused."""

import json
import tempfile
from pathlib import Path

from rm_assets.core.checks.finding import Finding
from rm_assets.core.digests import digest
from rm_assets.core.errors import ReleaseError, StoreError
from rm_assets.core.evaluation.gate import REPORT_CHECKS, Released, no_worse
from rm_assets.core.recipe import GateSection, LimitedCheck, Recipe
from rm_assets.core.records import ProxyReward
from rm_assets.executors.side_task import run_side_task
from rm_assets.resources.judgement import other_pairs, trained_on_test
from rm_assets.storage.lineage import Wanted, wanted
from rm_assets.storage.registry import ALIASES, Registry, Release
from rm_assets.storage.store import Store, locked
from rm_assets.storage.tables import read_table
from rm_assets.tasks.evaluate import REWARDS_FILE


def judge(store: Store, recipe: Recipe, name: str) -> Finding:
    """What one check of the gate finds in the recipe's report. A failure of severity `error` is noted as refused.

    Raises: StoreError STORE_002 if the report is not made; RmAssetsError if the release in use cannot be scored.
    """
    settings = getattr(recipe.gate, name)
    if settings.severity == "ignore":
        return Finding(True, "turned off by the recipe")
    want = wanted(store, recipe, "evaluation_report")
    if want.manifest is None:  # what a task that was killed left there is no report
        raise StoreError(
            "STORE_002", f"recipe '{recipe.name}' has no evaluation report as it wants it now, so there is nothing to judge",
            fix=f"run `rm-assets run {recipe.name}`",
        )  # fmt: skip
    folder = store.folder("evaluation_report", want.digest)
    if isinstance(settings, LimitedCheck):
        report = json.loads((folder / "report.json").read_text("utf-8"))
        finding = REPORT_CHECKS[name](report, settings.limit)
    else:
        rewards = list(read_table(folder / REWARDS_FILE, ProxyReward))
        finding = no_worse(rewards, _released(store, recipe, want), recipe.evaluation)
    if not finding.passed and settings.severity == "error":
        Registry(store).refuse(recipe.name, want.digest, name, finding.sentence)
    return finding


def require_passed(store: Store, recipe: Recipe) -> None:
    """Raises ReleaseError RELEASE_004 if a check of severity `error` fails, whoever asks for the release and in whatever run."""
    failed = [
        f"{name}: {finding.sentence}"
        for name in GateSection.model_fields
        if getattr(recipe.gate, name).severity == "error" and not (finding := judge(store, recipe, name)).passed
    ]
    if failed:
        raise ReleaseError(
            "RELEASE_004",
            f"the gate refuses the model of recipe '{recipe.name}'",
            why="; ".join(failed),
            fix="make a better model, or change the limits of the section `gate` if they are wrong",
        )


def _released(store: Store, recipe: Recipe, want: Wanted) -> Released | None:
    """The recipe's release in production, else in staging, with its rewards for all test responses of now."""
    registry = Registry(store)
    names = registry.aliases(recipe.name)
    alias = next((alias for alias in ALIASES if alias in names), None)
    if alias is None:
        return None
    release = registry.find(names[alias])
    return Released(
        release.name, alias, _rewards(store, recipe, want, registry, release), _warning(store, recipe, want, release)
    )


def _warning(store: Store, recipe: Recipe, want: Wanted, release: Release) -> str:
    """Where the release was trained on test prompts of now; nothing where its files are damaged or gone."""
    gold = want.inputs["gold_rewards"]
    try:
        manifest = store.manifest("hub_release", release.digest)
        model = store.manifest("reward_model", manifest.inputs["reward_model"]["digest"]) if manifest else None
        pairs = other_pairs(store, model, gold) if model else None
    except StoreError:
        return ""
    return trained_on_test(store, recipe.name, gold, release.name, pairs) or "" if pairs else ""


def _rewards(
    store: Store, recipe: Recipe, want: Wanted, registry: Registry, release: Release
) -> list[ProxyReward] | None:
    """Those of its own report if that has the same gold rewards, else scored anew; None if its files are gone."""
    gold = want.inputs["gold_rewards"]
    report = store.manifest("evaluation_report", release.report)
    if report and report.inputs["gold_rewards"]["data_version"] == gold.data_version:
        return list(read_table(store.folder("evaluation_report", release.report) / REWARDS_FILE, ProxyReward))
    name = digest({"release": release.digest, "gold_rewards": gold.data_version})
    file = store.home / "registry" / "rewards" / f"{name}.parquet"
    if not file.is_file():
        try:
            folder = registry.folder(release)
        except (ReleaseError, StoreError):
            return None
        gold_file = store.folder("gold_rewards", gold.digest) / "gold_rewards.parquet"
        _rescore(store, recipe, folder, gold_file, file)
    return list(read_table(file, ProxyReward))


def _rescore(store: Store, recipe: Recipe, release: Path, gold_rewards: Path, rewards: Path) -> None:
    places = {"home": store.home, "release": release, "gold_rewards": gold_rewards, "rewards": rewards}
    request = {"recipe": recipe.model_dump(mode="json"), **{name: str(place) for name, place in places.items()}}
    with tempfile.TemporaryDirectory(dir=store.home, prefix=".rescore-") as folder, locked(Path(folder) / "lock"):
        run_side_task(
            "rescore", request, Path(folder), result=f"the table of rewards of the release in {release}",
            timeout_seconds=recipe.execution.timeout_seconds,
        )  # fmt: skip
