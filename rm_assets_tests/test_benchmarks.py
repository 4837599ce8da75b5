"""The benchmarks' arithmetic and frozen work; that they run at all is tested on very small steps."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from benchmarks import counting, measure, page, real_lengths, results, suite, workloads
from benchmarks.workloads import Item, Lengths, Workload


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("alpacafarm-like", "f4a3a97494a980f7"),
        ("multi-turn", "9c19e90a1efc4ede"),
        ("best-of-8", "b836d5f035a3e53b"),
    ],
)
def test_the_synthetic_workloads_are_frozen(name: str, wanted: str) -> None:
    assert workloads.fingerprint(workloads.synthetic(name, 64)) == wanted


def test_a_smaller_workload_is_the_beginning_of_a_larger_one() -> None:
    assert workloads.synthetic("multi-turn", 8)[:3] == workloads.synthetic("multi-turn", 3)
    work = workloads.load("best-of-8", num_pairs=4, num_rows=16)
    assert sorted(work.pairs) == [(i, 0, 7) for i in range(4)] and len(work.scored_items) == 2


def test_the_page_is_made_from_the_committed_results() -> None:
    assert page.PAGE.read_text("utf-8") == page.current()


def test_the_committed_results_have_each_comparison_once_and_in_order() -> None:
    names = [line["name"] for line in results.read(results.CPU_FILE)]
    assert names == [name for name in suite.ALL_NAMES if name in names]


def test_every_comparison_has_its_name() -> None:
    assert len(suite.ALL_NAMES) == 19
    assert suite.selected("multi-turn") == [
        "train/multi-turn/vs-trl-default", "train/multi-turn/vs-trl-tuned", "score/multi-turn/vs-plain",
    ]  # fmt: skip
    assert suite.selected("sample/*") == ["sample/vs-generate"] and not suite.selected("nothing")


def toy_workload() -> Workload:
    """Prompts of 10 and 4 tokens; responses of 3, 5 and 2, 2 tokens; rows of 13, 15 and 6, 6."""
    items = workloads.filled([Lengths(10, (3, 5)), Lengths(4, (2, 2))], seed=0)
    return Workload("toy", items, [(0, 0, 1), (1, 0, 1)], num_scored_items=2)


def test_padding_is_counted_batch_by_batch() -> None:
    assert counting.padded([13, 15, 6, 6], 4) == 60
    assert counting.padded([13, 15, 6, 6], 3) == 51
    assert counting.padded_pairs([(13, 15), (6, 6)], 1) == 42


def test_counted_ratios_are_those_computed_by_hand() -> None:
    work = toy_workload()
    assert counting.training_ratio(work, 16) == pytest.approx(60 / 26)
    assert counting.training_ratio(work, 1) == pytest.approx(42 / 26)
    assert counting.scoring_ratio(work.items, 3) == pytest.approx(51 / 26)


def test_a_response_in_several_pairs_is_counted_once() -> None:
    (item,) = workloads.filled([Lengths(10, (1, 2, 3))], seed=0)
    assert counting.distinct([item], [(0, 0, 1), (0, 0, 2), (0, 1, 2)]) == 16
    assert counting.distinct([item], [(0, 0, 1)]) == 13


def test_sampling_is_counted_until_the_longest_of_a_batch_ends() -> None:
    # Batch 1: two rows of 5 + 7; batch 2: two rows of 3 + 9. Distinct: 8 prompt tokens, 7 + 2 + 9 + 1 new ones.
    assert counting.sampling_ratio([5, 3], [7, 2, 9, 1], 1) == pytest.approx((24 + 24) / 27)
    assert counting.sampling_ratio([5, 3], [7, 2, 9, 1], 2) == pytest.approx(4 * 14 / 27)


def test_a_ratio_is_the_median_over_rounds() -> None:
    assert measure.median_ratio([2.0, 9.0, 12.0], [1.0, 3.0, 3.0]) == 3.0


def test_the_first_step_is_stopped_at_and_its_gradients_kept(tmp_path: Path) -> None:
    weight = torch.nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.SGD(weight.parameters(), lr=1.0)
    steps = []

    def train() -> None:
        for step in range(3):
            steps.append(step)
            weight(torch.tensor([[3.0, 4.0]])).sum().backward()
            optimizer.step()

    cost = measure.first_step(train, tmp_path / "one")
    assert steps == [0] and cost.wall > 0
    save_file({"000000": torch.tensor([[3.0, 4.5]])}, tmp_path / "other")
    assert measure.gradient_difference(tmp_path / "one", tmp_path / "one") == 0
    assert measure.gradient_difference(tmp_path / "other", tmp_path / "one") == pytest.approx(0.1)


def toy_suite(folder: Path) -> suite.Suite:
    return suite.Suite(
        shape="small", device="cpu", dtype="float32", num_threads=1, rounds=1, folder=folder, num_pairs=4, num_rows=8,
        num_prompts=8,
    )  # fmt: skip


def test_a_difference_stops_the_run(tmp_path: Path) -> None:
    run = toy_suite(tmp_path)
    run._require(1e-6, "scores", suite.SCORING_PEER)
    for difference in (2e-5, float("nan")):
        with pytest.raises(suite.NotEqualError, match="scores differ"):
            run._require(difference, "scores", suite.SCORING_PEER)
    with pytest.raises(suite.NotEqualError, match="1 of 2 greedy"):
        run._same_samples(["a", "b"], ["a", "c"], {"product": [1, 2], "peer": [1, 2]})
    with pytest.raises(suite.NotEqualError, match="mean sampled lengths"):
        run._same_samples(["a"], ["a"], {"product": [1, 2, 1, 2], "peer": [9, 8, 9, 8]})


def test_results_are_written_with_four_digits(tmp_path: Path) -> None:
    line = {"model": "small", "name": "a", "ratio": 1.23456, "n": 3}
    results.add(tmp_path / "r.jsonl", line, ["a"])
    assert json.loads((tmp_path / "r.jsonl").read_text()) == {**line, "ratio": 1.235}
    assert [file.name for file in tmp_path.iterdir()] == ["r.jsonl"]


def test_a_line_takes_the_place_of_the_one_that_compared_the_same(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    for name, ratio in (("b", 1.0), ("a", 2.0), ("b", 3.0)):
        results.add(file, {"model": "small", "name": name, "ratio": ratio}, ["a", "b"])
    assert [(line["name"], line["ratio"]) for line in results.read(file)] == [("a", 2.0), ("b", 3.0)]


def test_pieces_are_words_digits_and_punctuation() -> None:
    assert real_lengths.pieces("Hi, there 42!") == ["Hi", ",", " there", " ", "4", "2", "!"]
    assert real_lengths.pieces("unbelievably") == ["unbelieva", "bly"]


@pytest.mark.skipif(not real_lengths.is_there(), reason="RM_ASSETS_REAL_DATA names no folder of real data")
@pytest.mark.parametrize("name", workloads.REAL)
def test_real_workloads_have_whole_steps_within_the_context(name: str) -> None:
    work = workloads.load(name)
    assert len(work.pairs) == 64 and len({*work.pairs}) == 64
    assert all(len(side) <= workloads.MAX_LENGTH for pair in work.pairs for side in work.sides(pair))
    assert all(isinstance(item, Item) and len(item.prompt) > 0 for item in work.items)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["train/alpacafarm-like/vs-trl-tuned", "score/alpacafarm-like/vs-plain", "sample/vs-generate"]
)
def test_a_comparison_runs_and_is_equal(tmp_path: Path, name: str) -> None:
    (line,) = toy_suite(tmp_path).lines(name)
    assert line["name"] == name and line["ratio"] > 0 and line["product_peak_mb"] > 0
    assert {"name", "ratio", "baseline", "unit", "n", "equal_to"} <= set(line)
