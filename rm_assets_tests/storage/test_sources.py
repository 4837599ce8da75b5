"""Every source format, and every way in which a file can be broken."""

import csv
import gzip
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rm_assets.core.errors import DataError, RecipeError
from rm_assets.core.recipe import FileSource, KaggleSource, TfdsSource
from rm_assets.storage.sources import SourceRow, read_rows

ROWS = [{"prompt": "Ä, \"b\"", "n": 1}, {"prompt": "two\nlines", "n": 2}]  # fmt: skip
JSONL = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def read(*patterns: Path | str) -> list[SourceRow]:
    return list(read_rows(FileSource(kind="files", files=[str(p) for p in patterns])))


def columns(*patterns: Path | str) -> list[dict[str, Any]]:
    return [row.columns for row in read(*patterns)]


def fault(path: Path, code: str = "DATA_002") -> str:
    with pytest.raises(DataError) as caught:
        read(path)
    assert caught.value.code == code
    assert str(path) in str(caught.value)
    return str(caught.value)


def written(path: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    if path.suffix == ".gz":
        data = gzip.compress(data)
    if path.suffix == ".zst":
        data = bytes(pa.Codec("zstd").compress(data))
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_json_rows_come_back_plain_and_packed(tmp_path: Path, name: str, packing: str) -> None:
    text = JSONL if name == "a.jsonl" else json.dumps(ROWS)
    assert columns(written(tmp_path / (name + packing), text)) == ROWS


@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
def test_csv_rows_come_back_as_text_with_commas_quotes_and_line_ends(tmp_path: Path, packing: str) -> None:
    plain = tmp_path / "plain.csv"
    with open(plain, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["prompt", "n"])
        writer.writeheader()
        writer.writerows(ROWS)
    path = written(tmp_path / ("a.csv" + packing), plain.read_bytes())
    assert columns(path) == [{k: str(v) for k, v in row.items()} for row in ROWS]


def test_parquet_rows_come_back_with_lists_and_nulls(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "rewards": [1.0, 2.0]}, {"prompt": None, "rewards": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert columns(tmp_path / "a.parquet") == rows


def test_zst_of_several_frames_is_read_to_its_end(tmp_path: Path) -> None:
    codec = pa.Codec("zstd")
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(b"".join(bytes(codec.compress(b'{"n": %d}\n' % n)) for n in (1, 2)))
    assert columns(path) == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_a_byte_order_mark_belongs_to_no_column(tmp_path: Path, name: str) -> None:
    text = {"a.jsonl": '{"p": "x"}\n', "a.json": '[{"p": "x"}]', "a.csv": "p\nx\n"}[name]
    assert columns(written(tmp_path / name, b"\xef\xbb\xbf" + text.encode())) == [{"p": "x"}]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_carriage_returns_at_line_ends_belong_to_no_value(tmp_path: Path, name: str) -> None:
    text = {"a.jsonl": '{"p": "x"}\r\n{"p": "y"}\r\n', "a.csv": "p\r\nx\r\ny\r\n"}[name]
    assert columns(written(tmp_path / name, text)) == [{"p": "x"}, {"p": "y"}]


def test_blank_lines_are_skipped_and_still_counted(tmp_path: Path) -> None:
    rows = read(written(tmp_path / "a.jsonl", '{"p": 1}\n\n   \n{"p": 2}\n'))
    assert [r.where.rpartition(", ")[2] for r in rows] == ["line 1", "line 4"]


def test_a_column_that_the_recipe_names_is_not_taken_from_another_one(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", '{"prompt": "not this", "question": "this"}\n{"prompt": "nor this"}\n')
    source = FileSource(kind="files", files=[str(path)], columns={"prompt": "question"})
    first, second = read_rows(source)
    assert first.text("prompt") == "this" and first.columns["question"] == "this"
    with pytest.raises(DataError, match="line 2: column 'prompt' is missing"):
        second.text("prompt")


def test_a_row_that_is_a_list_has_numbered_columns(tmp_path: Path) -> None:
    assert columns(written(tmp_path / "a.jsonl", "[0.5, -1]\n[2, 3]\n")) == [{"0": 0.5, "1": -1}, {"0": 2, "1": 3}]


def test_files_of_a_pattern_are_read_in_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        written(tmp_path / f"{name}.jsonl", json.dumps({"from": name}) + "\n")
    written(tmp_path / "c.csv", "from\nnobody\n")
    assert [c["from"] for c in columns(tmp_path / "*.jsonl")] == ["a", "b", "c"]


def test_sources_are_read_in_order_of_the_recipe(tmp_path: Path) -> None:
    b, a = written(tmp_path / "b.jsonl", '{"n": 1}\n'), written(tmp_path / "a.jsonl", '{"n": 2}\n')
    assert [c["n"] for c in columns(b, a)] == [1, 2]


def test_a_file_name_with_brackets_is_no_pattern(tmp_path: Path) -> None:
    assert columns(written(tmp_path / "a[1].jsonl", '{"n": 1}\n')) == [{"n": 1}]


@pytest.mark.parametrize("name", ["none.jsonl", "*.csv"])
def test_a_missing_file_or_a_pattern_without_files_is_data_001(tmp_path: Path, name: str) -> None:
    assert "does not exist or matches no file" in fault(tmp_path / name, "DATA_001")


def test_an_unset_variable_is_named() -> None:
    with pytest.raises(RecipeError, match="variable NOWHERE is not set") as caught:
        read("${NOWHERE}/a.jsonl")
    assert caught.value.code == "RECIPE_003"


@pytest.mark.parametrize("bad", ['{"p": ', "nonsense", '{"p": 1}{"p": 2}', "[" * 100_000])
def test_malformed_json_names_file_and_line(tmp_path: Path, bad: str) -> None:
    assert "a.jsonl, line 3 is not JSON" in fault(written(tmp_path / "a.jsonl", f'{{"p": 1}}\n\n{bad}\n'))


def test_a_json_line_that_is_no_row_names_file_and_line(tmp_path: Path) -> None:
    assert "line 2: 3 is neither an object nor a list" in fault(written(tmp_path / "a.jsonl", '{"p": 1}\n3\n'))


def test_a_json_file_that_is_no_list_is_data_002(tmp_path: Path) -> None:
    assert "holds no list of rows" in fault(written(tmp_path / "a.json", '{"p": 1}'))


def long_jsonl() -> bytes:
    return b"".join(b'{"p": "%s"}\n' % os.urandom(20).hex().encode() for _ in range(5_000))


@pytest.mark.parametrize("packing", ["gz", "zst"])
def test_an_archive_that_was_cut_is_data_002(tmp_path: Path, packing: str) -> None:
    path = written(tmp_path / f"a.jsonl.{packing}", long_jsonl())
    path.write_bytes(path.read_bytes()[:-30_000])
    assert "cannot be read to its end" in fault(path)


@pytest.mark.parametrize("packing", ["gz", "zst"])
def test_an_archive_with_damage_in_its_middle_is_data_002(tmp_path: Path, packing: str) -> None:
    path = written(tmp_path / f"a.jsonl.{packing}", long_jsonl())
    data = bytearray(path.read_bytes())
    data[40:200] = b"\xff" * 160
    path.write_bytes(data)
    fault(path)


def test_a_plain_file_that_calls_itself_an_archive_is_data_002(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_text('{"p": 1}\n')
    fault(tmp_path / "a.jsonl.gz")


def test_text_that_is_not_utf_8_is_data_002(tmp_path: Path) -> None:
    assert "is not UTF-8 text" in fault(written(tmp_path / "a.csv", "p\nä\n".encode("latin-1")))


@pytest.mark.parametrize("name", ["a.txt", "a", "a.parquet.gz", "a.gz"])
def test_an_unknown_format_is_data_002(tmp_path: Path, name: str) -> None:
    assert "is of no known format" in fault(written(tmp_path / name, "p\n"))


@pytest.mark.parametrize("text", ["p,p\n1,2\n", "", "\n1\n"])
def test_a_csv_header_without_distinct_names_is_data_002(tmp_path: Path, text: str) -> None:
    assert "no header of distinct column names" in fault(written(tmp_path / "a.csv", text))


@pytest.mark.parametrize("row", ["1", "1,2,3"])
def test_a_ragged_csv_row_names_file_and_line(tmp_path: Path, row: str) -> None:
    message = fault(written(tmp_path / "a.csv", f'p,q\n"two\nlines",2\n{row}\n'))
    assert f"a.csv, line 4 has {len(row.split(','))} cells, the header 2" in message


def test_a_csv_quote_that_never_ends_is_data_002(tmp_path: Path) -> None:
    assert "is not CSV" in fault(written(tmp_path / "a.csv", 'p\n"open\n'))


def test_parquet_that_is_none_is_data_002(tmp_path: Path) -> None:
    fault(written(tmp_path / "a.parquet", b"PAR1 but not really"))


def test_text_and_numbers_are_taken_from_their_columns() -> None:
    row = SourceRow("f, line 1", {"t": "x", "n": "-1.5", "i": 3, "none": None, "nan": "nan"})
    assert (row.text("t"), row.number("n"), row.number("i")) == ("x", -1.5, 3.0)
    assert (row.optional_text("t"), row.optional_text("i"), row.optional_text("none"), row.optional_text(None)) == (
        "x", "3", None, None,
    )  # fmt: skip
    assert row.number("nan") != row.number("nan")


@pytest.mark.parametrize(
    ("value", "says"),
    [("", "holds no text"), (" \n", "holds no text"), (3, "holds no text"), (None, "holds no text")],
)
def test_a_prompt_without_text_is_data_003_and_named(value: Any, says: str) -> None:
    with pytest.raises(DataError, match=rf"f, line 1: column 't' {says}") as caught:
        SourceRow("f, line 1", {"t": value}).text("t")
    assert caught.value.code == "DATA_003"


@pytest.mark.parametrize("method", ["text", "optional_text", "number"])
def test_a_column_that_is_missing_is_data_003_and_the_others_are_listed(method: str) -> None:
    with pytest.raises(DataError, match=r"column 't' is missing\.\n  Why: columns here: a, b") as caught:
        getattr(SourceRow("f", {"a": 1, "b": 2}), method)("t")
    assert caught.value.code == "DATA_003"


@pytest.mark.parametrize("value", ["high", None, True, [1.0], "", 10**400])
def test_a_reward_that_is_no_number_is_data_003(value: Any) -> None:
    with pytest.raises(DataError, match="holds no number") as caught:
        SourceRow("f", {"n": value}).number("n")
    assert caught.value.code == "DATA_003"


@pytest.mark.parametrize("method", ["text", "optional_text"])
def test_text_that_no_file_can_hold_is_data_003(method: str) -> None:
    with pytest.raises(DataError, match="half a surrogate pair") as caught:
        getattr(SourceRow("f", {"t": "a\ud800"}), method)("t")
    assert caught.value.code == "DATA_003"


@pytest.mark.parametrize(
    ("source", "package", "extra"),
    [
        (KaggleSource(kind="kaggle", dataset="me/data", version=1), "kagglehub", "kaggle"),
        (TfdsSource(kind="tfds", dataset="data"), "tensorflow_datasets", "tfds"),
    ],
)
def test_a_package_that_is_missing_is_named_with_the_command_that_brings_it(
    monkeypatch: pytest.MonkeyPatch, source: KaggleSource | TfdsSource, package: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(DataError, match=f"needs the package {package}") as caught:
        list(read_rows(source))
    assert (caught.value.code, caught.value.fix) == ("DATA_001", f"pip install 'rm-assets[{extra}]'")


@pytest.mark.parametrize(
    ("source", "package"),
    [
        (KaggleSource(kind="kaggle", dataset="me/data", version=1), "kagglehub"),
        (TfdsSource(kind="tfds", dataset="data"), "tensorflow_datasets"),
    ],
)
def test_kaggle_and_tfds_without_a_network_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch, source: KaggleSource | TfdsSource, package: str
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise ConnectionError("Name or service\nnot known")

    monkeypatch.setitem(
        sys.modules, package, SimpleNamespace(dataset_download=refused, load=refused, as_numpy=lambda rows: rows)
    )
    with pytest.raises(DataError, match=r"data.* cannot be reached") as caught:
        list(read_rows(source))
    assert caught.value.code == "DATA_001" and "Name or service not known" in str(caught.value)
