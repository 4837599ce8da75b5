"""Rows by content key, committed a shard at a time: the unit of resume, and what makes one new prompt cost only itself.

A log belongs to one identity (a sampler or scorer with its weights, template, parameters and versions). Within it a row is
found by the hash of what it was computed from.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from rm_assets.core.digests import digest
from rm_assets.storage.store import Waiting, locked
from rm_assets.storage.tables import read_table, write_table


class Keyed(Protocol):
    """A row that knows the hash of what it was computed from."""

    @property
    def key(self) -> str:
        """The content key."""


Row = TypeVar("Row", bound=Keyed)
Item = TypeVar("Item")


class ShardLog(Generic[Row]):
    """Committed rows of one kind and identity."""

    def __init__(self, home: Path, kind: str, identity: Mapping[str, Any], row_type: type[Row]) -> None:
        self._folder = home / "shards" / kind / digest(dict(identity))
        self._row_type = row_type
        self._read = set[Path]()  # shards

    def committed(self, keys: Iterable[str]) -> dict[str, Row]:
        """The rows of those `keys` that are committed."""
        self._read.clear()
        return self._new_rows(set(keys))

    def _new_rows(self, wanted: set[str]) -> dict[str, Row]:
        """Those of `wanted` in shards that were not read before."""
        shards = set(self._folder.glob("*.parquet")) - self._read
        self._read |= shards
        return {
            row.key: row for shard in sorted(shards) for row in read_table(shard, self._row_type) if row.key in wanted
        }

    def commit(self, rows: Sequence[Row]) -> None:
        """Commits `rows` whole, if there are any. Writing the same rows twice leaves one shard."""
        if rows:
            shard = self._folder / f"{digest([row.key for row in rows])}.parquet"
            write_table(shard, self._row_type, rows)
            self._read.add(shard)

    def complete(
        self,
        items: Callable[[], Iterable[tuple[str, Item]]],
        compute: Callable[[list[Item]], list[Row]],
        shard_size: int,
        before: Callable[[int, int], None] = lambda done, wanted: None,
        waiting: Waiting = nullcontext,
        spread: Callable[[Iterator[list[Item]]], Iterator[list[Row]]] | None = None,
    ) -> tuple[dict[str, Row], int]:
        """Rows for all `items` by key, computing what is missing in shards of `shard_size`; and the number of rows computed.

        An item for which `compute` gives no row has none, and is missing again the next time.
        `items` gives (key, item) and is asked twice: for the keys, and for the items of those that are missing, of which
        one shard is in memory at a time. `before` is told how many are done and how many wanted.

        Shards are cut from the missing items in their given order, so that after a kill the remaining shards are the ones
        an uninterrupted run would have made. Of several runs at once, one computes at a time, and each takes what another
        has committed since.

        Where there is `spread`, it computes instead of `compute`: it takes as many of these shards as it works on at a time, and gives
        the rows of each, whichever is done first.
        """
        wanted = {key for key, _ in items()}
        rows = self.committed(wanted)
        before(len(rows), len(wanted))
        lock = partial(locked, self._folder.with_name(f"{self._folder.name}.lock"), waiting)

        def keep(computed: list[Row]) -> int:
            self.commit(computed)
            rows.update({row.key: row for row in computed})
            return len(computed)

        shards = _shards(items, wanted, rows, shard_size)
        num_computed = 0
        if spread is not None and len(rows) < len(wanted):
            with lock():
                rows.update(self._new_rows(wanted))
                num_computed = sum(map(keep, spread(list(shard.values()) for shard in shards)))
        for shard in shards:
            with lock():
                rows.update(self._new_rows(wanted))
                missing = [item for key, item in shard.items() if key not in rows]
                num_computed += keep(compute(missing)) if missing else 0
        return rows, num_computed


def _shards(
    items: Callable[[], Iterable[tuple[str, Item]]], wanted: set[str], rows: Mapping[str, Any], size: int
) -> Iterator[dict[str, Item]]:
    """The items that have no row when their shard is cut, each once."""
    left, shard = set(wanted), dict[str, Item]()
    for key, item in items() if len(rows) < len(wanted) else ():
        if key in left and key not in rows:
            left.remove(key)
            shard[key] = item
        if len(shard) == size:
            yield shard
            shard = {}
    if shard:
        yield shard
