"""Every shipped recipe and every recipe of docs/examples, stage by stage: what goes in is kept or lost for a counted reason.

Of a recipe that needs the network only what lies behind it is replaced: datasets by a few rows of the same columns under
the same id on a Hub on this machine, and models by small ones.
"""

import io
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from rm_assets.core.pairing import REASONS
from rm_assets.core.recipe import DatasetSource, GeneratorSource, PromptSource, RecordedResponses, SamplingSettings
from rm_assets.core.recipe.prompts import MixtureSource
from rm_assets.core.recipe_files import SHIPPED_FOLDER, RecipeBook
from rm_assets.embedded.task import generate_prompts
from rm_assets.resources.compute import Made
from rm_assets.storage.sources import read_rows
from rm_assets_tests.fake_hub import FakeHub
from rm_assets_tests.fakes import build_tokenizer, save_causal, save_classifier
from rm_assets_tests.loopback_hub import serving
from rm_assets_tests.tasks.conftest import ASSETS, Bench

REAL_DATA = os.environ.get("RM_ASSETS_REAL_DATA")
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
NUM = 60
TASK = list(generate_prompts(2 * NUM, 5))
POLICY = {"policy": {"path": "package://embedded/policy"}, "max_new_tokens": 48}
GOLD = {"model": {"path": "gold"}}
ALPACAFARM: dict[str, Any] = {"sampling": POLICY, "gold": GOLD, "execution": {"device": "cpu"}}
SHIPPED: dict[str, dict[str, Any]] = {
    "embedded": {},
    "ranked-answers": {"training": {"base": {"path": "base"}}},
    "summarize-feedback": {"prompts": {"source": {"files": ["comparisons.jsonl"]}}},
    "gsm8k": {"sampling": POLICY},
    "smollm2-135m": {"sampling": POLICY, "gold": GOLD},
    "alpacafarm-qwen3-4b": ALPACAFARM,
    "alpacafarm-qwen3-4b-longer": ALPACAFARM,
}
"""What is changed of each shipped recipe so that it can be run here."""
DATASETS: dict[str, dict[str, list[dict[str, Any]]]] = {
    "openai/gsm8k": {
        "train": [{"question": prompt, "answer": reference} for prompt, reference in TASK[:NUM]],
        "test": [{"question": prompt, "answer": reference} for prompt, reference in TASK[NUM:]],
    },
    "databricks/databricks-dolly-15k": {
        "train": [
            {"instruction": prompt, "context": "", "response": "", "category": "ab"[n % 2]}
            for n, (prompt, _) in enumerate([*TASK, *TASK[:7]])
        ]
    },
}
REAL = {"alpaca-eval": ["alpaca-eval-best-worst", "alpaca-eval-all-pairs"], "real-data": ["gsm8k-solutions", "hh-harmless"],
        "soft-labels": ["hard@1", "soft@5"]}  # fmt: skip


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bench, RecipeBook]]:
    """A bench with the recipe `here-NAME` for each shipped NAME, and all that these need."""
    bench = Bench(tmp_path_factory.mktemp("shipped"))
    recipes = bench.folder / "recipes"
    for name, changes in SHIPPED.items():
        (recipes / f"here-{name}.yaml").write_text(yaml.safe_dump({"extends": name, **changes}))
    comparisons = [
        {"input_text": f"text {n % 250}", "candidate_0": "short", "candidate_1": f"longer {n % 3}", "choice": n % 2}
        for n in range(300)
    ]
    bench.write("comparisons.jsonl", comparisons)
    bench.write("rm_prompts.json", json.dumps([{"prompt": prompt} for prompt, _ in TASK[: NUM + 5]]))
    bench.write("test_prompts.json", json.dumps([{"prompt": prompt} for prompt, _ in TASK[NUM:]]))
    tokenizer = build_tokenizer()
    tokenizer.model_max_length = 2048
    save_classifier(recipes / "gold", tokenizer=tokenizer, max_position_embeddings=2048)
    save_causal(recipes / "base")
    with serving(FakeHub()) as hub, pytest.MonkeyPatch.context() as patch:
        for dataset, splits in DATASETS.items():
            hub.commit(
                dataset,
                {
                    "README.md": card(list(splits)),
                    **{f"{split}.parquet": parquet(rows) for split, rows in splits.items()},
                },
            )
        patch.delenv("HF_HUB_OFFLINE", raising=False)
        patch.setenv("HF_ENDPOINT", hub.endpoint)
        patch.setenv("HF_HOME", str(bench.folder / "hf"))
        patch.setenv("HF_HUB_DISABLE_XET", "1")
        yield bench, RecipeBook(recipes, {"RM_ASSETS_ALPACAFARM": str(recipes)})


def card(splits: list[str]) -> bytes:
    data_files = [{"split": split, "path": f"{split}.parquet"} for split in splits]
    configs = [{"config_name": "main", "default": True, "data_files": data_files}]
    return f"---\n{yaml.safe_dump({'configs': configs})}---\n".encode()


