"""Records to Parquet and back."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from rm_assets.core.errors import StoreError
from rm_assets.core.records import GoldReward, Pair, Prompt, Response, conversation
from rm_assets.storage import tables
from rm_assets.storage.tables import jsonl_writer, read_table, write_table
from rm_assets.tasks.gold.classifier import ScoredRow
from rm_assets.tasks.sample import SampledRow

PROMPT = {
    "prompt_id": "p", "prompt": "Wie? 🍎\n\n", "system": None, "reference": "#### 3", "source": "all", "split": "test",
    "external_id": "7", "row": 2**40,
}  # fmt: skip
RESPONSE = PROMPT | {
    "response_id": "r", "sample_index": 1, "response": "", "model": "m", "seed": 2**63 - 1, "num_tokens": None,
    "finished": False,
}  # fmt: skip
RECORDS: list[Any] = [
    Prompt(**PROMPT),
    Prompt(**PROMPT | {"system": "", "reference": None, "external_id": None}),
    Response(**RESPONSE),
    Response(**RESPONSE | {"seed": None, "finished": None, "num_tokens": 3}),
    GoldReward(**RESPONSE, gold_reward=0.1 + 0.2, components={"exact": 1.0, "format": 0.0}, truncated=True),
    GoldReward(**RESPONSE, gold_reward=-1e300),
    Pair(
        pair_id="q", prompt_id="p", source="s", split="train", chosen=conversation("p", "", "c"),
        rejected=conversation("p", None, "r"), chosen_id="c", rejected_id="r", chosen_gold_reward=1.0,
        rejected_gold_reward=0.5, gold_margin=0.5,
    ),
    SampledRow("k", "text", 3, True),
    ScoredRow("k", 0.25, False),
]  # fmt: skip


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: type(r).__name__)
def test_a_record_comes_back_equal(tmp_path: Path, record: Any) -> None:
    assert write_table(tmp_path / "t.parquet", type(record), [record, record]) == 2
    assert list(read_table(tmp_path / "t.parquet", type(record))) == [record, record]


def test_an_empty_table_comes_back_empty(tmp_path: Path) -> None:
    assert write_table(tmp_path / "t.parquet", Pair, []) == 0
    assert list(read_table(tmp_path / "t.parquet", Pair)) == []


def test_order_survives_several_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "BATCH_ROWS", 3)
    rows = [ScoredRow(str(i), float(i), False) for i in range(8)]
    write_table(tmp_path / "t.parquet", ScoredRow, iter(rows))
    assert pq.ParquetFile(tmp_path / "t.parquet").num_row_groups == 3
    assert list(read_table(tmp_path / "t.parquet", ScoredRow)) == rows


def test_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_table(tmp_path / name, GoldReward, [RECORDS[4], RECORDS[5]])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_rows_that_fail_midway_leave_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "BATCH_ROWS", 1)

    def rows() -> Iterator[ScoredRow]:
        yield ScoredRow("a", 1.0, False)
        raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        write_table(tmp_path / "t.parquet", ScoredRow, rows())
    assert list(tmp_path.iterdir()) == []


def test_a_table_that_was_cut_is_store_003(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_table(path, ScoredRow, [ScoredRow("a", 1.0, False)])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StoreError, match=r"t\.parquet is not a readable table") as caught:
        list(read_table(path, ScoredRow))
    assert caught.value.code == "STORE_003"


def test_a_table_that_is_gone_is_store_003(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        list(read_table(tmp_path / "t.parquet", ScoredRow))
    assert caught.value.code == "STORE_003"


def test_a_table_of_another_record_is_store_003(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet", SampledRow, [SampledRow("k", "text", 3, True)])
    with pytest.raises(StoreError, match="other columns than ScoredRow") as caught:
        list(read_table(tmp_path / "t.parquet", ScoredRow))
    assert caught.value.code == "STORE_003"


def test_a_record_of_unknown_type_is_refused_when_it_is_written(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Odd:
        value: complex

    with pytest.raises(KeyError):
        write_table(tmp_path / "t.parquet", Odd, [Odd(1j)])
    assert list(tmp_path.iterdir()) == []


def test_jsonl_is_one_object_a_line_in_plain_unicode(tmp_path: Path) -> None:
    with jsonl_writer(tmp_path / "a.jsonl") as write:
        write({"a": "ä\n"})
        write({"b": [1, None]})
    assert (tmp_path / "a.jsonl").read_text("utf-8") == '{"a": "ä\\n"}\n{"b": [1, null]}\n'


def test_jsonl_with_a_number_that_is_not_finite_is_not_written(tmp_path: Path) -> None:
    def write_broken() -> None:
        with jsonl_writer(tmp_path / "a.jsonl") as write:
            write({"a": 1})
            write({"a": float("inf")})

    with pytest.raises(ValueError, match="not JSON compliant"):
        write_broken()
    assert list(tmp_path.iterdir()) == []
