"""Every way to bring rows gives the same tables: prompts, responses, gold rewards, and preferences."""

import csv
import gzip
import http.server
import io
import json
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rm_assets.resources.compute import Made
from rm_assets_tests.fake_hub import FakeHub
from rm_assets_tests.loopback_hub import serving
from rm_assets_tests.tasks.conftest import ASSETS, Bench, files, in_this_process

Rows = list[dict[str, Any]]
Source = dict[str, Any]
PROMPTS: Rows = [
    {"key": f"k{n}", "prompt": f'Ä "{n}",\nor what?', "reference": f"#### {n}", "source": "ab"[n % 2]}
    for n in range(12)
]
ANSWERS: Rows = [{"key": f"k{n}", "response": f"{text}, {n}", "model": text} for n in range(12) for text in ("ü", "no")]
LABELS: Rows = [
    {"key": f"k{n}", "response": f"{text}, {n}", "gold_reward": reward + n / 4}
    for n in range(12)
    for text, reward in (("no", -1.5), ("ü", 2.25))
]
PREFERENCES: Rows = [
    {"prompt": f"pair {n}", "one": f"first\n{n}", "two": f'"second" {n}', "label": label, "margin": n % 3 + 0.5}
    for n, label in enumerate(["one", "two", "tie"] * 8)
]
TABLES = {"prompts": PROMPTS, "answers": ANSWERS, "labels": LABELS, "preferences": PREFERENCES}
OF_THE_HUB = ("dataset", "streamed dataset")
"""Read by a process of their own: the client takes the Hub's address from the environment when it is imported."""


def jsonl(rows: Rows) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_csv(rows: Rows) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def parquet(rows: Rows) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


def zst(data: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(data))


CONTENT: dict[str, Callable[[Rows], bytes]] = {
    "jsonl": jsonl,
    "json": lambda rows: json.dumps(rows).encode(),
    "csv": as_csv,
    "parquet": parquet,
    "jsonl.gz": lambda rows: gzip.compress(jsonl(rows)),
    "json.zst": lambda rows: zst(json.dumps(rows).encode()),
    "csv.gz": lambda rows: gzip.compress(as_csv(rows)),
    "csv.zst": lambda rows: zst(as_csv(rows)),
}


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        pass


def stand_in_of_kaggle(folder: Path) -> Any:
    """What is called of the client, which is not installed here and needs its network."""

    def dataset_download(handle: str) -> str:
        owner, name, _, version = handle.split("/")
        assert (owner, version) == ("me", "3"), handle
        return str(folder / name)

    return SimpleNamespace(dataset_download=dataset_download)


def stand_in_of_tfds(folder: Path) -> Any:
    """As of Kaggle: rows as NumPy's bytes and scalars."""

    def load(name: str, split: str) -> Rows:
        assert split == "train"
        return [json.loads(line) for line in (folder / name / "rows.jsonl").read_text("utf-8").splitlines()]

    def as_numpy(rows: Rows) -> Iterator[dict[str, Any]]:
        for row in rows:
            yield {k: v.encode() if isinstance(v, str) else np.float64(v) for k, v in row.items()}

    return SimpleNamespace(load=load, as_numpy=as_numpy)


