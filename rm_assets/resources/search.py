"""Search over settings of the training: trials made one after the other through the store, in a study that can be resumed."""

import shutil
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rm_assets.core.digests import digest
from rm_assets.core.errors import DataError, RmAssetsError, SearchError
from rm_assets.core.recipe import Recipe, SearchSection
from rm_assets.core.search import Trial, best_trial, own_settings, tenths_seen, trial_recipe
from rm_assets.core.stages import STAGES
from rm_assets.resources.compute import Compute, Made, Say
from rm_assets.resources.study import RunningTrial, Study, require_optuna
from rm_assets.storage.lineage import wanted
from rm_assets.storage.metrics_log import METRICS_LOG, MetricsLog, read_run
from rm_assets.storage.store import Store, locked, telling

FAULTS_OF_SETTINGS = ("RECIPE_003", "MODEL_006", "MODEL_008", "TASK_001", "TASK_002", "TASK_003")
"""What one trial's settings may bring about; any other error would be every trial's, and ends the search."""


@dataclass(frozen=True, kw_only=True)
class Searched:
    """A study when its trials are done."""

    study: str
    file: Path
    trials: list[Trial]
    best: Trial
    importance: dict[str, float]
    num_pairs: int


class _Hopeless(Exception):  # it is no error: it ends the task of a trial that is pruned
    pass


def search_of(recipe: Recipe) -> SearchSection:
    """Raises: SearchError SEARCH_001 for a recipe without the section, SEARCH_002 without Optuna."""
    if recipe.search is None:
        raise SearchError(
            "SEARCH_001", f"recipe '{recipe.name}' has no section search",
            fix="add for example `search: {space: {learning_rate: {low: 1.0e-5, high: 1.0e-3, log: true}, num_epochs: [1, 2]}}`",
        )  # fmt: skip
    require_optuna()
    return recipe.search


def run_search(compute: Compute, recipe: Recipe, *, num_trials: int, say: Say, debug: Say) -> Searched:
    """Trials until there are `num_trials`, from the pairs that are made. What was done before is not done again.

    Raises: StoreError STORE_002 if the pairs are not made, DataError DATA_005 without a validation pair, SearchError
    SEARCH_003 if no trial came to a value, and what no setting could mend.
    """
    search, store = search_of(recipe), compute.store()
    name, num_pairs = _identity(store, recipe, search)
    file = folder_of(store, recipe) / f"{name}.db"
    with (
        locked(file.with_suffix(".lock"), partial(telling, say, "another process searches this study")),
        Study(file, name, search, own_settings(recipe, search)) as study,
    ):
        if there := [trial for trial in study.trials() if trial.state != "running"]:
            say(f"study {name}: {len(there)} trials are there")
        while trial := study.next_trial(num_trials):
            _Work(compute, recipe, trial, say, debug).do()
            say(_sentence(study.trials()[trial.number]))
        trials = study.trials()
        best = best_trial(trials)
        if best is None:
            raise SearchError(
                "SEARCH_003", f"none of the {len(trials)} trials of '{recipe.name}' gave a value",
                why="they failed with " + ", ".join(sorted({t.error for t in trials if t.error})),
                fix=f"narrow search.space and run again; the errors stand above, the trials in {file}",
            )  # fmt: skip
        return Searched(
            study=name, file=file, trials=trials, best=best, importance=study.importance(), num_pairs=num_pairs
        )


def folder_of(store: Store, recipe: Recipe) -> Path:
    """Where the studies of a recipe lie."""
    return store.home / "search" / recipe.name


