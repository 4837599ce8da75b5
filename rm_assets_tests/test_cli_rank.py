"""rm-assets rank, as a person uses it: typed into a pipe or a terminal."""

import csv
import io
import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rm_assets.cli.main import main
from rm_assets.resources.compute import Compute
from rm_assets.resources.recipes import recipe_book

COMMAND = Path(sys.executable).parent / "rm-assets"
IN_TERMINAL = """
import os, signal, sys
os.close(os.open(os.ttyname(0), os.O_RDWR))
signal.signal(signal.SIGINT, signal.SIG_DFL)  # whoever runs the tests in the background ignores it
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Makes the terminal on standard input the one whose Ctrl-C ends the command in the arguments."""
PROMPTS = [f"What is {n}?" for n in range(4)]
TEXTS = ("good", "fair", "poor")
RECIPE = """
prompts: {source: {kind: files, files: [prompts.jsonl]}, split: {train: 0.5, validation: 0, test: 0.5}}
sampling: {kind: recorded, source: {kind: files, files: [answers.jsonl]}}
gold: {kind: human, rankings: ranked.jsonl}
training: {base: {path: base}, learning_rate: 0.1}
"""
Line = dict[str, Any]


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of four prompts with three answers each, one of them given twice; the recipe `mine` records it."""
    rows = [{"prompt": p, "response": t} for p in PROMPTS for t in (*TEXTS, "fair")]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": p}) + "\n" for p in PROMPTS))
    (tmp_path / "mine.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    for name, value in (("HOME", tmp_path / "home"), ("RECIPES", tmp_path)):
        monkeypatch.setenv(f"RM_ASSETS_{name}", str(value))
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def rank(*arguments: str, typed: str | bytes = "") -> Said:
    """The command in this process, with a pipe as its input."""
    keys = io.TextIOWrapper(io.BytesIO(typed.encode() if isinstance(typed, str) else typed), encoding="utf-8")
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["rm-assets", "rank", *arguments])
        patch.setattr(sys, "stdin", keys)
        with pytest.raises(SystemExit) as end:
            main()
    return Said(int(end.value.code or 0), out.getvalue(), err.getvalue())


def lines(file: Path) -> list[Line]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def shown(output: str) -> list[dict[str, str]]:
    """The answers by letter, of each prompt that was shown."""
    return [dict(re.findall(r"─ (\w+) ─+╮\n│ (.*?) +│", part)) for part in re.split(r"user: What is \d\?", output)[1:]]


def test_three_are_ranked_then_it_stops_goes_on_and_takes_one_back(folder: Path) -> None:
    kept = folder / "answers.jsonl.rankings.jsonl"
    first = rank("answers.jsonl", typed="c > a = b\nnonsense\na > b\n=\nB>C>A\nq\n")
    assert first.status == 0, first.err
    assert "there is no answer 'nonsense'" in first.out and "not ranked: c" in first.out
    assert "3 of 4 prompts ranked" in first.out and "the same command goes on" in first.out
    assert [[len(group) for group in line["ranking"]] for line in lines(kept)] == [[1, 2], [3], [1, 1, 1]]
    again = rank("answers.jsonl", typed="u\na > b > c\ns\n")
    assert again.status == 0
    assert [line["action"] for line in lines(kept)] == ["rank"] * 3 + ["undo", "rank", "skip"]
    assert lines(kept)[3]["prompt_id"] == lines(kept)[2]["prompt_id"] == lines(kept)[4]["prompt_id"]
    assert "3 of 4 prompts ranked, 1 skipped" in again.out and "nothing is left to rank" in again.out
    assert f"gold: {{kind: human, rankings: {kept.resolve()}}}" in again.out
    asked = shown(again.out)
    assert len(asked) == 3 and asked[1] == shown(first.out)[2]  # in the order of before
    assert len(lines(kept)) == 6
    assert "What is" in rank("answers.jsonl", "--skipped").out
    assert "What is" not in rank("answers.jsonl").out


def test_an_order_is_drawn_for_each_prompt_and_annotator_and_equal_texts_are_shown_once(folder: Path) -> None:
    typed = "a > b > c\n" * 4
    plain, anna = rank("answers.jsonl", typed=typed), rank("answers.jsonl", "--annotator", "Anna", typed=typed)  # fmt: skip
    orders = [tuple(answers.values()) for result in (plain, anna) for answers in shown(result.out)]
    assert len(orders) == 8 and all(sorted(order) == sorted(TEXTS) for order in orders)
    assert len(set(orders)) > 2
    kept = lines(folder / "answers.jsonl.rankings.jsonl")
    assert [line["annotator"] for line in kept] == [None] * 4 + ["Anna"] * 4


def test_two_answers_need_one_key(folder: Path) -> None:
    (folder / "two.csv").write_text("prompt,one,other\np,x,y\nq,x,y\nr,same,same\n")
    result = rank("two.csv", "--response-field", "one", "--response-field", "other", typed="b\n=\n")
    assert result.status == 0, result.err
    assert "2 of 2 prompts ranked" in result.out
    assert f"rankings: {folder.resolve() / 'two.csv.rankings.jsonl'}}}`" in result.out
    assert [len(line["ranking"]) for line in lines(folder / "two.csv.rankings.jsonl")] == [2, 1]


@pytest.mark.slow
def test_a_recipe_waits_for_rankings_goes_on_with_those_of_its_file_and_gives_them_as_csv(folder: Path) -> None:
    early = rank("mine")
    assert early.status == 1 and "[STORE_002]" in early.err and "rm-assets run mine" in early.err
    run = [str(COMMAND), "run", "mine", "--select", "*gold_rewards"]
    waits = subprocess.run(run, capture_output=True, text=True, check=False)
    assert waits.returncode == 1 and "Traceback" not in waits.stderr
    assert (
        "waiting: gold_rewards of recipe 'mine': [DATA_013] 4 of 4 prompts wait for a person (0 ranked, 0 skipped)"
        in waits.stderr
    )
    assert "rank them with `rm-assets rank mine`" in waits.stderr and "\nwaiting after " in waits.stdout

    some = rank("mine", "--split", "test", typed="a > b > c\n" * 4)
    num_test = len(lines(folder / "ranked.jsonl"))
    assert 0 < num_test < 4 and f"{num_test} of {num_test} prompts ranked" in some.out
    assert (
        f"{num_test} of 4 prompts ranked" in rank("answers.jsonl", "--output", "ranked.jsonl", typed="a > b = c\n").out
    )
    assert "4 of 4 prompts ranked" in rank("answers.jsonl", "--output", "ranked.jsonl", typed="a > b = c\n" * 4).out
    assert "nothing is left to rank" in rank("mine").out
    compute, recipe = Compute(), recipe_book().load("mine")
    made = compute.make_asset(recipe, "gold_rewards", say=print, debug=print)
    assert (made.manifest.counts["ranked_prompts"], made.manifest.counts["gold_rewards"]) == (4, 16)

    assert "12 rows written" in rank("mine", "--csv", "ranked.csv").out
    ranks: dict[str, list[float]] = {}
    for row in csv.DictReader((folder / "ranked.csv").read_text().splitlines()):
        ranks.setdefault(row["prompt"], []).append(float(row["rank"]))
    assert sorted(sorted(of) for of in ranks.values()) == [[1, 2, 3]] * num_test + [[1, 2.5, 2.5]] * (4 - num_test)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("embedded",), "gold.kind of recipe 'embedded' is verifier"),
        (("embeded",), "did you mean 'embedded'?"),
        (("no.jsonl",), "correct the path; it starts at the working directory"),
        (("answers.jsonl", "--response-field", "answer"), "--prompt-field and --response-field"),
        (("answers.jsonl", "--split", "test"), "belongs to a recipe"),
        (("embedded", "--output", "x.jsonl"), "belong to a file"),
        (("answers.jsonl", "--annotator", " "), "is no name"),
        (("answers.jsonl", "--csv", "x.csv", "--annotator", "Anna"), "writes the rankings of all annotators"),
        (("answers.jsonl", "--split", "tset"), "none of train, validation, test"),
    ],
)
def test_what_cannot_be_ranked_is_one_sentence(folder: Path, arguments: tuple[str, ...], said: str) -> None:
    result = rank(*arguments)
    assert result.status != 0
    assert said in " ".join(result.err.replace("│", " ").split())
    assert sorted(file.name for file in folder.iterdir()) == ["answers.jsonl", "mine.yaml", "prompts.jsonl"]


def test_what_is_typed_may_be_no_text_and_answers_may_steer_no_terminal(folder: Path) -> None:
    answers = [{"prompt": "p [bold]", "response": t} for t in ("\x1b]0;title\x07[red]x[/red]", "", "y\r\nz")]
    (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    result = rank("answers.jsonl", typed=b"\xff\xfe > a\n\x00\nb > a > c\n")
    assert result.status == 0, result.err
    assert "1 of 1 prompts ranked" in result.out
    assert "\x1b" not in result.out and "\x07" not in result.out
    assert "[red]x[/red]" in result.out and "p [bold]" in result.out and "(no text)" in result.out


@pytest.mark.parametrize("end", [b"\x03", b"\x04"], ids=["Ctrl-C", "Ctrl-D"])
def test_in_a_terminal_ctrl_c_and_ctrl_d_end_politely_with_what_is_kept(folder: Path, end: bytes) -> None:
    terminal, theirs = pty.openpty()
    command = [sys.executable, "-c", IN_TERMINAL, str(COMMAND), "rank", "answers.jsonl"]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    said = b""

    def wait_for(text: bytes, times: int = 1, *, pressing: bytes = b"") -> None:
        nonlocal said
        deadline = time.monotonic() + 60
        while said.count(text) < times:
            assert time.monotonic() < deadline, said
            if select.select([terminal], [], [], 5)[0]:
                said += os.read(terminal, 4096)
            else:  # between `input`'s prompt and its read Python keeps Ctrl-C for after the next key
                os.write(terminal, pressing)

    try:
        wait_for(b"ranking (? for help): ")
        os.write(terminal, b"b > a > c\n")
        wait_for(b"ranking (? for help): ", times=2)
        os.write(terminal, end)
        wait_for(b"the same command goes on", pressing=end)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    assert b"1 of 4 prompts ranked" in said and b"Traceback" not in said
    assert len(lines(folder / "answers.jsonl.rankings.jsonl")) == 1
