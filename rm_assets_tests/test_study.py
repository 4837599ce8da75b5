"""Studies with real Optuna: seeds, trials that are taken up again, pruning, a file that is none."""

import resource
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from rm_assets.core.errors import SearchError, StoreError
from rm_assets.core.recipe import SearchSection
from rm_assets.core.search import Trial
from rm_assets.resources.study import NUM_STARTUP_TRIALS, RunningTrial, Study, require_optuna

SEARCH = SearchSection.model_validate(
    {
        "seed": 3,
        "space": {
            "learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}, "pairs_per_step": {"low": 4, "high": 64},
            "objective": [{"kind": "regression"}, {"kind": "bradley_terry"}],
        },
    }
)  # fmt: skip


def done(study: Study, num_trials: int) -> list[Trial]:
    """Trials whose value follows from their settings, until there are so many."""
    while running := study.next_trial(num_trials):
        running.end("complete", running.settings["pairs_per_step"] / 64 - running.settings["learning_rate"])
    return study.trials()


def after_good_trials(study: Study) -> RunningTrial:
    """The trial after as many as it takes until one is pruned; those were at 0.5, 0.6, 0.7 in tenths 1, 2, 3."""
    for _ in range(NUM_STARTUP_TRIALS):
        good = study.next_trial(99)
        assert good is not None
        assert [good.is_hopeless(*look) for look in ((1, 0.5), (2, 0.6), (3, 0.7))] == [False] * 3
        good.end("complete", 0.9)
    running = study.next_trial(99)
    assert running is not None
    return running


def test_the_same_seed_asks_for_the_same_settings_also_past_the_random_trials(tmp_path: Path) -> None:
    with Study(tmp_path / "a.db", "a", SEARCH) as one, Study(tmp_path / "b.db", "b", SEARCH) as two:
        first = done(one, 13)
        assert first == done(two, 13)
    with Study(tmp_path / "c.db", "c", SEARCH.model_copy(update={"seed": 4})) as other:
        assert [t.settings for t in done(other, 13)] != [t.settings for t in first]
    assert len({str(trial.settings) for trial in first}) == 13
    assert all(type(trial.settings["pairs_per_step"]) is int for trial in first)
    assert {trial.settings["objective"]["kind"] for trial in first} == {"regression", "bradley_terry"}


def test_a_trial_that_was_left_behind_is_taken_up_again_and_the_rest_is_as_without_the_break(tmp_path: Path) -> None:
    with Study(tmp_path / "whole.db", "s", SEARCH) as whole:
        expected = done(whole, 12)
    with Study(tmp_path / "s.db", "s", SEARCH) as study:
        assert len(done(study, 11)) == 11
        left = study.next_trial(12)
        assert left is not None and left.number == 11 and not left.is_hopeless(1, 0.5)
    with Study(tmp_path / "s.db", "s", SEARCH) as study:
        assert [t.state for t in study.trials()] == ["complete"] * 11 + ["running"]
        again = study.next_trial(12)
        assert again is not None and (again.number, again.settings) == (11, left.settings)
        assert not again.is_hopeless(1, 0.0)  # it knows that this was noted
        again.end("complete", again.settings["pairs_per_step"] / 64 - again.settings["learning_rate"])
        assert study.next_trial(12) is None
        assert study.trials() == expected


def test_a_trial_below_the_median_at_the_same_tenth_is_pruned(tmp_path: Path) -> None:
    with Study(tmp_path / "s.db", "s", SEARCH) as study:
        running = after_good_trials(study)
        assert not running.is_hopeless(1, 0.0)  # too early in the training
        assert running.is_hopeless(2, 0.59)
        running.end("pruned", seconds=1.5)
        pruned = study.trials()[running.number]
        assert (pruned.state, pruned.value, pruned.tenths, pruned.seconds) == ("pruned", 0.59, 2, 1.5)


def test_a_trial_at_the_median_or_with_nobody_to_compare_it_to_goes_on(tmp_path: Path) -> None:
    with Study(tmp_path / "s.db", "s", SEARCH) as study:
        running = after_good_trials(study)
        assert not running.is_hopeless(2, 0.6)
        assert not running.is_hopeless(5, 0.0)  # no complete trial was looked at in this tenth


def test_no_trial_is_pruned_before_there_are_enough_complete_ones(tmp_path: Path) -> None:
    with Study(tmp_path / "s.db", "s", SEARCH) as study:
        for _ in range(NUM_STARTUP_TRIALS - 1):
            good = study.next_trial(99)
            assert good is not None and not good.is_hopeless(2, 0.9)
            good.end("complete", 0.9)
        running = study.next_trial(99)
        assert running is not None and not running.is_hopeless(2, 0.0)


def test_the_first_trial_has_the_settings_that_it_is_given(tmp_path: Path) -> None:
    first = {"learning_rate": 2e-4, "pairs_per_step": 5, "objective": {"kind": "bradley_terry"}}
    for _ in range(2):  # the second time it is there
        with Study(tmp_path / "s.db", "s", SEARCH, first) as study:
            trials = done(study, 2)
    assert trials[0].settings == first and len(trials) == 2


def test_importance_is_that_of_what_decides(tmp_path: Path) -> None:
    with Study(tmp_path / "s.db", "s", SEARCH) as study:
        done(study, NUM_STARTUP_TRIALS - 1)
        assert study.importance() == {}
        done(study, 20)
        found = study.importance()
    assert next(iter(found)) == "pairs_per_step" and sum(found.values()) == pytest.approx(1)


def test_a_file_that_is_no_study_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "s.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreError, match=r"(?s)is not a study.*remove it") as caught:
        Study(tmp_path / "s.db", "s", SEARCH)
    assert caught.value.code == "STORE_003"


def test_a_file_that_is_in_use_or_a_disk_that_is_full_costs_no_study(tmp_path: Path) -> None:
    file = tmp_path / "s.db"
    with Study(file, "s", SEARCH) as study:
        done(study, 2)
    with closing(sqlite3.connect(file)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match="database is locked") as caught:
            Study(file, "s", SEARCH)
        assert caught.value.code == "STORE_001" and "remove" not in caught.value.fix
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        with pytest.raises(StoreError, match="cannot write") as caught, Study(file, "s", SEARCH) as study:
            done(study, 4)
        assert caught.value.code == "STORE_001"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with Study(file, "s", SEARCH) as study:
        assert [trial.state for trial in done(study, 4)] == ["complete"] * 4


def test_without_optuna_one_sentence_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(SearchError, match=r"pip install 'rm-assets\[search\]'") as caught:
        require_optuna()
    assert caught.value.code == "SEARCH_002"
