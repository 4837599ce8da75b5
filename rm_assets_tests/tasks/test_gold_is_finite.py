"""A gold reward that is no finite number reaches no table, whatever file it comes in and wherever it stands in it."""

import json
import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from rm_assets.core.errors import RmAssetsError
from rm_assets.core.recipe import Recipe
from rm_assets_tests.fakes import save_classifier
from rm_assets_tests.tasks.conftest import ASSETS, Bench, files, in_this_process

NUM = 10
SPLIT = {"train": 0.5, "validation": 0.0, "test": 0.5}
OUT_OF_RANGE = {"jsonl": "1e999", "csv": "1e999", "parquet": "inf"}
"""How a number is written that no float holds."""


def written(bench: Bench, form: str, column: str, numbers: list[str]) -> dict[str, Any]:
    """Rows of preferences and of rated responses, of which one number each is given as a file would hold it."""
    rows = [{"prompt": f"q{n}", "one": f"a{n}", "two": f"b{n}"} for n in range(NUM)]
    path = bench.folder / "recipes" / f"rows.{form}"
    if form == "parquet":
        pq.write_table(
            pa.Table.from_pylist([{**row, column: float(x)} for row, x in zip(rows, numbers, strict=True)]), path
        )
    elif form == "csv":
        cells = [",".join([*row.values(), number]) + "\n" for row, number in zip(rows, numbers, strict=True)]
        path.write_text(f"prompt,one,two,{column}\n" + "".join(cells))
    else:
        spelt = [x.replace("nan", "NaN").replace("inf", "Infinity") for x in numbers]
        path.write_text(
            "".join(json.dumps(row)[:-1] + f', "{column}": {x}}}\n' for row, x in zip(rows, spelt, strict=True))
        )
    return files(f"rows.{form}")


def recipe(bench: Bench, kind: str, source: dict[str, Any]) -> Recipe:
    gold: dict[str, Any] = {"kind": "preferences", "margin_field": "number"}
    if kind == "recorded":
        gold = {"kind": "recorded", "reward_fields": ["number", "number"]}
    sampling = {"kind": "recorded", "response_fields": ["one", "two"]}
    return bench.recipe(prompts={"source": source, "split": SPLIT}, sampling=sampling, gold=gold)


def assert_gold_is_refused(bench: Bench, made: Recipe, code: str) -> None:
    with pytest.raises(RmAssetsError) as caught:
        bench.make(made, "gold_rewards")
    assert caught.value.code == code, caught.value
    assert not list(bench.home.glob("gold_rewards/*/manifest.json"))
    assert {f.name for f in bench.home.glob("gold_rewards/*/*")} <= {"request.json"}


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(["recorded", "preferences"]),
    st.sampled_from(["jsonl", "csv", "parquet"]),
    st.sampled_from(["nan", "inf", "-inf", "out of range"]),
    st.integers(0, NUM - 1),
    st.lists(st.integers(0, 50), min_size=NUM, max_size=NUM),
)
def test_a_number_that_is_not_finite_is_data_008_and_nothing_is_written(
    kind: str, form: str, value: str, place: int, others: list[int]
) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        in_this_process(patch)
        bench = Bench(Path(folder))
        numbers = [str(other / 4) for other in others]
        sound = recipe(bench, kind, written(bench, form, "number", numbers))
        assert all(math.isfinite(r.gold_reward) for r in bench.rows(bench.make(sound, *ASSETS[:3])))
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        in_this_process(patch)
        bench = Bench(Path(folder))
        numbers[place] = OUT_OF_RANGE[form] if value == "out of range" else value
        made = recipe(bench, kind, written(bench, form, "number", numbers))
        bench.make(made, *ASSETS[:2])
        assert_gold_is_refused(bench, made, "DATA_008")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("weight", ["score.weight", "model.embed_tokens.weight"])
def test_a_gold_model_whose_reward_is_not_finite_writes_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, weight: str, value: float
) -> None:
    in_this_process(monkeypatch)
    file = save_classifier(bench.folder / "recipes" / "gold") / "model.safetensors"
    weights = load_file(file)
    weights[weight] = torch.full_like(weights[weight], value)
    save_file(weights, file, metadata={"format": "pt"})
    made = bench.recipe(gold={"kind": "classifier", "model": {"path": "gold"}, "max_length": 200})
    bench.make(made, *ASSETS[:2])
    assert_gold_is_refused(bench, made, "MODEL_006")
    assert not list(bench.home.glob("shards/gold/*/*"))
