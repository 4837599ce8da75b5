"""gold_rewards of gold models: responses too long for them, several combined, and what a changed one relabels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rm_assets.core.checks.data import order_of_rewards
from rm_assets.core.errors import DataError, ModelError, RmAssetsError
from rm_assets.core.records import GoldReward, Response
from rm_assets.core.stages import STAGES
from rm_assets.storage.fingerprints import Fingerprints
from rm_assets.storage.lineage import wanted
from rm_assets.storage.store import Store
from rm_assets.storage.tables import read_table
from rm_assets.tasks.score import score
from rm_assets.tasks.session import LineReporter, Task
from rm_assets_tests.fakes import save_classifier
from rm_assets_tests.tasks.conftest import ASSETS, Bench, files

NUM_LONG = 3
LONG = "ramble " * 40
RECORDED: dict[str, Any] = {"sampling": {"kind": "recorded", "source": files("answers.jsonl", "long.jsonl")}}
NO_SPLIT = {"split": {"train": 1.0, "validation": 0.0, "test": 0.0}}


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """TOY with two gold models and three responses that are too long for them."""
    bench = Bench(tmp_path_factory.mktemp("scored"))
    bench.write_toy(8, 4)
    save_classifier(bench.folder / "recipes" / "one")
    save_classifier(bench.folder / "recipes" / "two", seed=1)
    bench.write("long.jsonl", [{"prompt": f"what is {n} and 1", "response": f"{LONG}{n}"} for n in range(NUM_LONG)])
    bench.make(bench.recipe(**RECORDED), "prompts", "sampled_responses")
    return bench


def gold_model(name: str, **changes: Any) -> dict[str, Any]:
    return {"kind": "classifier", "model": {"path": name}, "max_length": 100, **changes}


def scorer(name: str, gold: dict[str, Any], **weight: float) -> dict[str, Any]:
    return {"name": name, "gold": gold, **weight}


def scored_responses(work: dict[str, int]) -> dict[str, int]:
    """The responses that were scored; the tokens forwarded are none exactly where no response is."""
    counts = {kind: number for kind, number in work.items() if kind.startswith("responses scored")}
    for kind, number in counts.items():
        assert (work[kind.replace("responses scored", "tokens forwarded")] > 0) == (number > 0)
    return counts


@dataclass(frozen=True)
class Labelled:
    """What the task made, in this process: PyTorch takes longer to load than all of this."""

    rows: list[GoldReward]
    counts: dict[str, int]
    work: dict[str, int]
    facts: dict[str, Any]


def labelled(bench: Bench, gold: dict[str, Any], **sections: Any) -> Labelled:
    """The gold rewards by this gold section; everything before them is there."""
    recipe, store = bench.recipe(**{**RECORDED, **sections, "gold": gold}), Store(bench.home)
    responses = wanted(store, recipe, "sampled_responses").manifest
    assert responses
    settings = STAGES["gold_rewards"].settings(recipe, Fingerprints(bench.home / "fingerprints").of)
    task = Task("gold_rewards", "here", recipe, store, {"sampled_responses": responses}, settings, LineReporter())
    product = score(task)
    rows = list(read_table(task.folder / "gold_rewards.parquet", GoldReward))
    return Labelled(rows, product.counts, product.work, product.facts)


def refused(bench: Bench, gold: dict[str, Any], **sections: Any) -> RmAssetsError:
    with pytest.raises(RmAssetsError) as caught:
        labelled(bench, gold, **sections)
    return caught.value


def test_the_policy_for_long_responses_changes_labels_and_computes_nothing_again(scored: Bench) -> None:
    cut = labelled(scored, gold_model("one"))
    rows = cut.rows
    assert scored_responses(cut.work) == {"responses scored": 27} and "over_length" not in cut.counts
    assert cut.counts["gold_rewards"] == 27 and cut.counts["truncated"] == NUM_LONG
    assert [r.truncated for r in rows] == [r.response.startswith(LONG) for r in rows]

    dropped = labelled(scored, gold_model("one", over_length="drop"))
    assert scored_responses(dropped.work) == {"responses scored": 0}
    assert dropped.counts == {"gold_rewards": 24, "truncated": 0, "over_length": NUM_LONG}
    assert dropped.rows == [r for r in rows if not r.truncated]
    manifest = wanted(Store(scored.home), scored.recipe(**RECORDED), "sampled_responses").manifest
    assert manifest
    folder = Store(scored.home).folder("sampled_responses", manifest.digest)
    responses = read_table(folder / "responses.parquet", Response)
    assert order_of_rewards(responses, dropped.rows, dropped.counts).passed

    error = refused(scored, gold_model("one", over_length="error"))
    assert isinstance(error, ModelError) and error.code == "MODEL_005"
    assert f"{NUM_LONG} responses are too long" in error.what and "gold.over_length is 'error'" in error.why
    assert int(error.what.split()[-2]) > 100


def test_without_long_responses_the_policy_says_nothing(scored: Bench) -> None:
    strict = labelled(scored, gold_model("one", max_length=500, over_length="error"))
    assert strict.counts == {"gold_rewards": 27, "truncated": 0}


def test_a_prompt_that_leaves_no_room_is_dropped_with_its_responses_or_ends_the_run(scored: Bench) -> None:
    scored.write("hard.jsonl", [{"prompt": p} for p in (LONG + LONG, *(f"what is {n} and 1" for n in range(4)))])
    answers = [(LONG + LONG, "a"), (LONG + LONG, "b"), *((f"what is {n} and 1", "fine") for n in range(4)), *((f"is {n} even", "yes") for n in range(4))]  # fmt: skip
    scored.write("hard_answers.jsonl", [{"prompt": p, "response": r} for p, r in answers])
    sections = {
        "prompts": {"source": files("hard.jsonl"), "test": files("test.jsonl"), **NO_SPLIT},
        "sampling": {"kind": "recorded", "source": files("hard_answers.jsonl")},
    }  # fmt: skip
    scored.make(scored.recipe(**sections), "prompts", "sampled_responses")
    assert "leaves no room" in refused(scored, gold_model("one"), **sections).what
    assert "2 responses are too long" in refused(scored, gold_model("one", over_length="error"), **sections).what
    dropped = labelled(scored, gold_model("one", over_length="drop"), **sections)
    assert dropped.counts == {"gold_rewards": 8, "truncated": 0, "over_length": 2}
    assert not any(r.prompt.startswith("ramble") for r in dropped.rows)


def test_no_reward_at_all_is_an_error(scored: Bench) -> None:
    error = refused(scored, gold_model("one", max_length=5, over_length="drop"))
    assert isinstance(error, DataError) and error.code == "DATA_005" and "no response has a gold reward" in error.what
    assert error.why == "27 over_length" and "gold.max_length" in error.fix
    combined = {"kind": "combined", "scorers": [scorer("a", gold_model("one", max_length=5, over_length="drop")), scorer("b", gold_model("one"))]}  # fmt: skip
    assert refused(scored, combined).code == "DATA_005"


def by_response(found: Labelled) -> dict[str, float]:
    return {r.response_id: r.gold_reward for r in found.rows}


def test_scorers_are_combined_and_each_stays_visible(scored: Bench) -> None:
    one, two = (by_response(labelled(scored, gold_model(name))) for name in ("one", "two"))
    parts = [scorer("one", gold_model("one"), weight=3), scorer("two", gold_model("two"))]
    plain = {"kind": "combined", "standardize": False, "scorers": parts, "combine": "weighted"}
    weighted = labelled(scored, plain)
    rows = weighted.rows
    assert all(r.components == pytest.approx({"one": one[r.response_id], "two": two[r.response_id]}) for r in rows)
    assert [r.gold_reward for r in rows] == pytest.approx([(3 * one[r.response_id] + two[r.response_id]) / 4 for r in rows])  # fmt: skip
    assert [r.truncated for r in rows] == [r.response.startswith(LONG) for r in rows]
    assert scored_responses(weighted.work) == {"responses scored by one": 0, "responses scored by two": 0}

    parts[0].pop("weight")
    worst = labelled(scored, {"kind": "combined", "scorers": parts, "combine": "worst_case"}).rows
    raw = np.array([[one[r.response_id], two[r.response_id]] for r in worst])
    assert [r.gold_reward for r in worst] == pytest.approx((((raw - raw.mean(0)) / raw.std(0)).min(1)).tolist())
    facts = weighted.facts
    assert -1 <= facts["spearman_one_two"] <= 1
    differences = [(one[a.response_id] - one[b.response_id]) * (two[a.response_id] - two[b.response_id]) for a in rows for b in rows if a.prompt_id == b.prompt_id and a.sample_index < b.sample_index]  # fmt: skip
    assert len(differences) == 9 + 9  # nine prompts of two responses, three of three
    assert facts["share_of_pairs_scorers_disagree_on"] == round(sum(d < 0 for d in differences) / 18, 4)


def test_a_response_that_one_scorer_drops_is_dropped(scored: Bench) -> None:
    parts = [scorer("one", gold_model("one", over_length="drop")), scorer("two", gold_model("two", max_length=500))]
    made = labelled(scored, {"kind": "combined", "scorers": parts})
    assert made.counts == {"gold_rewards": 24, "truncated": 0, "one_over_length": NUM_LONG, "over_length": NUM_LONG}
    assert not any(r.response.startswith(LONG) for r in made.rows)
    # What is dropped has no part in mean and standard deviation.
    assert np.mean([r.gold_reward for r in made.rows]) == pytest.approx(0, abs=1e-9)


def test_a_constant_scorer_is_named(scored: Bench) -> None:
    constant = {"kind": "verifier", "exact": 0, "format": 1, "format_pattern": ".*"}
    bench = scored
    bench.write("asked.jsonl", [{"prompt": f"what is {n} and 1", "gold": "#### 1"} for n in range(4)])
    bench.write("asked_test.jsonl", [{"prompt": f"is {n} even", "gold": "#### 1"} for n in range(4)])
    prompts = {"source": files("asked.jsonl"), "test": files("asked_test.jsonl"), "reference_field": "gold", **NO_SPLIT}  # fmt: skip
    bench.make(bench.recipe(**RECORDED, prompts=prompts), "prompts", "sampled_responses")
    parts = [scorer("one", gold_model("one")), scorer("always", constant)]
    error = refused(bench, {"kind": "combined", "scorers": parts}, prompts=prompts)
    assert error.code == "DATA_014" and "scorer 'always' gives all 19 responses" in error.what
    plain = labelled(bench, {"kind": "combined", "scorers": parts, "standardize": False}, prompts=prompts)
    assert [r.gold_reward for r in plain.rows] == [round((r.components["one"] + 1) / 2, 9) for r in plain.rows]
    assert plain.facts["spearman_one_always"] is None


def test_a_changed_gold_model_relabels_only_what_it_labels(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.write_toy(4, 2)
    save_classifier(bench.folder / "recipes" / "one")
    save_classifier(bench.folder / "recipes" / "two", seed=1)
    parts = [scorer("one", gold_model("one")), scorer("two", gold_model("two"))]
    both = bench.recipe("both", gold={"kind": "combined", "scorers": parts})
    before = [bench.make(both, asset) for asset in ASSETS[:3]]
    assert scored_responses(before[2].manifest.work) == {"responses scored by one": 12, "responses scored by two": 12}

    save_classifier(bench.folder / "recipes" / "two", seed=2)  # another revision of the gold model
    prompts, responses, rewards = [bench.make(both, asset) for asset in ASSETS[:3]]
    assert prompts.was_there and responses.was_there and not rewards.was_there
    assert scored_responses(rewards.manifest.work) == {"responses scored by one": 0, "responses scored by two": 12}
    old, new = bench.rows(before[2]), bench.rows(rewards)
    assert [r.components["one"] for r in new] == [r.components["one"] for r in old]
    assert all(a.components["two"] != b.components["two"] for a, b in zip(old, new, strict=True))


def test_a_gold_model_alone_and_as_one_of_several_shares_what_it_scored(scored: Bench) -> None:
    save_classifier(scored.folder / "recipes" / "other", seed=3)
    assert scored_responses(labelled(scored, gold_model("other")).work) == {"responses scored": 27}
    parts = [scorer("new", gold_model("other")), scorer("two", gold_model("two", max_length=99))]
    combined = {"kind": "combined", "scorers": parts}
    assert scored_responses(labelled(scored, combined).work) == {
        "responses scored by new": 0,
        "responses scored by two": 27,
    }
    save_classifier(scored.folder / "recipes" / "other", seed=4)
    assert scored_responses(labelled(scored, gold_model("other")).work) == {"responses scored": 27}
    assert scored_responses(labelled(scored, combined).work) == {
        "responses scored by new": 0,
        "responses scored by two": 0,
    }
