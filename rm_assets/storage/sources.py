"""Rows as users have them: JSON lines, JSON, CSV, Parquet (plain, .gz, .zst) here or behind a URL, and datasets of three hubs."""

import csv
import gzip
import importlib
import io
import json
import sys
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any, BinaryIO, NamedTuple, TextIO

from rm_assets.core.errors import DataError
from rm_assets.core.recipe import DatasetSource, KaggleSource, RowSource, TfdsSource
from rm_assets.storage.hub_datasets import dataset_rows
from rm_assets.storage.source_files import SourceFile, matching_files, unreachable

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
_ABSENT = object()


class SourceRow(NamedTuple):
    """One row as it was found. `where` names file and line for messages; a row that is a plain list has columns '0', '1', ..."""

    where: str
    columns: dict[str, Any]

    def text(self, field: str, *, may_be_empty: bool = False) -> str:
        """The text in a column. Raises: DataError DATA_003."""
        text = self.checked_text(field, self.columns.get(field))
        if may_be_empty or text.strip():
            return text
        raise self.fault(field, "holds no text", text)

    def checked_text(self, field: str, value: Any) -> str:
        """A value of a column if it is a text. Raises: DataError DATA_003."""
        if isinstance(value, str):
            return self.encodable(field, value)
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
        return None if value is None else self.encodable(field, str(value))

    def number(self, field: str) -> float:
        """The number in a column (CSV holds it as text); may be NaN or infinite. Raises: DataError DATA_003."""
        return self._number(field, self.columns.get(field))

    def numbers(self, field: str) -> list[float]:
        """The number in a column, or those in its list. Raises: DataError DATA_003."""
        value = self.columns.get(field)
        return [self._number(field, item) for item in (value if isinstance(value, list) else [value])]

    def _number(self, field: str, value: Any) -> float:
        try:
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                raise ValueError
            return float(value)
        except (ValueError, OverflowError):
            raise self.fault(field, "holds no number" if field in self.columns else "is missing", value) from None

    def renamed(self, columns: Mapping[str, str]) -> "SourceRow":
        """The row with these columns (name: where it lies in the row) in place of its own of that name; what is not there is missing."""
        found = {name: _at(self.columns, path) for name, path in columns.items()}
        kept = {name: value for name, value in self.columns.items() if name not in found}
        return SourceRow(self.where, kept | {name: value for name, value in found.items() if value is not _ABSENT})

    def encodable(self, field: str, text: str) -> str:
        """The text, if UTF-8 can hold it. Raises: DataError DATA_003."""
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


def _at(value: Any, path: str) -> Any:
    """What lies at a path: `name`, `name.inner`, `name[].inner` (a list). A column whose name holds dots comes first."""
    if isinstance(value, dict) and path in value:
        return value[path]
    name, _, rest = path.partition(".")
    each = name.endswith("[]")
    inner = value.get(name.removesuffix("[]"), _ABSENT) if isinstance(value, dict) else _ABSENT
    if not each:
        return _at(inner, rest) if rest else inner
    if not isinstance(inner, list):
        return _ABSENT
    found = [_at(item, rest) if rest else item for item in inner]
    return _ABSENT if any(item is _ABSENT for item in found) else found


def read_rows(source: RowSource) -> Iterator[SourceRow]:
    """All rows of a source, in a fixed order, with the column names that the recipe gives them.

    Raises: DataError DATA_001 (nothing there), DATA_002 (malformed, with file and line).
    """
    for row in _rows_as_found(source):
        yield row.renamed(source.columns) if source.columns else row


def _rows_as_found(source: RowSource) -> Iterator[SourceRow]:
    if isinstance(source, DatasetSource):
        for number, columns in enumerate(dataset_rows(source), 1):
            yield SourceRow(f"{source.dataset} {source.split}, row {number}", columns)
    elif isinstance(source, TfdsSource):
        yield from _tfds_rows(source)
    else:
        for pattern in [_kaggle_folder(source)] if isinstance(source, KaggleSource) else source.files:
            for file in matching_files(pattern):
                yield from _file_rows(file)


