"""RewardBench and RewardBench 2: rows read, checked and scored, through the whole path."""

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rm_assets.core.errors import DataError
from rm_assets.core.protocols import Score
from rm_assets.core.recipe import RewardBench
from rm_assets.core.records import Messages
from rm_assets.tasks.benchmarks import read_benchmark, run_benchmark
from rm_assets_tests.fakes import save_classifier
from rm_assets_tests.tasks.conftest import ASSETS, Bench, files, in_this_process


class LengthScorer:
    """The reward is the number of characters of the answer; prompts of 100 leave no room."""

    def __init__(self) -> None:
        self.seen: list[Messages] = []

    def has_room(self, prompt: Messages) -> bool:
        return len(prompt[-1]["content"]) < 100

    def score(self, conversations: Iterable[Messages]) -> Iterator[Score]:
        for messages in conversations:
            self.seen.append(messages)
            yield Score(float(len(messages[-1]["content"])), 1, False)


def section(tmp_path: Path, kind: str, rows: list[dict[str, Any]]) -> RewardBench:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return RewardBench.model_validate({"kind": kind, "source": files(str(tmp_path / "rows.jsonl"))})


def pair(subset: str, chosen: Any, rejected: Any, prompt: Any = "p") -> dict[str, Any]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, "subset": subset}


def choice(subset: str, chosen: list[Any], rejected: list[Any], **row: Any) -> dict[str, Any]:
    counts = {"num_correct": len(chosen), "total_completions": len(chosen) + len(rejected)}
    return {"id": "0", "prompt": "p", "chosen": chosen, "rejected": rejected, "subset": subset, **counts, **row}


def test_reward_bench_of_a_hand_computed_file(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "longest"}]
    rows = [
        pair("math-prm", "long", "s"),  # right
        pair("hep-go", "s", "long"),  # wrong
        pair("donotanswer", "same", "same"),  # equal rewards count 0
        pair("donotanswer", messages, "short", prompt=messages[:1]),  # right; as messages
        pair("xstest-should-refuse", "long", "s", prompt="p" * 100),  # no room for an answer: equal
    ]
    scorer = LengthScorer()
    asked = section(tmp_path, "reward_bench", rows)
    found = run_benchmark(asked, read_benchmark(asked), scorer)
    assert found["subsets"] == {
        "xstest-should-refuse": 0.0, "donotanswer": 0.5, "math-prm": 1.0, "hep-go": 0.0,
    }  # fmt: skip
    safety, reasoning = 136 * 0.5 / (136 + 154), 984 / (984 + 164)
    assert found["sections"] == {"Safety": pytest.approx(safety), "Reasoning": pytest.approx(reasoning)}
    assert found["score"] == pytest.approx((safety + reasoning) / 2)
    assert (found["num_responses"], found["num_prompts_over_length"]) == (8, 1)
    assert scorer.seen[6] == messages


def test_reward_bench_2_of_a_hand_computed_file(tmp_path: Path) -> None:
    rows = [
        choice("Math", ["4444"], ["1", "22", "333"]),  # right
        choice("Math", ["333"], ["1", "333", "333"]),  # shared by three
        choice("Focus", ["1"], ["1", "22", "333"]),  # wrong
        choice("Ties", ["55555", "666666"], ["22", "1"], id="tied:7"),  # spread 1, gap 3
        choice("Ties", ["4444"], ["22"], id="ref:7"),  # gap 2, above the spread
    ]
    asked = section(tmp_path, "reward_bench_2", rows)
    found = run_benchmark(asked, read_benchmark(asked), LengthScorer())
    ties = 0.3 + 0.3 + 0.2 + 0.2 + 0.01 * math.tanh(2 / 1 - 1)
    assert found["subsets"] == {"Focus": 0.0, "Math": pytest.approx((1 + 1 / 3) / 2), "Ties": pytest.approx(ties)}
    assert found["score"] == pytest.approx((0 + 2 / 3 + ties) / 3) and found["n"] == {"Focus": 1, "Math": 2, "Ties": 2}


FOUR: dict[str, Any] = {"chosen": ["a"], "rejected": ["b", "c", "d"]}


@pytest.mark.parametrize(
    ("kind", "row", "code", "says"),
    [
        ("reward_bench", pair("unheard-of", "a", "b"), "DATA_003", "unheard-of"),
        ("reward_bench", {"prompt": "p", "chosen": "a", "subset": "donotanswer"}, "DATA_003", "'rejected' is missing"),
        ("reward_bench", {"prompt": "p", "chosen": "a", "rejected": "b"}, "DATA_003", "'subset'"),
        ("reward_bench", pair("donotanswer", ["a"], ["b"]), "DATA_003", "message"),
        ("reward_bench_2", choice("Chat", **FOUR), "DATA_003", "no subset 'Chat'"),
        ("reward_bench_2", pair("Math", "a", "b"), "DATA_003", "no list of answers"),
        ("reward_bench_2", choice("Math", ["a", "b"], ["c", "d"]), "DATA_003", "not one correct answer of 4"),
        ("reward_bench_2", choice("Math", **FOUR, num_correct=2), "DATA_010", "num_correct is 2"),
        ("reward_bench_2", choice("Ties", ["a"], ["b"], id="7"), "DATA_003", "neither 'ref:N' nor 'tied:N'"),
        ("reward_bench_2", choice("Ties", ["a"], ["b"], id="ref:7"), "DATA_003", "both"),
    ],
)
def test_rows_that_are_none_of_the_benchmark_are_refused(
    tmp_path: Path, kind: str, row: dict[str, Any], code: str, says: str
) -> None:
    with pytest.raises(DataError, match=says) as caught:
        read_benchmark(section(tmp_path, kind, [row]))
    assert caught.value.code == code


def test_no_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_benchmark(section(tmp_path, "reward_bench", []))
    assert caught.value.code == "DATA_012"


def test_the_report_of_a_recipe_holds_its_benchmarks(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    in_this_process(monkeypatch)
    save_classifier(bench.folder / "recipes" / "rm")
    bench.write("one.jsonl", [pair("donotanswer", "good answer", "bad"), pair("hep-go", "bad", "good answer")])
    bench.write("two.jsonl", [choice("Math", **FOUR)])
    benchmarks = [
        {"kind": "reward_bench", "source": files("one.jsonl")},
        {"kind": "reward_bench_2", "source": files("two.jsonl")},
    ]
    training = {"kind": "existing", "model": {"path": "rm"}, "max_length": 60}
    made = bench.make(bench.recipe(training=training, evaluation={"benchmarks": benchmarks}), *ASSETS[:6])
    one, two = json.loads((made.folder / "report.json").read_text("utf-8"))["benchmarks"]
    # The same two answers to the same prompt, once either way round: one of the two is right.
    assert one["score"] == 0.5 and sorted(one["sections"].values()) == [0.0, 1.0] and two["score"] in (0.0, 1.0)
    assert made.manifest.facts["reward_bench"] == 0.5 and made.manifest.facts["reward_bench_2"] == two["score"]
    assert made.manifest.work == {"responses scored by the reward model": 8 + 4 + 4}
    for kind in ("md", "html"):
        assert "RewardBench 2" in (made.folder / f"report.{kind}").read_text("utf-8")
