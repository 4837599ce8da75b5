"""What a run says while a task works."""

from typing import Any

import pytest

from rm_assets.resources import compute


def test_a_training_is_told_in_a_line_with_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "SECONDS_BETWEEN_PROGRESS", 0.0)
    said: list[str] = []
    listener = compute._Listener("reward_model", said.append, said.append)
    figures: dict[str, Any] = {"loss": 0.69071, "accuracy": 0.5, "margin": None, "learning_rate": 2.4e-4}
    listener({"event": "metrics", "step": 3, "values": {**figures, "eta_seconds": 675.2, "memory_mb": 663.5}})
    listener({"event": "metrics", "step": 4, "values": {"loss": 0.5}})
    assert said == [
        "reward_model: step 3: loss 0.6907, accuracy 0.5, learning rate 0.00024, about 675 s left",
        "reward_model: step 4: loss 0.5",
    ]
