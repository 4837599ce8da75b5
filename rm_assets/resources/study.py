"""A persisted study: which settings to try next, and which trials are not worth their end. The one place that imports Optuna.

A SQLite file and not Optuna's journal: a process that is killed while it writes leaves a transaction that is rolled back,
where a torn line would make the journal unreadable. Neither holds a pickle.
"""

import importlib
import json
import sqlite3
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from rm_assets.core.digests import digest
from rm_assets.core.errors import SearchError, StoreError
from rm_assets.core.recipe import SearchRange, SearchSection
from rm_assets.core.recipe.search import choice_label, takes_whole_numbers
from rm_assets.core.search import Trial

if TYPE_CHECKING:
    import optuna

NUM_STARTUP_TRIALS = 5
"""Complete trials before any is pruned."""
FIRST_TENTH = 2
"""Tenth of the training from which on a trial may be pruned: before, warm-up and the new head decide."""
NUM_COMPARED = 3
"""Trials that a median is of, at least."""
UNUSABLE = (
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
)  # fmt: skip
"""SQLite's codes for a file that is sound, as far as is known, and cannot be written."""
STATES: dict[str, Literal["complete", "pruned", "failed", "running"]] = {
    "COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running",
}  # fmt: skip


def require_optuna() -> None:
    """Raises: SearchError SEARCH_002 where the package is missing."""
    try:
        importlib.import_module("optuna")
    except ImportError:
        raise SearchError(
            "SEARCH_002", "a search needs the package optuna", fix="pip install 'rm-assets[search]'"
        ) from None


