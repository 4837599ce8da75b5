"""The metrics log: readable at any moment, also after a kill, and without a step twice."""

import json
from pathlib import Path

import pytest

from rm_assets.storage.metrics_log import MetricsLog, Run, read_run


def log(file: Path, run_id: str = "r1") -> MetricsLog:
    return MetricsLog(file, recipe="toy", asset="reward_model", digest="d1", run_id=run_id)


def read(file: Path) -> Run:
    run = read_run(file)
    assert run is not None
    return run


def losses(run: Run) -> list[tuple[int, float]]:
    return [(step["step"], step["loss"]) for step in run.steps]


def test_what_was_written_comes_back_with_its_beginning_and_end(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    writer = log(file)
    with writer.ending():
        writer.training_begins(2, "cpu")
        assert read(file).steps == [] and read(file).end is None
        writer.metrics(1, {"loss": 0.7, "accuracy": 0.5})
        writer.metrics(2, {"loss": 0.6})
    run = read(file)
    assert (run.recipe, run.asset, run.digest, run.run_id) == ("toy", "reward_model", "d1", "r1")
    assert (run.device, run.num_steps, run.num_resumed) == ("cpu", 2, 0)
    assert losses(run) == [(1, 0.7), (2, 0.6)] and run.steps[0]["accuracy"] == 0.5
    assert run.end is not None and run.end["status"] == "finished" and run.last_time == run.end["time"]
    assert run.started_at <= run.steps[0]["time"] <= run.steps[1]["time"] <= run.end["time"]


def test_steps_that_are_repeated_after_a_kill_replace_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    first, second = log(file), log(file, "r2")
    first.training_begins(4, "cpu")
    for step in (1, 2, 3):
        first.metrics(step, {"loss": step / 10})
    second.training_begins(4, "cuda")  # from the state of step 1
    second.metrics(2, {"loss": 2.0})
    assert losses(read(file)) == [(1, 0.1), (2, 2.0)]
    second.metrics(3, {"loss": 3.0})
    run = read(file)
    assert losses(run) == [(1, 0.1), (2, 2.0), (3, 3.0)]
    assert run.num_resumed == 1 and run.run_id == "r2" and run.device == "cuda"


@pytest.mark.parametrize("num_bytes", [1, 20, 60])
def test_a_torn_line_costs_itself_alone(tmp_path: Path, num_bytes: int) -> None:
    file = tmp_path / "metrics.jsonl"
    writer = log(file)
    writer.training_begins(3, "cpu")
    writer.metrics(1, {"loss": 0.1})
    writer.metrics(2, {"loss": 0.2})
    file.write_bytes(file.read_bytes()[:-num_bytes])
    assert losses(read(file)) == ([(1, 0.1)] if num_bytes > 1 else [(1, 0.1), (2, 0.2)])
    log(file).metrics(3, {"loss": 0.3})
    assert losses(read(file))[-1] == (3, 0.3) and losses(read(file))[0] == (1, 0.1)


def test_a_failure_is_the_last_line_until_the_training_is_taken_up_again(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    writer = log(file)
    writer.training_begins(3, "cpu")
    with pytest.raises(ValueError, match="too much"), writer.ending():
        raise ValueError("too much\nof it")
    assert (read(file).end or {})["error"] == "too much"
    log(file).training_begins(3, "cpu")
    assert read(file).end is None


def test_a_task_that_trains_nothing_writes_no_log(tmp_path: Path) -> None:
    with log(tmp_path / "metrics.jsonl").ending():
        pass
    assert not (tmp_path / "metrics.jsonl").exists()


def test_lines_that_are_no_entries_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('1\n{}\nnull\n{"event": "step"}\n' + json.dumps({"event": "step", "time": "t", "step": 1}) + "\n")
    assert read_run(file) is None  # nothing has begun
