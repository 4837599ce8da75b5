"""Records as Parquet, in batches: a table is never in memory as a whole unless its reader asks for that."""

import json
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Generic, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from rm_assets.core.errors import StoreError
from rm_assets.core.records import GoldReward, Messages, Pair, Prompt, Response
from rm_assets.storage.files import whole_file

Record = TypeVar("Record")
# Arrow's own pool keeps what was freed, by turns more and less, so that memory would grow with the number of batches.
pa.set_memory_pool(pa.system_memory_pool())
BATCH_ROWS = 1_024
"""Rows in memory at a time, and in one row group of a file."""
TABLES: dict[str, tuple[str, type[Any]]] = {
    "prompts": ("prompts.parquet", Prompt),
    "sampled_responses": ("responses.parquet", Response),
    "gold_rewards": ("gold_rewards.parquet", GoldReward),
    "implicit_pairs": ("pairs.parquet", Pair),
}
"""File and records of the assets that are tables."""
STATISTICS, HISTOGRAMS = "stats.json", "histograms.svg"
"""Files beside each of them."""
_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_ARROW = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


def arrow_schema(record: type[Any]) -> pa.Schema:
    """The Parquet schema of a record class."""
    return pa.schema([_field(name, hint) for name, hint in typing.get_type_hints(record).items()])


def _field(name: str, hint: Any) -> pa.Field:
    if hint == Messages:
        return pa.field(name, _MESSAGES, nullable=False)
    if typing.get_origin(hint) is dict:
        return pa.field(name, pa.map_(pa.string(), pa.float64()), nullable=False)
    if isinstance(hint, types.UnionType):
        return pa.field(name, _ARROW[next(h for h in typing.get_args(hint) if h is not type(None))], nullable=True)
    return pa.field(name, _ARROW[hint], nullable=False)


def write_table(path: Path, record: type[Record], rows: Iterable[Record]) -> int:
    """Writes `rows` as one Parquet file, whole or not at all, and returns their number."""
    schema, num_rows, stream = arrow_schema(record), 0, iter(rows)
    # Nothing reads statistics of columns, and with row groups this small they would be most of what a reader holds of a file.
    options = {"compression": "zstd", "write_statistics": False}
    with whole_file(path) as temporary, pq.ParquetWriter(temporary, schema, **options) as writer:
        while batch := list(islice(stream, BATCH_ROWS)):
            writer.write_batch(_arrow_batch(batch, schema))
            num_rows += len(batch)
    return num_rows


def _arrow_batch(rows: list[Any], schema: pa.Schema) -> pa.RecordBatch:
    columns = [[getattr(row, name) for row in rows] for name in schema.names]
    arrays = [
        pa.array([list(v.items()) for v in c] if pa.types.is_map(f.type) else c, f.type)
        for c, f in zip(columns, schema, strict=True)
    ]
    return pa.record_batch(arrays, schema=schema)


def read_table(path: Path, record: type[Record]) -> Iterator[Record]:
    """The records of a Parquet file, in their order. A record that another one extends reads its own columns alone.

    Raises: StoreError STORE_003 if the file is not readable or lacks a column.
    """
    columns = arrow_schema(record).names
    try:
        with pq.ParquetFile(path) as file:
            if not set(columns) <= set(file.schema_arrow.names):
                raise StoreError(
                    "STORE_003",
                    f"{path} has other columns than {record.__name__}",
                    fix="remove its folder and run again",
                )
            # A reader of the whole file would keep something of every row group.
            for group in range(file.num_row_groups):
                for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=columns, use_threads=False):
                    for row in zip(*(_values(batch.column(name)) for name in columns), strict=True):
                        yield record(**dict(zip(columns, row, strict=True)))
                    # Arrow keeps what it has freed, which would grow beside whatever the reader does.
                    pa.default_memory_pool().release_unused()
    except (pa.ArrowInvalid, OSError) as error:
        raise StoreError(
            "STORE_003", f"{path} is not a readable table", why=str(error), fix="remove its folder and run again"
        ) from None


def _values(column: pa.Array) -> list[Any]:
    """The column as Python values, as `to_pylist` gives them; three times as fast for messages."""
    if pa.types.is_list(column.type):
        parts = [column.values.field(name).to_pylist() for name in ("role", "content")]
        items: list[Any] = [{"role": role, "content": content} for role, content in zip(*parts, strict=True)]
        return [items[start:end] for start, end in pairwise(column.offsets.to_pylist())]
    if pa.types.is_map(column.type):
        items = list(zip(column.keys.to_pylist(), column.items.to_pylist(), strict=True))
        return [dict(items[start:end]) for start, end in pairwise(column.offsets.to_pylist())]
    return list(column.to_pylist())


class Table(Generic[Record]):
    """The records of a Parquet file, read anew each time that somebody goes through them."""

    def __init__(self, path: Path, record: type[Record]) -> None:
        self._path, self._record = path, record

    def __iter__(self) -> Iterator[Record]:
        return read_table(self._path, self._record)


@contextmanager
def jsonl_writer(path: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Takes one JSON object a line; the file is there, whole, when the block ends well."""
    with whole_file(path) as temporary, open(temporary, "w", encoding="utf-8") as file:

        def write(row: Mapping[str, Any]) -> None:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")

        yield write