class Study:
    """The trials of one study, in a file that outlives its process.

    The sampler (TPE, Bergstra et al. 2011) of a trial is seeded with the search's seed and the trial's number, so a search
    that was interrupted asks for the same settings as one that was not. A trial is pruned when its best accuracy so far is
    below the median of complete trials at the same tenth of their training.
    Raises: SearchError SEARCH_002 without Optuna, StoreError STORE_003 for a file that is no study, STORE_001, also where its block
    ends, for one that cannot be written.
    """

    def __init__(self, file: Path, name: str, search: SearchSection, first: Mapping[str, Any] | None = None) -> None:
        require_optuna()
        import optuna
        from sqlalchemy.exc import SQLAlchemyError

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._file, self._search = file, search
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._storage = optuna.storages.RDBStorage(f"sqlite:///{file}")
            self._study = optuna.create_study(
                storage=self._storage, study_name=name, direction="maximize", load_if_exists=True,
                pruner=optuna.pruners.MedianPruner(NUM_STARTUP_TRIALS, FIRST_TENTH, n_min_trials=NUM_COMPARED),
            )  # fmt: skip
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError, RuntimeError) as error:
            if known := _unusable(file, error):
                raise known from None
            raise StoreError(
                "STORE_003", f"{file} is not a study that this version of Optuna reads", why=str(error).splitlines()[0],
                fix="remove it: the search begins anew, and models that are made are not made again",
            ) from None  # fmt: skip
        if first is not None and not self._study.trials:
            self._study.enqueue_trial(self._labels(first))

    def __enter__(self) -> "Study":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._storage.remove_session()
        self._storage.engine.dispose()
        if known := _unusable(self._file, error):
            raise known from None

    def next_trial(self, num_trials: int) -> "RunningTrial | None":
        """The trial to work on: one that was interrupted, else a new one; None when there are `num_trials`.

        Nobody else may work on the study now: a running trial is one that its process has left behind.
        """
        import optuna

        states = optuna.trial.TrialState
        left_behind = self._study.get_trials(deepcopy=False, states=(states.RUNNING,))
        begun = [trial for trial in self._study.get_trials(deepcopy=False) if trial.state != states.WAITING]
        if not left_behind and len(begun) >= num_trials:
            return None
        number = left_behind[0].number if left_behind else len(begun)
        self._study.sampler = optuna.samplers.TPESampler(seed=int(digest([self._search.seed, number])[:8], 16))
        trial = optuna.trial.Trial(self._study, left_behind[0]._trial_id) if left_behind else self._study.ask()
        labels = {name: _suggest(trial, name, dimension) for name, dimension in self._search.space.items()}
        return RunningTrial(self._study, trial, self._settings(labels))

    def trials(self) -> list[Trial]:
        """Every trial that has begun, in order."""
        return [self._plain(trial) for trial in self._study.get_trials(deepcopy=False) if trial.state.name in STATES]

    def importance(self) -> dict[str, float]:
        """Share of each setting in what tells the better complete trials from the rest; empty where they cannot tell.

        PED-ANOVA (Watanabe et al. 2023).
        """
        import optuna

        if sum(trial.state == "complete" for trial in self.trials()) < NUM_STARTUP_TRIALS:
            return {}
        with warnings.catch_warnings():
            # Optuna warns, and gives every setting the same share, where the better trials are all trials.
            warnings.simplefilter("error", UserWarning)
            try:
                return optuna.importance.get_param_importances(self._study)
            except UserWarning:
                return {}

    def _plain(self, trial: "optuna.trial.FrozenTrial") -> Trial:
        last = max(trial.intermediate_values, default=None)
        return Trial(
            number=trial.number, state=STATES[trial.state.name], settings=self._settings(trial.params), value=trial.value,
            tenths=last if trial.state.name == "PRUNED" else None, **trial.user_attrs,
        )  # fmt: skip

    def _labels(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        return {name: choice_label(v) if self._is_choice(name) else v for name, v in settings.items()}

    def _settings(self, labels: Mapping[str, Any]) -> dict[str, Any]:
        """In the order of the space."""
        known = [name for name in self._search.space if name in labels]
        return {name: json.loads(labels[name]) if self._is_choice(name) else labels[name] for name in known}

    def _is_choice(self, name: str) -> bool:
        return isinstance(self._search.space[name], list)


class RunningTrial:
    """A trial that is worked on. It stays `running` in the study until `end` is called."""

    def __init__(self, study: "optuna.Study", trial: "optuna.Trial", settings: dict[str, Any]) -> None:
        self._study, self._trial = study, trial
        self.number, self.settings = trial.number, settings
        self._reported = set(study.trials[trial.number].intermediate_values)

    def is_hopeless(self, tenth: int, accuracy: float) -> bool:
        """Notes the accuracy in a tenth of the training, once, and says whether to prune."""
        if tenth in self._reported:
            return False
        self._reported.add(tenth)
        self._trial.report(accuracy, tenth)
        return bool(self._trial.should_prune())

    def end(self, state: Literal["complete", "pruned", "failed"], value: float | None = None, **about: Any) -> None:
        """Keeps how it ended, with fields of core.search.Trial."""
        import optuna

        for name, fact in about.items():
            self._trial.set_user_attr(name, fact)
        ends = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}
        self._study.tell(self._trial, value, state=optuna.trial.TrialState[ends[state]])


def _unusable(file: Path, error: BaseException | None) -> StoreError | None:
    """STORE_001 if the error came from a disk, or from another program, that does not let SQLite write; the study is whole."""
    while error is not None:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in UNUSABLE:
            return StoreError(
                "STORE_001", f"cannot write {file}", why=str(error),
                fix="free some space, make the folder writable, or end what else has the file open; then run again, it goes on",
            )  # fmt: skip
        error = error.__cause__
    return None


def _suggest(trial: "optuna.Trial", name: str, dimension: list[Any] | SearchRange) -> Any:
    """The value of this setting, which a trial that is taken up again keeps."""
    if isinstance(dimension, list):
        return trial.suggest_categorical(name, [choice_label(choice) for choice in dimension])
    if takes_whole_numbers(name):
        return trial.suggest_int(name, int(dimension.low), int(dimension.high), log=dimension.log)
    return trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log)
