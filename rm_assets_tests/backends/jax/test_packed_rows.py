import numpy as np

from rm_assets.backends.jax.packed_rows import SHORTEST_ROW, batches, most_rows, most_shapes, pack, row_length
from rm_assets.backends.rendering import Encoded


def rows(*ids: list[int]) -> list[Encoded]:
    return [Encoded(each) for each in ids]


def test_a_row_holds_each_prompt_once_and_says_who_sees_what() -> None:
    groups = [rows([1, 2, 7, 8], [1, 2, 9]), rows([3, 4])]
    (batch,) = batches(groups, SHORTEST_ROW)
    assert (batch.rows, batch.num_rows, batch.length) == ([[0, 1]], 1, 256)
    packed = pack(groups, batch, pad_id=0)
    ids, positions, segments, prompts, prefixes = (values[0, :8].tolist() for values in packed.tokens)
    assert ids == [1, 2, 7, 8, 9, 3, 4, 0]
    assert positions == [0, 1, 2, 3, 2, 0, 1, 0]
    assert segments == [0, 0, 0, 0, 1, 2, 2, -1]
    assert prompts == [0, 0, 0, 0, 0, 2, 2, -1]
    assert prefixes == [0, 0, 0, 0, 2, 0, 0, 0]
    assert packed.ends == [[3, 4], [6]]
    assert packed.num_tokens == 256


def test_every_group_has_room_in_one_row_and_batches_keep_the_budget() -> None:
    lengths = np.random.default_rng(0).integers(2, 700, 200).tolist()
    groups = [rows(list(range(length))) for length in lengths]
    placed = []
    for batch in batches(groups, 2000):
        assert batch.num_rows * batch.length <= 2000 and batch.num_rows >= len(batch.rows)
        assert all(sum(lengths[i] for i in row) <= batch.length for row in batch.rows)
        placed += [index for row in batch.rows for index in row]
    assert sorted(placed) == list(range(200))


def test_a_group_over_the_budget_has_a_row_of_its_length() -> None:
    groups = [rows(list(range(1500))), rows([1, 2])]
    (batch,) = batches(groups, 512)
    assert (batch.rows, batch.num_rows, batch.length) == ([[0, 1]], 1, 2048)


def test_every_device_has_the_same_number_of_rows() -> None:
    """Rows of 256 tokens, of which a device takes two at a time; there are four devices."""
    groups = [rows(list(range(200))) for _ in range(11)]
    found = [(len(batch.rows), batch.num_rows) for batch in batches(groups, 512, 4)]
    assert found == [(8, 8), (3, 4)]
    (batch,) = batches(groups[:5], 512, 4)
    packed = pack(groups, batch, pad_id=0)
    assert batch.num_rows == 8 and (packed.tokens.segments[5:] == -1).all()


def test_shapes_are_powers_of_two() -> None:
    assert [row_length(n) for n in (1, 256, 257, 1024)] == [256, 256, 512, 1024]
    assert [most_rows(256, budget) for budget in (1, 256, 511, 512, 2000, 2048)] == [1, 1, 1, 2, 4, 8]
    # rows of 256 by 1, 2, 4, 8, of 512 by 1, 2, 4, of 1,024 by 1, 2, of 2,048 by 1
    assert most_shapes(1100, 2048) == 10