def _identity(store: Store, recipe: Recipe, search: SearchSection) -> tuple[str, int]:
    """The study's name, which is another one as soon as values could not be compared, and the number of validation pairs."""
    want = wanted(store, recipe, "reward_model")
    pairs = want.inputs["implicit_pairs"]
    if not pairs.counts["validation_pairs"]:
        raise DataError(
            "DATA_005", f"the pairs of '{recipe.name}' have no validation pair, and a search judges trials by them",
            fix="raise prompts.split.validation",
        )  # fmt: skip
    stays = {key: value for key, value in want.settings.items() if key not in search.space}
    decides = {
        "stage_version": STAGES["reward_model"].version, "pairs": pairs.version_read_by("reward_model"), "settings": stays,
        "space": search.model_dump(mode="json", include={"seed", "space"}),
    }  # fmt: skip
    return digest(decides)[:16], pairs.counts["validation_pairs"]


class _Work:
    """One trial: its reward model made or found, its figures noted while it trains."""

    def __init__(self, compute: Compute, recipe: Recipe, trial: RunningTrial, say: Say, debug: Say) -> None:
        self._compute, self._recipe, self._trial = compute, recipe, trial
        self._store = compute.store()
        self._say: Say = lambda text: say(f"trial {trial.number}: {text}")
        self._debug: Say = lambda text: debug(f"trial {trial.number}: {text}")
        self._started = time.monotonic()

    def do(self) -> None:
        """Raises: RmAssetsError for what no setting of the training could mend."""
        trial = self._trial
        try:
            recipe = trial_recipe(self._recipe, trial.number, trial.settings)
            want = wanted(self._store, recipe, "reward_model")
            folder = self._store.folder("reward_model", want.digest)
            if want.manifest is None and self._notes(folder):
                raise _Hopeless
            made = self._compute.make_asset(
                recipe, "reward_model", say=self._say, debug=self._debug, watch=lambda: self._watch(folder)
            )
        except _Hopeless:
            self._drop_state(recipe, want.digest)
            trial.end("pruned", digest=want.digest, **self._seconds())
        except RmAssetsError as error:
            if error.code not in FAULTS_OF_SETTINGS:
                raise
            self._say(f"failed: {error}")
            trial.end("failed", error=error.code, **self._seconds())
        else:
            self._complete(made)

    def _complete(self, made: Made) -> None:
        value = made.manifest.facts["validation_accuracy"]
        if value is None:
            raise DataError(
                "DATA_005", f"no validation pair of '{self._recipe.name}' is left to judge a trial by",
                why="each is longer than training.max_length, or its two sides are the same tokens",
                fix="raise training.max_length, or prompts.split.validation",
            )  # fmt: skip
        while self._notes(made.folder):
            pass  # what is trained is not pruned, but others are compared to all of it
        self._trial.end(
            "complete", value, digest=made.manifest.digest, num_tokens=made.manifest.counts["tokens"],
            was_there=made.was_there, **self._seconds(),
        )  # fmt: skip

    def _watch(self, folder: Path) -> None:
        if self._notes(folder):
            raise _Hopeless

    def _notes(self, folder: Path) -> bool:
        """Notes what the metrics log says that is new; True as soon as it is so bad that the trial should end."""
        log = folder / METRICS_LOG
        run = read_run(log) if log.is_file() else None
        seen = tenths_seen(run.steps, run.num_steps) if run else ()
        return any(self._trial.is_hopeless(tenth, accuracy) for tenth, accuracy in seen)

    def _drop_state(self, recipe: Recipe, of_digest: str) -> None:
        """Nobody goes on with a pruned training, so its state goes, unless somebody else has begun to."""
        if not self._store.is_leased("reward_model", of_digest):
            with self._store.lease("reward_model", of_digest):
                folder = self._store.folder("reward_model", of_digest)
                shutil.rmtree(folder / "work", ignore_errors=True)
                log = MetricsLog(
                    folder / METRICS_LOG, recipe=recipe.name, asset="reward_model", digest=of_digest, run_id=""
                )
                log.pruned()

    def _seconds(self) -> dict[str, Any]:
        return {"seconds": round(time.monotonic() - self._started, 1)}


def _sentence(trial: Trial) -> str:
    value = "" if trial.value is None else f", accuracy {trial.value:.4f} on validation pairs"
    return f"trial {trial.number}: {trial.error or trial.state}{value}"