def _file_rows(file: SourceFile) -> Iterator[SourceRow]:
    path = PurePath(file.label)
    packing = path.suffix if path.suffix in (".gz", ".zst") else ""
    suffix = PurePath(path.stem).suffix if packing else path.suffix
    if suffix not in SUFFIXES or (packing and suffix == ".parquet"):
        raise DataError(
            "DATA_002",
            f"{file.name} is of no known format",
            fix=f"use {', '.join(SUFFIXES)}, each but Parquet also as .gz or .zst",
        )
    try:
        with file.open() as raw:
            if suffix == ".parquet":
                yield from _parquet_rows(file.name, raw)
                return
            with _unpacked(raw, packing) as text:
                yield from {".jsonl": read_json_lines, ".json": _json_rows, ".csv": _csv_rows}[suffix](file.name, text)
    except UnicodeDecodeError as error:
        raise DataError(
            "DATA_002", f"{file.name} is not UTF-8 text", why=str(error), fix="convert it to UTF-8"
        ) from None
    except (
        EOFError,
        OSError,
        zlib.error,
    ) as error:  # a cut or damaged archive, an unreadable file, a broken connection
        raise DataError(
            "DATA_002", f"{file.name} cannot be read to its end", why=str(error), fix="check that it was copied whole"
        ) from None


def _unpacked(raw: BinaryIO, packing: str) -> TextIO:
    unpacked: Any = raw
    if packing == ".gz":
        unpacked = gzip.GzipFile(fileobj=raw)
    elif packing == ".zst":
        import pyarrow as pa

        unpacked = pa.CompressedInputStream(pa.PythonFile(raw), "zstd")
    return io.TextIOWrapper(unpacked, encoding="utf-8-sig", newline="")


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


def read_json_lines(file: str, text: TextIO) -> Iterator[SourceRow]:
    """The row of each line that is not blank. Raises: DataError DATA_002."""
    for number, line in enumerate(text, 1):
        if line.strip():
            yield _row(f"{file}, line {number}", _parse(line, f"{file}, line {number}"))


def _json_rows(file: str, text: TextIO) -> Iterator[SourceRow]:
    rows = _parse(text.read(), str(file))
    if not isinstance(rows, list):
        raise DataError(
            "DATA_002", f"{file} holds no list of rows", fix="use a JSON list, or .jsonl with one object a line"
        )
    for number, row in enumerate(rows, 1):
        yield _row(f"{file}, row {number}", row)


def _csv_rows(file: str, text: TextIO) -> Iterator[SourceRow]:
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


def _parquet_rows(file: str, raw: BinaryIO) -> Iterator[SourceRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        number = 0
        with pq.ParquetFile(raw) as table:
            for batch in table.iter_batches(1_024):
                for row in batch.to_pylist():
                    number += 1
                    yield _row(f"{file}, row {number}", row)
    except pa.ArrowInvalid as error:
        raise DataError(
            "DATA_002", f"{file} is not Parquet", why=str(error)[:200], fix="check that it was copied whole"
        ) from None


def _kaggle_folder(source: KaggleSource) -> str:
    """Downloads the dataset, or finds it in the cache, and gives the pattern of its files."""
    kagglehub = _extra("kagglehub", "kaggle", source.dataset)
    try:
        folder = kagglehub.dataset_download(f"{source.dataset}/versions/{source.version}")
    except (OSError, ValueError) as error:
        raise unreachable(f"version {source.version} of {source.dataset} on Kaggle", error) from None
    return str(Path(folder) / source.pattern)


def _tfds_rows(source: TfdsSource) -> Iterator[SourceRow]:
    tfds = _extra("tensorflow_datasets", "tfds", source.dataset)
    try:
        rows = tfds.as_numpy(tfds.load(source.dataset, split=source.split))
    except (OSError, ValueError) as error:
        raise unreachable(f"{source.dataset} ({source.split}) in TensorFlow Datasets", error) from None
    for number, row in enumerate(rows, 1):
        yield _row(f"{source.dataset} {source.split}, row {number}", _plain(row))


def _plain(value: Any) -> Any:
    """Texts and numbers in place of NumPy's bytes and scalars."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, bytes):
        return value.decode()
    return _plain(value.tolist()) if hasattr(value, "tolist") else value


def _extra(module: str, extra: str, wanted_for: str) -> Any:
    """A package that only this kind of source needs."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise DataError(
            "DATA_001",
            f"{wanted_for} needs the package {module}",
            fix=f"pip install 'rm-assets[{extra}]'",
        ) from None