def parquet(rows: list[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


def num_rows(source: PromptSource) -> int:
    """Rows of a source, counted apart from the tasks."""
    if isinstance(source, GeneratorSource):
        return source.num_prompts
    if isinstance(source, DatasetSource):
        return len(DATASETS[source.dataset][source.split])
    assert not isinstance(source, MixtureSource)
    return sum(1 for _ in read_rows(source))


def assert_accounts_add_up(bench: Bench, book: RecipeBook, key: str) -> list[Made]:
    """Makes the assets up to implicit_pairs, and holds each account against the tables and the sources."""
    recipe = book.load(key)
    made = [bench.make(recipe, asset) for asset in ASSETS[:4]]
    prompts, responses, gold, pairs = (bench.rows(each) for each in made)
    of_prompts, of_responses, of_gold, of_pairs = (each.manifest.counts for each in made)

    read = sum(map(num_rows, recipe.prompts.sources))
    if recipe.prompts.max_prompts is None or read < recipe.prompts.max_prompts:
        assert of_prompts["rows"] == read
    lost = ("duplicates_dropped", "dialogues_part_early", "left_out_of_mixture", "overlap_with_test")
    assert of_prompts["rows"] == of_prompts["prompts"] + sum(of_prompts[reason] for reason in lost)
    assert (
        of_prompts["prompts"]
        == len(prompts)
        == sum(of_prompts[f"{s}_prompts"] for s in ("train", "validation", "test"))
    )

    sampling = recipe.sampling
    assert of_responses["responses"] == len(responses)
    assert of_responses["prompts"] == len({r.prompt_id for r in responses})
    if isinstance(sampling, RecordedResponses):
        recorded = read if sampling.source is None else num_rows(sampling.source)
        used = recorded - of_responses["rows_of_unknown_prompts"]
        assert of_responses["responses"] == used * len(sampling.response_fields)
        assert of_responses["prompts"] == len(prompts) - of_responses["prompts_without_response_dropped"]
    else:
        assert isinstance(sampling, SamplingSettings)
        each = {"train": sampling.num_responses}
        other = sampling.num_test_responses or sampling.num_responses
        assert of_responses["responses"] == sum(each.get(prompt.split, other) for prompt in prompts)

    assert of_gold["gold_rewards"] == len(gold) == len(responses)
    assert {r.response_id for r in gold} == {r.response_id for r in responses}
    if "recorded_rows" in of_gold:
        source = getattr(recipe.gold, "source", None)
        assert of_gold["recorded_rows"] == (read if source is None else num_rows(source))

    sizes: defaultdict[tuple[str, str | None], int] = defaultdict(int)
    for reward in gold:
        sizes[reward.prompt_id, reward.comparison] += 1
    candidates = {"best_worst": lambda k: int(k > 1), "all": lambda k: k * (k - 1) // 2, "adjacent": lambda k: k - 1}
    assert of_pairs["candidates"] == sum(map(candidates[recipe.pairs.policy], sizes.values()))
    assert of_pairs["candidates"] == of_pairs["pairs"] + sum(of_pairs[reason] for reason in REASONS)
    assert of_pairs["pairs"] == len(pairs) > 0
    assert Counter(pair.split for pair in pairs) == Counter(
        {split: of_pairs[f"{split}_pairs"] for split in ("train", "validation", "test") if of_pairs[f"{split}_pairs"]}
    )
    return made


def assert_training_adds_up(bench: Bench, book: RecipeBook, key: str, num_train_pairs: int) -> dict[str, int]:
    recipe = book.load(key)
    # Every pair is read and accounted for before the first step, so two steps are enough; shorter, so that some are lost.
    max_length = min(1024, recipe.training.max_length)
    changes = {"max_optimizer_steps": 2, "max_length": max_length, "validation": None}
    training = recipe.training.model_copy(update=changes)
    counts = bench.make(recipe.model_copy(update={"training": training}), "reward_model").manifest.counts
    lost = ("over_length", "identical_after_tokenization", "set_aside")
    assert counts["pairs_in"] == num_train_pairs
    assert counts["pairs_in"] == counts["pairs_trained"] + sum(counts[f"pairs_{reason}"] for reason in lost)
    return counts


def test_every_shipped_recipe_and_every_example_is_here() -> None:
    assert set(SHIPPED) == {file.stem for file in SHIPPED_FOLDER.glob("*.yaml")}
    assert {folder: sorted({key.split("@")[0] for key in keys}) for folder, keys in REAL.items()} == {
        folder.name: sorted(file.stem for file in folder.glob("*.yaml"))
        for folder in EXAMPLES.iterdir()
        if folder.is_dir() and folder.name != "machines"  # of embedded, for a cloud: executors/test_vm.py
    }


@pytest.mark.parametrize(
    "name",
    [n if n in ("ranked-answers", "summarize-feedback") else pytest.param(n, marks=pytest.mark.slow) for n in SHIPPED],
)
def test_the_accounts_of_a_shipped_recipe_add_up(shipped: tuple[Bench, RecipeBook], name: str) -> None:
    bench, book = shipped
    made = assert_accounts_add_up(bench, book, f"here-{name}")
    if name == "ranked-answers":
        counts = made[-1].manifest.counts
        trained = assert_training_adds_up(bench, book, f"here-{name}", counts["train_pairs"])
        assert trained["pairs_trained"] > 0


@pytest.mark.slow
@pytest.mark.skipif(REAL_DATA is None, reason="RM_ASSETS_REAL_DATA is not set")
@pytest.mark.parametrize(("folder", "key"), [(folder, key) for folder, keys in REAL.items() for key in keys])
def test_the_accounts_of_an_example_add_up(shipped: tuple[Bench, RecipeBook], folder: str, key: str) -> None:
    bench, book = shipped[0], RecipeBook(EXAMPLES / folder, {"RM_ASSETS_REAL_DATA": str(REAL_DATA)})
    made = assert_accounts_add_up(bench, book, key)
    if key == "alpaca-eval-best-worst":
        trained = assert_training_adds_up(bench, book, key, made[-1].manifest.counts["train_pairs"])
        assert trained["pairs_over_length"] > 0
