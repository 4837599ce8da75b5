"""Damaged files: whatever a reader is given, it gives rows or says in an error of ours what is wrong with them.

A sound file is damaged at random, 10,000 times for each reader; RM_ASSETS_NUM_DAMAGED sets another number, 100,000 where a
reader was changed. Seeds are fixed, so a failure comes back.
"""

import json
import os
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pytest

from rm_assets.core.errors import RmAssetsError
from rm_assets.core.gold.rankings import Entry, text_id
from rm_assets.core.recipe import FileSource, HumanGold, PreferenceGold, PromptsSection
from rm_assets.core.recipe_files import RecipeBook
from rm_assets.core.records import GoldReward, Prompt, Response
from rm_assets.storage.tables import read_table, write_table
from rm_assets.tasks.gold import human
from rm_assets.tasks.gold.preferences import two_rewards
from rm_assets.tasks.prompt_rows import prompt_rows, responses_in

NUM_INPUTS = int(os.environ.get("RM_ASSETS_NUM_DAMAGED", "10000"))
TOKENS = [
    b'"', b"'", b",", b"\n", b"\r\n", b"\x00", b"\xff", b"\xf0\x9f", b"{", b"}", b"[", b"]", b":", b"- ", b"null", b"NaN", b"1e999",
    b"true", b"\\u0000", b"\\ud800", b"&a", b"*a", b"!!python/object:os.system", b"<<", b"  ", b"\t", b"#", b"|", b">", b"0" * 400,
    b'{"role": "user", "content": "x"}', b"[" * 3000, b"${HOME}", b"\xef\xbb\xbf", "\u2028".encode(), b"-1", b"9" * 30,
]  # fmt: skip
ROWS = [
    {"prompt": "one?", "chosen": "a, b", "rejected": 'c "d"', "winner": "0", "margin": 1.5},
    {"prompt": [{"role": "user", "content": "two"}], "chosen": [{"role": "assistant", "content": "x\ny"}], "rejected": "z", "winner": "tie", "margin": 0},
    {"prompt": "three", "chosen": [{"from": "human", "value": "three"}, {"from": "gpt", "value": "ü"}], "rejected": "z", "winner": 1, "margin": "2"},
]  # fmt: skip
JSONL = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
CSV = b'prompt,chosen,rejected,winner,margin\n"one, two",a,"b\nc",0,1\nthree,d,e,tie,0\n'
TEXTS = ("first", "second", "third")
RANKED = "".join(
    json.dumps(asdict(Entry(prompt_id="p", action=action, ranking=ranking, annotator=annotator, at="2026-11-21T10:00:00+00:00"))) + "\n"
    for action, ranking, annotator in [
        ("rank", ((text_id("p", "second"),), (text_id("p", "first"), text_id("p", "third"))), None),
        ("skip", (), "anna"), ("undo", (), "anna"),
        ("rank", ((text_id("p", "first"),), (text_id("p", "second"),), (text_id("p", "third"),)), "anna"),
    ]
).encode()  # fmt: skip
RECIPE = b"""description: a recipe
prompts: {source: {kind: generator, num_prompts: 5}, split: {train: 0.5, validation: 0.2, test: 0.3}}
sampling: {kind: policy, policy: {path: base}, num_responses: 2}
gold: {kind: verifier, exact: 1.0}
training: {base: {path: base}, learning_rate: 1.0e-3, num_epochs: 1}
checks: {enough_pairs: {limit: 5}}
"""


def damaged(sound: bytes, seed: int, num: int) -> Iterable[bytes]:
    """One to four random faults each: bytes changed, cut, doubled, moved, or something put in."""
    chance = random.Random(seed)
    for _ in range(num):
        data = bytearray(sound)
        for _ in range(chance.randint(1, 4)):
            start = chance.randrange(len(data) + 1)
            end = min(len(data), start + chance.randint(0, 12))
            match chance.randrange(5):
                case 0:
                    data[start:end] = bytes(chance.randrange(256) for _ in range(end - start))
                case 1:
                    del data[start:end]
                case 2:
                    data[start:start] = data[start:end] * chance.randint(1, 3)
                case 3:
                    data[start:start] = chance.choice(TOKENS)
                case _:
                    piece, data[start:end] = bytes(data[start:end]), b""
                    place = chance.randrange(len(data) + 1)
                    data[place:place] = piece
        yield bytes(data)