@pytest.fixture
def bring(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str, Rows], Source]]:
    """Puts rows where a form of source expects them, and says how a recipe names them."""
    recipes, elsewhere = bench.folder / "recipes", bench.folder / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setitem(sys.modules, "kagglehub", stand_in_of_kaggle(elsewhere))
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", stand_in_of_tfds(elsewhere))
    monkeypatch.setenv("HF_HOME", str(bench.folder / "hf"))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with serving(FakeHub()) as hub, http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Quiet, directory=str(elsewhere))
    ) as web:  # fmt: skip
        threading.Thread(target=web.serve_forever, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)

        def brought(form: str, name: str, rows: Rows) -> Source:
            if form in CONTENT:
                (recipes / f"{name}.{form}").write_bytes(CONTENT[form](rows))
                return files(f"{name}.{form}")
            if form == "glob":
                (recipes / f"{name}-1.jsonl").write_bytes(jsonl(rows[:5]))
                (recipes / f"{name}-2.csv.gz").write_bytes(gzip.compress(as_csv(rows[5:])))
                return files(f"{name}-*")
            if form == "url":
                (elsewhere / f"{name}.jsonl.gz").write_bytes(gzip.compress(jsonl(rows)))
                return files(f"http://127.0.0.1:{web.server_port}/{name}.jsonl.gz")
            if form in ("kaggle", "tfds"):
                (elsewhere / name).mkdir()
                (elsewhere / name / "rows.jsonl").write_bytes(jsonl(rows))
                kaggle = {"kind": "kaggle", "dataset": f"me/{name}", "version": 3, "pattern": "*.jsonl"}
                return kaggle if form == "kaggle" else {"kind": "tfds", "dataset": name}
            hub.commit(f"me/{name}", {"data/train.parquet": parquet(rows)})
            return {"kind": "dataset", "dataset": f"me/{name}", "streaming": form == "streamed dataset"}

        yield brought
        web.shutdown()


def tables(bench: Bench, bring: Callable[[str, str, Rows], Source], form: str) -> list[Made]:
    """Prompts, responses and gold rewards of three sources, and then those of preferences."""
    split = {"train": 0.5, "validation": 0.0, "test": 0.5}
    sources = {name: bring(form, name, rows) for name, rows in TABLES.items()}
    by_key = {"align": "prompt_id", "prompt_field": "key"}
    apart = bench.recipe(
        "apart",
        prompts={
            "source": sources["prompts"], "split": split, "id_field": "key", "reference_field": "reference",
            "source_field": "source",
        },
        sampling={"kind": "recorded", "source": sources["answers"], **by_key, "model_field": "model"},
        gold={"kind": "recorded", "source": sources["labels"], **by_key, "response_field": "response"},
    )  # fmt: skip
    together = bench.recipe(
        "together",
        prompts={"source": sources["preferences"], "split": split},
        sampling={"kind": "recorded", "response_fields": ["one", "two"]},
        gold={"kind": "preferences", "winner_field": "label", "winners": ["one", "two"], "margin_field": "margin"},
    )
    return [bench.make(recipe, asset) for recipe in (apart, together) for asset in ASSETS[:3]]


@pytest.fixture(scope="module")
def versions() -> dict[str, list[str]]:
    """The data versions of the tables of each form that has been read."""
    return {}


@pytest.mark.parametrize(
    "form",
    [*CONTENT, "glob", "url", "kaggle", "tfds", "dataset", pytest.param("streamed dataset", marks=pytest.mark.slow)],
)
def test_every_form_gives_the_same_tables(
    bench: Bench,
    bring: Callable[[str, str, Rows], Source],
    versions: dict[str, list[str]],
    form: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if form not in OF_THE_HUB:
        in_this_process(monkeypatch)
    made = tables(bench, bring, form)
    prompts, responses, gold, pair_prompts, _, preferences = (bench.rows(each) for each in made)
    assert [(p.external_id, p.prompt, p.reference, p.source, p.row) for p in prompts] == [
        (row["key"], row["prompt"], row["reference"], row["source"], n) for n, row in enumerate(PROMPTS)
    ]
    assert [(r.external_id, r.response, r.model) for r in responses] == [tuple(row.values()) for row in ANSWERS]
    assert {(r.external_id, r.response, r.gold_reward) for r in gold} == {tuple(row.values()) for row in LABELS}
    assert [p.prompt for p in pair_prompts] == [row["prompt"] for row in PREFERENCES]
    assert [(r.response, r.gold_reward) for r in preferences] == [
        (row[side], row["margin"] if row["label"] == side else 0.0) for row in PREFERENCES for side in ("one", "two")
    ]
    versions[form] = [each.manifest.data_version for each in made]
    assert all(found == versions[form] for found in versions.values())
