"""Rewards at the command line: of texts, files and standard input, for people and for machines."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from rm_assets.cli import score as scoring
from rm_assets.cli.main import app
from rm_assets.core.errors import RmAssetsError
from rm_assets.serving import RewardModel
from rm_assets.storage.sources import SourceRow
from rm_assets_tests.fakes import save_classifier

torch.set_num_threads(1)
DIALOGUE = [{"role": "system", "content": "be good"}, {"role": "user", "content": "one apple"}]
ROWS: list[dict[str, Any]] = [
    {"prompt": "one apple", "responses": ["two pears", "no"]},
    {"prompt": DIALOGUE, "response": "yes", "id": 7},
    {"prompt": "three plums", "responses": "fine"},
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_classifier(tmp_path_factory.mktemp("scored"))


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> RewardModel:
    return RewardModel.load(checkpoint, device="cpu")


def rm_assets(*arguments: str | Path, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)


def lines(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def expected(model: RewardModel) -> list[float]:
    """The rewards of ROWS, in order."""
    return [
        *model.score("one apple", ["two pears", "no"]),
        *model.score(DIALOGUE, ["yes"]),
        *model.score("three plums", ["fine"]),
    ]


def code_of(result: Result) -> str:
    assert result.exit_code == 1 and isinstance(result.exception, RmAssetsError), result.output
    return result.exception.code


def test_texts_are_scored_as_a_table_or_as_json(checkpoint: Path, model: RewardModel) -> None:
    asked = ["score", checkpoint, "--prompt", "one apple", "--response", "two pears", "--response", "no"]
    rewards = model.score("one apple", ["two pears", "no"])
    found = lines(rm_assets(*asked, "--json"))
    assert [line["reward"] for line in found] == pytest.approx(rewards, abs=1e-5)
    assert [(line["row"], line["index"], line["response"]) for line in found] == [(0, 0, "two pears"), (0, 1, "no")]
    table = rm_assets(*asked).stdout.splitlines()
    assert table[0].split() == ["row", "response", "reward", "tokens"]
    assert [line.split()[2] for line in table[1:]] == [f"{reward:.4f}" for reward in rewards]


def test_files_and_standard_input_give_the_same(checkpoint: Path, model: RewardModel, tmp_path: Path) -> None:
    text = "".join(json.dumps(row) + "\n" for row in ROWS)
    (tmp_path / "rows.jsonl").write_text(text)
    (tmp_path / "rows.json").write_text(json.dumps(ROWS))
    found = [
        lines(rm_assets("score", checkpoint, "--json", "--file", tmp_path / "rows.jsonl")),
        lines(rm_assets("score", checkpoint, "--json", "--file", tmp_path / "rows.json")),
        lines(rm_assets("score", checkpoint, "--json", "--file", "-", stdin=text)),
    ]
    assert [line["reward"] for line in found[0]] == pytest.approx(expected(model), abs=1e-5)
    assert [(line["row"], line["index"]) for line in found[0]] == [(0, 0), (0, 1), (1, 0), (2, 0)]
    assert found[0] == found[1] == found[2] and found[0][2]["prompt"] == DIALOGUE


def test_tables_of_one_response_a_row(checkpoint: Path, model: RewardModel, tmp_path: Path) -> None:
    table = pd.DataFrame({"prompt": ["one apple", "one apple"], "response": ["two pears", "no"]})
    table.to_csv(tmp_path / "rows.csv", index=False)
    table.to_parquet(tmp_path / "rows.parquet")
    for name in ("rows.csv", "rows.parquet"):
        found = lines(rm_assets("score", checkpoint, "--json", "--file", tmp_path / name))
        assert [line["reward"] for line in found] == pytest.approx(expected(model)[:2], abs=1e-5)


def test_output_is_written_whole_or_not_at_all(checkpoint: Path, model: RewardModel, tmp_path: Path) -> None:
    good, bad, out = tmp_path / "good.jsonl", tmp_path / "bad.jsonl", tmp_path / "out.jsonl"
    good.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    bad.write_text(good.read_text() + '{"prompt": "a"}\n')
    assert code_of(rm_assets("score", checkpoint, "--file", bad, "--output", out)) == "DATA_003"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.jsonl", "good.jsonl"]
    assert rm_assets("score", checkpoint, "--file", good, "--output", out).stdout == ""
    written = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["reward"] for line in written] == pytest.approx(expected(model), abs=1e-5)


def test_rows_without_end_are_scored_as_they_come(model: RewardModel) -> None:
    endless: Iterator[SourceRow] = (SourceRow(f"row {n}", {"prompt": "a", "response": "b"}) for n in itertools.count())
    found = list(itertools.islice(scoring._scored(model, scoring._of_rows(endless)), 3_000))
    assert [asked.row for asked, _ in found] == list(range(3_000))


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        ('{"prompt": "a"}\n', "DATA_003"),
        ('{"response": "a"}\n', "DATA_003"),
        ('{"prompt": "a", "responses": []}\n', "DATA_003"),
        ('{"prompt": "a", "responses": ["b", 1]}\n', "DATA_003"),
        ('{"prompt": [], "response": "a"}\n', "DATA_003"),
        ('{"prompt": [{"role": "assistant", "content": "b"}], "response": "a"}\n', "DATA_003"),
        ("{\n", "DATA_002"),
        (b"\xff\n", "DATA_002"),
    ],
)
def test_a_row_that_cannot_be_scored_is_named(checkpoint: Path, rows: str | bytes, code: str) -> None:
    result = rm_assets("score", checkpoint, "--file", "-", stdin=rows)
    assert code_of(result) == code and "standard input" in str(result.exception)


def test_a_cut_response_says_so(checkpoint: Path) -> None:
    asked = ["score", checkpoint, "--max-length", "40", "--prompt", "one", "--response", "two pears please " * 30]
    assert "too long: the reward is that of its beginning" in rm_assets(*asked).stdout
    assert lines(rm_assets(*asked, "--json"))[0]["truncated"]


@pytest.mark.parametrize(
    "options",
    [
        [], ["--prompt", "a"], ["--response", "a"], ["--prompt", "a", "--response", "b", "--file", "c"],
        ["--prompt", "a", "--response", "b", "--dtype", "float8"],
        ["--prompt", "a", "--response", "b", "--device", "abacus"],
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(checkpoint: Path, options: list[str]) -> None:
    assert rm_assets("score", checkpoint, *options).exit_code == 2


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        ("no-such-thing", "MODEL_001", "'no-such-thing' is no folder here and no recipe"),
        ("embeded", "MODEL_001", "did you mean 'embedded'?"),
        ("./no/such", "MODEL_001", "does not exist"),
        ("org/no-such", "MODEL_001", "Hub cannot be reached"),  # the tests are offline
        ("embedded", "STORE_002", "rm-assets run embedded"),
    ],
)
def test_an_unknown_model_is_one_message(
    name: str, code: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RM_ASSETS_HOME", str(tmp_path))
    result = rm_assets("score", name, "--prompt", "a", "--response", "b")
    assert code_of(result) == code and says in str(result.exception)


def test_two_responses_are_compared(checkpoint: Path, model: RewardModel) -> None:
    found = model.compare("one apple", "two pears", "no")
    asked = ["compare-responses", checkpoint, "--prompt", "one apple", "two pears", "no"]
    (as_json,) = lines(rm_assets(*asked, "--json"))
    assert as_json["margin"] == pytest.approx(found.margin, abs=1e-5)
    assert as_json["probability"] == pytest.approx(found.probability, abs=1e-5)
    better, probability = ("A", found.probability) if found.margin > 0 else ("B", 1 - found.probability)
    assert rm_assets(*asked).stdout.startswith(f"{better} is better with probability {probability:.3f}")


def test_interactive_scores_until_there_is_no_prompt(checkpoint: Path, model: RewardModel) -> None:
    typed = "one apple\ntwo pears\nno\n\n" + "two pears please " * 300 + "\nyes\n\n" + "one apple\n\n\n"
    result = rm_assets("interactive", checkpoint, stdin=typed)
    assert result.exit_code == 0 and result.stdout.endswith("bye\n")
    rewards = model.score("one apple", ["two pears", "no"])
    for reward, text in zip(rewards, ["two pears", "no"], strict=True):
        assert f"{'*' if reward == max(rewards) else ' '} {reward:>10.4f}  {text}\n" in result.stdout
    assert "error: [MODEL_005]" in result.stdout


def test_interactive_ends_politely_with_the_input(checkpoint: Path) -> None:
    result = rm_assets("interactive", checkpoint, stdin="one apple\ntwo")
    assert result.exit_code == 0 and result.stdout.endswith("\nbye\n")
