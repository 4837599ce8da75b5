"""Committed shards: nothing is computed twice, and an interruption changes no shard."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pytest

from rm_assets.core.errors import StoreError
from rm_assets.storage.shards import ShardLog


@dataclass(frozen=True)
class Square:
    key: str
    value: int


class Squares:
    """Computes squares, and remembers which; breaks after `most` shards."""

    def __init__(self, most: int | None = None) -> None:
        self.asked: list[list[int]] = []
        self.most = most

    def __call__(self, numbers: list[int]) -> list[Square]:
        if len(self.asked) == self.most:
            raise KeyboardInterrupt
        self.asked.append(numbers)
        return [Square(str(n), n * n) for n in numbers]


def log_of(home: Path, **identity: str) -> ShardLog[Square]:
    return ShardLog(home, "squares", identity, Square)


def items(*numbers: int) -> dict[str, int]:
    return {str(n): n for n in numbers}


def shards(home: Path) -> dict[str, bytes]:
    return {str(f.relative_to(home)): f.read_bytes() for f in home.rglob("*.parquet")}


def test_all_items_are_computed_in_shards_of_the_given_size(tmp_path: Path) -> None:
    squares = Squares()
    rows, num_computed = log_of(tmp_path).complete(items(1, 2, 3, 4, 5).items, squares, 2)
    assert squares.asked == [[1, 2], [3, 4], [5]] and num_computed == 5
    assert [rows[k].value for k in "12345"] == [1, 4, 9, 16, 25]


def test_only_what_is_missing_is_computed(tmp_path: Path) -> None:
    log_of(tmp_path).complete(items(1, 2, 3).items, Squares(), 2)
    squares = Squares()
    rows, num_computed = log_of(tmp_path).complete(items(3, 4, 1).items, squares, 2)
    assert squares.asked == [[4]] and num_computed == 1
    assert {k: r.value for k, r in rows.items()} == {"3": 9, "4": 16, "1": 1}


def test_nothing_missing_computes_nothing(tmp_path: Path) -> None:
    log_of(tmp_path).complete(items(1, 2).items, Squares(), 2)
    assert log_of(tmp_path).complete(items(2).items, Squares(most=0), 2) == ({"2": Square("2", 4)}, 0)


def test_an_item_that_gives_no_row_is_missing_again_the_next_time(tmp_path: Path) -> None:
    for number_computed in (2, 0):
        asked = list[int]()

        def odd(numbers: list[int], asked: list[int] = asked) -> list[Square]:
            asked += numbers
            return [Square(str(n), n * n) for n in numbers if n % 2]

        rows, computed = log_of(tmp_path).complete(items(1, 2, 3, 4).items, odd, 2)
        assert set(rows) == {"1", "3"} and computed == number_computed and {2, 4} <= set(asked)
    assert log_of(tmp_path).complete(items(2).items, lambda _: [], 2) == ({}, 0)
    assert len(shards(tmp_path)) == 2  # none that is empty


def test_an_interrupted_run_ends_with_the_shards_of_an_uninterrupted_one(tmp_path: Path) -> None:
    wanted = items(1, 2, 3, 4, 5, 6, 7)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    log_of(whole).complete(wanted.items, Squares(), 2)
    with pytest.raises(KeyboardInterrupt):
        log_of(broken).complete(wanted.items, Squares(most=2), 2)
    assert len(shards(broken)) == 2
    squares = Squares()
    assert log_of(broken).complete(wanted.items, squares, 2)[1] == 3
    assert squares.asked == [[5, 6], [7]]
    assert shards(broken) == shards(whole)


def test_two_runs_at_once_compute_nothing_twice(tmp_path: Path) -> None:
    asked: list[int] = []

    def slowly(numbers: list[int]) -> list[Square]:
        asked.extend(numbers)
        time.sleep(0.02)
        return [Square(str(n), n * n) for n in numbers]

    wanted = [items(*range(9)), items(*range(4, 12))]
    with ThreadPoolExecutor(2) as runs:
        ends = list(runs.map(lambda mine: log_of(tmp_path).complete(mine.items, slowly, 2), wanted))
    assert sorted(asked) == list(range(12)) and sum(num for _, num in ends) == 12
    assert [set(rows) for rows, _ in ends] == [set(mine) for mine in wanted]


def in_any_order(shards_: Iterator[list[int]], asked: list[list[int]]) -> Iterator[list[Square]]:
    """Workers who take two shards at a time, and are done with the second first."""
    while two := list(islice(shards_, 2)):
        asked += two
        for numbers in reversed(two):
            yield [Square(str(n), n * n) for n in numbers]


def test_spread_over_workers_the_shards_are_those_of_one_process(tmp_path: Path) -> None:
    repeated = [(str(n), n) for n in (1, 2, 3, 1, 4, 2, 5)]
    asked = list[list[int]]()
    squares = Squares()
    rows, num_computed = log_of(tmp_path / "spread").complete(
        lambda: repeated, squares, 2, spread=lambda cut: in_any_order(cut, asked)
    )
    log_of(tmp_path / "one").complete(lambda: repeated, Squares(), 2)
    assert asked == [[1, 2], [3, 4], [5]] and squares.asked == [] and num_computed == 5
    assert {k: r.value for k, r in rows.items()} == {"1": 1, "2": 4, "3": 9, "4": 16, "5": 25}
    assert shards(tmp_path / "spread") == shards(tmp_path / "one")


def test_workers_that_are_interrupted_leave_what_came_and_nothing_is_done_twice(tmp_path: Path) -> None:
    asked = list[list[int]]()

    def interrupted(cut: Iterator[list[int]]) -> Iterator[list[Square]]:
        yield next(in_any_order(cut, []))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        log_of(tmp_path / "spread").complete(items(*range(9)).items, Squares(), 2, spread=interrupted)
    log_of(tmp_path / "spread").complete(
        items(*range(9)).items, Squares(), 2, spread=lambda cut: in_any_order(cut, asked)
    )
    log_of(tmp_path / "one").complete(items(*range(9)).items, Squares(), 2)
    assert asked == [[0, 1], [4, 5], [6, 7], [8]]
    assert shards(tmp_path / "spread") == shards(tmp_path / "one")


def test_logs_of_different_identity_share_nothing(tmp_path: Path) -> None:
    log_of(tmp_path, weights="a").complete(items(1).items, Squares(), 2)
    assert log_of(tmp_path, weights="b").committed(["1"]) == {}
    assert log_of(tmp_path, weights="a").committed(["1", "2"]) == {"1": Square("1", 1)}


def test_the_same_rows_committed_twice_are_one_shard(tmp_path: Path) -> None:
    for _ in range(2):
        log_of(tmp_path).commit([Square("1", 1), Square("2", 4)])
    assert len(shards(tmp_path)) == 1


def test_a_temporary_file_of_a_dead_process_is_no_shard(tmp_path: Path) -> None:
    log_of(tmp_path).commit([Square("1", 1)])
    folder = next(tmp_path.rglob("*.parquet")).parent
    (folder / ".half.parquet.123.tmp").write_bytes(b"PAR1")
    assert log_of(tmp_path).committed(["1"]) == {"1": Square("1", 1)}


def test_a_damaged_shard_is_store_003(tmp_path: Path) -> None:
    log_of(tmp_path).commit([Square("1", 1)])
    next(tmp_path.rglob("*.parquet")).write_bytes(b"PAR1")
    with pytest.raises(StoreError) as caught:
        log_of(tmp_path).committed(["1"])
    assert caught.value.code == "STORE_003"
