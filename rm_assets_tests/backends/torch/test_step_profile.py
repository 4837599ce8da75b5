"""The profile of a few steps: a folder that is whole or not there, and seconds of the steps that were seen."""

import time
from pathlib import Path

import pytest
import torch

from rm_assets.backends.torch.step_profile import StepProfile


def profiled(folder: Path, num_steps: int, step_seconds: float = 0.0, between_seconds: float = 0.0) -> str:
    """The sentence of a profile of so many steps."""
    made = StepProfile(folder, torch.device("cpu"))
    for _ in range(num_steps):
        made.step_begins()
        torch.ones(8, 8) @ torch.ones(8, 8)
        time.sleep(step_seconds)
        made.step_ended()
        time.sleep(between_seconds)
    made.finish()
    assert made.sentence
    return made.sentence


def test_a_profile_cut_short_does_not_count_and_the_next_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "work" / "profile"

    def killed(self: StepProfile, averages: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(StepProfile, "_bottleneck", killed)
        with pytest.raises(KeyboardInterrupt):
            profiled(folder, 6)
    assert not folder.exists()
    for _ in range(2):  # over what the killed one left, and over a whole one
        profiled(folder, 6)
        assert sorted(f.name for f in folder.iterdir()) == ["memory.csv", "operators.txt", "trace.json.gz"]
    assert [f.name for f in folder.parent.iterdir()] == ["profile"]


@pytest.mark.parametrize("num_steps", [3, 6, 8])
def test_the_seconds_of_a_step_are_those_of_the_profiled_steps_alone(tmp_path: Path, num_steps: int) -> None:
    sentence = profiled(tmp_path / "profile", num_steps, step_seconds=0.1, between_seconds=0.2)
    assert 0.1 <= float(sentence.split()[1]) < 0.2  # "Of 0.101 s a step"