def read_preferences(file: Path) -> int:
    """Every row as prompt, responses and rewards, written as a table; the number of prompts in it."""
    section, gold = PromptsSection(source=FileSource(kind="files", files=[str(file)])), PreferenceGold(kind="preferences", winner_field="winner", margin_field="margin")  # fmt: skip

    def prompts() -> Iterable[Prompt]:
        for row, prompt in prompt_rows(section, section.source):
            assert prompt is not None
            for field in ("chosen", "rejected"):
                responses_in(row, field, prompt, None)
            two_rewards(gold, row)
            yield prompt

    return write_table(file.with_suffix(".parquet"), Prompt, prompts())


def read_rankings(file: Path) -> int:
    """The gold rewards of three responses to one prompt, as a table."""
    section = HumanGold(kind="human", rankings=str(file), pending="drop")
    responses = [
        Response(
            prompt_id="p", prompt="p", system=None, reference=None, source="all", split="train", external_id=None, row=0,
            response_id=text, sample_index=index, response=text, model="m", seed=None, num_tokens=None, finished=None,
        )
        for index, text in enumerate(TEXTS)
    ]  # fmt: skip
    table = file.with_suffix(".parquet")
    task = SimpleNamespace(recipe=SimpleNamespace(name="mine"))
    num_rows = write_table(table, GoldReward, human.label(task, section, {}, responses).rewards)  # type: ignore[arg-type]
    found = list(read_table(table, GoldReward))
    assert [reward.response for reward in found] == list(TEXTS)
    # Whoever ranks, places 1, 2 and 3 are given away.
    assert sum(reward.gold_reward for reward in found) == pytest.approx(-6)
    return num_rows


def outcomes(read: Callable[[Path], int], name: str, sound: bytes, folder: Path, num: int) -> tuple[int, int]:
    """How many damaged files could be read, and how many were refused; anything else ends the test."""
    file, table = folder / name, (folder / name).with_suffix(".parquet")
    num_read = num_refused = 0
    for place, data in enumerate(damaged(sound, 1, num)):
        file.write_bytes(data)
        table.unlink(missing_ok=True)
        refusal = None
        try:
            num_rows = read(file)
        except RmAssetsError as error:
            refusal = error
        except Exception as error:
            raise AssertionError(f"input {place} ended in {error!r}: {data!r}") from error
        if refusal is None:
            if table.exists() and place % 97 == 0:
                assert sum(1 for _ in read_table(table, Prompt)) == num_rows
            num_read += 1
        else:
            assert refusal.code and refusal.what
            assert list(folder.iterdir()) == [file], f"input {place} left something behind: {data!r}"
            num_refused += 1
    return num_read, num_refused


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where the system has such a place: on a disk most of the time would go into opening files."""
    place = Path("/dev/shm")
    with TemporaryDirectory(dir=place if os.access(place, os.W_OK) else tmp_path) as folder:
        yield Path(folder)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("name", "sound"), [("rows.jsonl", JSONL), ("rows.csv", CSV)], ids=["jsonl", "csv"])
def test_damaged_rows_are_read_or_refused_and_leave_no_table(name: str, sound: bytes, in_memory: Path) -> None:
    num_read, num_refused = outcomes(read_preferences, name, sound, in_memory, NUM_INPUTS)
    assert num_read + num_refused == NUM_INPUTS
    assert min(num_read, num_refused) > NUM_INPUTS / 50  # both happen, or the damage says nothing


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_damaged_rankings_are_read_or_refused_and_leave_no_table(in_memory: Path) -> None:
    num_read, num_refused = outcomes(read_rankings, "ranked.jsonl", RANKED, in_memory, NUM_INPUTS)
    assert num_read + num_refused == NUM_INPUTS
    assert min(num_read, num_refused) > NUM_INPUTS / 50


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_damaged_recipes_are_read_or_refused(in_memory: Path) -> None:
    def read(file: Path) -> int:
        RecipeBook(file.parent, {}).load("mine")
        return 1

    num_read, num_refused = outcomes(read, "mine.yaml", RECIPE, in_memory, NUM_INPUTS)
    assert num_read + num_refused == NUM_INPUTS
    assert min(num_read, num_refused) > NUM_INPUTS / 50
