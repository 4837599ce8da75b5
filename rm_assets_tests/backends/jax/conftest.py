"""Tiny checkpoints of the three shapes that the JAX backend computes."""

from pathlib import Path
from typing import Any

import pytest

from rm_assets_tests.fakes import save_classifier

SHAPES: dict[str, dict[str, Any]] = {
    # heads that are wider than their share of the hidden width
    "qwen3": {"kind": "qwen3", "num_attention_heads": 4, "num_key_value_heads": 2},
    # with waves that are kept, mixed and stretched
    "llama-3.1": {
        "kind": "llama",
        "rope_parameters": {
            "rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 256,
        },
    },
    "smollm2": {
        "kind": "llama", "hidden_size": 24, "num_attention_heads": 3, "tie_word_embeddings": True,
        "rms_norm_eps": 1e-5, "rope_parameters": {"rope_type": "default", "rope_theta": 100_000.0},
    },
}  # fmt: skip


@pytest.fixture(scope="session", params=SHAPES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model of each shape."""
    return save_classifier(tmp_path_factory.mktemp("model"), **SHAPES[request.param])
