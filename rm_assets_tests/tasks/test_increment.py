"""600 real prompts are labelled; what is added or changed then is sampled and scored, and nothing else."""

import gzip
import json
import os
from pathlib import Path

import pytest

from rm_assets.core.recipe import Recipe
from rm_assets.resources.compute import Made
from rm_assets_tests.fakes import build_tokenizer, save_classifier
from rm_assets_tests.tasks.conftest import ASSETS, Bench, files

REAL_DATA = os.environ.get("RM_ASSETS_REAL_DATA")
K = 2
# The policy knows one toy task. At this temperature its samples to a prompt differ, so each of them has to be scored.
SAMPLING = {
    "kind": "policy", "policy": {"path": "package://embedded/policy"}, "num_responses": K, "max_new_tokens": 16,
    "temperature": 2.0,
}  # fmt: skip


def label(bench: Bench, recipe: Recipe, prompts: list[str]) -> list[Made]:
    """The prompts, the responses to them and their gold rewards."""
    bench.write("prompts.jsonl", [{"prompt": prompt} for prompt in prompts])
    return [bench.make(recipe, asset) for asset in ASSETS[:3]]


@pytest.mark.slow
@pytest.mark.skipif(REAL_DATA is None, reason="RM_ASSETS_REAL_DATA is not set")
def test_of_600_real_prompts_six_added_and_six_changed_cost_themselves_alone(bench: Bench) -> None:
    with gzip.open(Path(str(REAL_DATA)) / "alpaca_eval" / "prompts.jsonl.gz", "rt", encoding="utf-8") as file:
        prompts = [json.loads(line)["prompt"] for line in file]
    tokenizer = build_tokenizer()
    tokenizer.model_max_length = 2048
    save_classifier(bench.folder / "recipes" / "gold", tokenizer=tokenizer, max_position_embeddings=2048)
    recipe = bench.recipe(
        prompts={"source": files("prompts.jsonl"), "split": {"train": 0.7, "validation": 0.1, "test": 0.2}},
        sampling=SAMPLING,
        gold={"kind": "classifier", "model": {"path": "gold"}, "max_length": 2048},
    )
    before = label(bench, recipe, prompts)
    changed = [f"{prompt} Be brief." if n % 100 == 50 else prompt for n, prompt in enumerate(prompts)]
    after = label(bench, recipe, [*changed, *(f"In two words: {prompt}" for prompt in prompts[3::100])])

    assert (before[0].manifest.counts["prompts"], after[0].manifest.counts["prompts"]) == (600, 606)
    for what, first, second in zip(("sampled", "scored"), before[1:], after[1:], strict=True):
        print(first.manifest.work, second.manifest.work)
        assert first.manifest.work[f"responses {what}"] == 600 * K
        assert second.manifest.work[f"responses {what}"] == 12 * K
        assert 0 < second.manifest.work["tokens forwarded"] <= 0.03 * first.manifest.work["tokens forwarded"]
    old, new = (
        {(r.prompt, r.sample_index): (r.response, r.gold_reward) for r in bench.rows(made[2])}
        for made in (before, after)
    )
    assert len(old.keys() & new.keys()) == 594 * K
    assert all(new[key] == old[key] for key in old.keys() & new.keys())
