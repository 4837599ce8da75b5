"""What a task has committed is found by the next machine, whole or not at all."""

from pathlib import Path

import pytest

from rm_assets.backends import training_state
from rm_assets.core.errors import StoreError
from rm_assets.storage.remote import Remote
from rm_assets.tasks import saved_work
from rm_assets.tasks.saved_work import SavedWork, saving
from rm_assets_tests.processes import wait_for


class Machine:
    """A home of its own, and the store's URL that all have."""

    def __init__(self, folder: Path, name: str) -> None:
        self.home, self.bucket = folder / name, folder / "bucket"
        self.work = self.home / "reward_model" / "d" / "work"
        self.saved = SavedWork(Remote(self.bucket.as_uri(), self.home / "remote"), self.home, "reward_model", "d")

    def commit_shard(self, name: str) -> None:
        shard = self.home / "shards" / "responses" / "i" / f"{name}.parquet"
        shard.parent.mkdir(parents=True, exist_ok=True)
        shard.write_text(name)

    def commit_state(self, step: int) -> None:
        folder = self.work / f"checkpoint-{step}"
        (folder / "parts").mkdir(parents=True)
        (folder / "parts" / "weights").write_text(f"weights of {step}")
        best = training_state.best_file(self.work, step)
        best.write_text("best")
        training_state.mark_complete(folder, best)

    def files(self) -> list[str]:
        return sorted(str(f.relative_to(self.home)) for f in self.home.rglob("*") if f.is_file())


@pytest.fixture
def one(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path, "one")
    training_state.prepare(machine.work, "this very training")
    return machine


@pytest.fixture
def two(tmp_path: Path) -> Machine:
    return Machine(tmp_path, "two")


def test_shards_and_the_newest_state_come_to_the_next_machine(one: Machine, two: Machine) -> None:
    one.commit_shard("a")
    one.commit_state(20)
    one.saved.save()
    one.commit_shard("b")
    one.commit_state(40)
    one.saved.save()
    assert two.saved.fetch() == 3
    state = training_state.prepare(two.work, "this very training")
    assert state == training_state.State(two.work / "checkpoint-40", 40)
    assert (state.folder / "parts" / "weights").read_text() == "weights of 40"
    assert two.files() == [file for file in one.files() if "-20" not in file]
    assert "checkpoint-20" not in {path.name for path in one.bucket.rglob("*")}  # and no older one takes up room
    two.commit_shard("c")
    two.saved.save()
    assert Machine(one.home.parent, "three").saved.fetch() == 4


@pytest.mark.parametrize("fault", ["no list", "half a list", "another file", "a file is gone"])
def test_what_is_not_whole_is_left_alone(fault: str, one: Machine, two: Machine) -> None:
    one.commit_shard("a")
    one.commit_state(20)
    one.saved.save()
    place = one.bucket / "work" / "reward_model" / "d"
    (weights,) = place.rglob("weights")
    if fault == "no list":
        (place / "checkpoint-20.json").unlink()
    elif fault == "half a list":
        (place / "checkpoint-20.json").write_text('{"reward_model')
    elif fault == "another file":
        weights.write_text("weights of 2")
    else:
        weights.unlink()
    assert two.saved.fetch() == 1
    assert training_state.prepare(two.work, "this very training") is None
    assert [file for file in two.files() if file.startswith("shards")] == ["shards/responses/i/a.parquet"]


def test_a_list_that_leads_out_of_the_store_is_left_alone(one: Machine, two: Machine) -> None:
    one.commit_shard("a")
    one.saved.save()
    (file,) = one.bucket.rglob("*.json")
    file.write_text(file.read_text().replace("shards/responses", "../elsewhere"))
    assert two.saved.fetch() == 0 and not (two.home.parent / "elsewhere").exists()


def test_what_is_committed_is_saved_while_the_work_goes_on_and_removed_when_it_is_done(
    one: Machine, two: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saved_work, "SECONDS_BETWEEN_LOOKS", 0.05)
    said: list[str] = []

    def work_and_fail() -> None:
        with saving(one.saved, said.append):
            one.commit_shard("a")
            wait_for(lambda: list(one.bucket.rglob("*a.json")), 10)
            monkeypatch.setattr(saved_work, "SECONDS_BETWEEN_LOOKS", 60)
            one.commit_shard("b")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work_and_fail()
    with saving(two.saved, said.append):
        assert (two.home / "shards" / "responses" / "i" / "b.parquet").read_text() == "b"
    assert said == ["goes on from 2 committed shards or states of another machine"]
    assert [path for path in one.bucket.rglob("*") if path.is_file()] == []


def test_what_lies_on_a_disk_that_was_there_before_is_not_saved(one: Machine, two: Machine) -> None:
    """As a volume that many tasks have for their cache, with the shards of all."""
    one.commit_shard("of another task")
    one.commit_state(20)
    assert one.saved.fetch() == 0
    one.commit_shard("a")
    one.commit_state(40)
    one.saved.save()
    assert two.saved.fetch() == 2
    assert not [file for file in two.files() if "another" in file or "-20" in file]


class Unreachable(SavedWork):
    """The store does not answer when work is saved or removed, and a state vanishes while it is looked for."""

    fault: Exception = StoreError("STORE_006", "does not answer")

    def save(self) -> None:
        raise self.fault

    def remove(self) -> None:
        raise self.fault


def test_work_that_cannot_be_saved_hides_neither_an_error_nor_a_result(
    one: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saved_work, "SECONDS_BETWEEN_LOOKS", 0.02)
    one.saved.__class__ = Unreachable
    said: list[str] = []
    with saving(one.saved, said.append):
        wait_for(lambda: len(said) >= 2, 10)
        monkeypatch.setattr(Unreachable, "fault", FileNotFoundError("a state that is gone"))
        wait_for(lambda: "that is gone" in said[-1], 10)
        monkeypatch.setattr(Unreachable, "fault", StoreError("STORE_006", "does not answer"))
        wait_for(lambda: "does not answer" in said[-1], 10)  # and it is tried again
    assert "could not be removed" in said[-1]
    with pytest.raises(ZeroDivisionError), saving(one.saved, said.append):
        raise ZeroDivisionError
