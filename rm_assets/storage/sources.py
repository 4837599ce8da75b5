"""Rows as users have them: JSON lines, JSON, CSV, Parquet (plain, .gz, .zst) and Hugging Face datasets."""

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from rm_assets.core.errors import DataError
from rm_assets.core.recipe import DatasetSource, FileSource
from rm_assets.storage.fingerprints import matching_files

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")


class SourceRow(NamedTuple):
    """One row as it was found. `where` names file and line for messages; a row that is a plain list has columns '0', '1', ..."""

    where: str
    columns: dict[str, Any]

    def text(self, field: str, *, may_be_empty: bool = False) -> str:
        """The text in a column. Raises: DataError DATA_003."""
        value = self.columns.get(field)
        if isinstance(value, str) and (may_be_empty or value.strip()):
            return self._encodable(field, value)
        raise self.fault(field, "holds no text" if field in self.columns else "is missing", value)

    def optional_text(self, field: str | None) -> str | None:
        """The text in a column, None where the recipe names no column or the value is null. Raises: DataError DATA_003."""
        if field is None:
            return None
        if field not in self.columns:
            raise self.fault(field, "is missing", None)
        value = self.columns[field]
        if isinstance(value, bool) or not isinstance(value, str | int | float | None):
            raise self.fault(field, "holds no text", value)
        return None if value is None else self._encodable(field, str(value))

    def number(self, field: str) -> float:
        """The number in a column (CSV holds it as text); may be NaN or infinite. Raises: DataError DATA_003."""
        value = self.columns.get(field)
        try:
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                raise ValueError
            return float(value)
        except (ValueError, OverflowError):
            raise self.fault(field, "holds no number" if field in self.columns else "is missing", value) from None

    def _encodable(self, field: str, text: str) -> str:
        try:
            text.encode()
        except UnicodeEncodeError:  # JSON can escape what no UTF-8 file can hold
            raise self.fault(field, "holds half a surrogate pair, which is no text", text) from None
        return text

    def fault(self, field: str, what: str, value: Any) -> DataError:
        """DATA_003 for a column of this row."""
        shown = f" ({value!r:.60})" if value is not None else ""
        return DataError(
            "DATA_003",
            f"{self.where}: column '{field}' {what}{shown}",
            why=f"columns here: {', '.join(self.columns) or 'none'}",
            fix="correct the row, or name the right column in the recipe",
        )


def read_rows(source: FileSource | DatasetSource) -> Iterator[SourceRow]:
    """All rows of a source, in a fixed order.

    Raises: DataError DATA_001 (nothing there), DATA_002 (malformed, with file and line).
    """
    if isinstance(source, DatasetSource):
        yield from _dataset_rows(source)
        return
    for pattern in source.files:
        for file in matching_files(pattern):
            yield from _file_rows(file)


def _file_rows(file: Path) -> Iterator[SourceRow]:
    packed = file.suffix in (".gz", ".zst")
    suffix = Path(file.stem).suffix if packed else file.suffix
    if suffix not in SUFFIXES or (packed and suffix == ".parquet"):
        raise DataError(
            "DATA_002",
            f"{file} is of no known format",
            fix=f"use {', '.join(SUFFIXES)}, each but Parquet also as .gz or .zst",
        )
    try:
        if suffix == ".parquet":
            yield from _parquet_rows(file)
            return
        with _open_text(file) as text:
            yield from {".jsonl": _jsonl_rows, ".json": _json_rows, ".csv": _csv_rows}[suffix](file, text)
    except UnicodeDecodeError as error:
        raise DataError("DATA_002", f"{file} is not UTF-8 text", why=str(error), fix="convert it to UTF-8") from None
    except (EOFError, OSError, zlib.error) as error:  # a cut or damaged archive, an unreadable file
        raise DataError(
            "DATA_002", f"{file} cannot be read to its end", why=str(error), fix="check that it was copied whole"
        ) from None


def _open_text(file: Path) -> TextIO:
    if file.suffix == ".gz":
        return gzip.open(file, "rt", encoding="utf-8-sig", newline="")
    if file.suffix == ".zst":
        import pyarrow as pa

        return io.TextIOWrapper(
            pa.CompressedInputStream(pa.OSFile(str(file)), "zstd"), encoding="utf-8-sig", newline=""
        )
    return open(file, encoding="utf-8-sig", newline="")


def _row(where: str, value: Any) -> SourceRow:
    if isinstance(value, list):
        value = {str(i): item for i, item in enumerate(value)}
    if not isinstance(value, dict):
        raise DataError(
            "DATA_002", f"{where}: {value!r:.60} is neither an object nor a list", fix="give one object for each row"
        )
    return SourceRow(where, value)


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(
            "DATA_002", f"{where} is not JSON", why=str(error)[:200], fix="correct or remove the line"
        ) from None


def _jsonl_rows(file: Path, text: TextIO) -> Iterator[SourceRow]:
    for number, line in enumerate(text, 1):
        if line.strip():
            yield _row(f"{file}, line {number}", _parse(line, f"{file}, line {number}"))


def _json_rows(file: Path, text: TextIO) -> Iterator[SourceRow]:
    rows = _parse(text.read(), str(file))
    if not isinstance(rows, list):
        raise DataError(
            "DATA_002", f"{file} holds no list of rows", fix="use a JSON list, or .jsonl with one object a line"
        )
    for number, row in enumerate(rows, 1):
        yield _row(f"{file}, row {number}", row)


def _csv_rows(file: Path, text: TextIO) -> Iterator[SourceRow]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    reader = csv.reader(text, strict=True)
    try:
        header = next(reader, [])
        if not header or len(set(header)) != len(header):
            raise DataError(
                "DATA_002", f"{file} has no header of distinct column names", fix="name each column in the first line"
            )
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise DataError(
                    "DATA_002",
                    f"{file}, line {reader.line_num} has {len(cells)} cells, the header {len(header)}",
                    fix="quote cells that contain commas",
                )
            yield SourceRow(f"{file}, line {reader.line_num}", dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise DataError(
            "DATA_002",
            f"{file}, line {reader.line_num} is not CSV",
            why=str(error),
            fix="quote cells that contain commas, quotes or line ends",
        ) from None


def _parquet_rows(file: Path) -> Iterator[SourceRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        number = 0
        with pq.ParquetFile(file) as table:
            for batch in table.iter_batches(8_192):
                for row in batch.to_pylist():
                    number += 1
                    yield _row(f"{file}, row {number}", row)
    except pa.ArrowInvalid as error:
        raise DataError(
            "DATA_002", f"{file} is not Parquet", why=str(error)[:200], fix="check that it was copied whole"
        ) from None


def _dataset_rows(source: DatasetSource) -> Iterator[SourceRow]:
    import datasets

    try:
        rows = datasets.load_dataset(source.dataset, source.config, split=source.split, revision=source.revision)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            "DATA_001",
            f"the dataset {source.dataset} ({source.split}) cannot be loaded from the Hub",
            why=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
            fix="connect to the network, check id, config, split and revision, or give the rows as files (kind: files)",
        ) from None
    for number, row in enumerate(rows, 1):
        yield _row(f"{source.dataset} {source.split}, row {number}", dict(row))
