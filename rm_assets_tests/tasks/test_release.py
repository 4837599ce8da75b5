"""hub_release: what somebody who has nothing but the folder gets from it."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import load_dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline
from trl.trainer.reward_config import RewardConfig
from trl.trainer.reward_trainer import RewardTrainer

from rm_assets.core.errors import ReleaseError
from rm_assets.resources.compute import Made
from rm_assets.tasks.release import REQUIRED, link_or_copy, validate
from rm_assets_tests.tasks.conftest import ASSETS, Bench

torch.set_num_threads(1)
Chain = tuple[Bench, dict[str, Made]]


@pytest.fixture
def released(chain: Chain) -> Path:
    return chain[1]["hub_release"].folder / "release"


def canaries(released: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((released / "report.json").read_text("utf-8"))["canaries"]
    assert len(found) == 3
    return found


def copy_of(released: Path, target: Path) -> Path:
    target.mkdir()
    for file in released.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def test_the_folder_is_complete_and_named_in_the_manifest(chain: Chain, released: Path) -> None:
    names = {f.name for f in released.iterdir()}
    assert names >= {*REQUIRED, "model.safetensors", "report.html"}
    assert set(chain[1]["hub_release"].manifest.files) == {f"release/{name}" for name in names}
    assert chain[1]["hub_release"].manifest.facts["path"] == str(released)


def test_the_lineage_names_every_asset_before_it(chain: Chain, released: Path) -> None:
    lineage = json.loads((released / "lineage.json").read_text("utf-8"))
    assert {asset: entry["data_version"] for asset, entry in lineage.items()} == {
        asset: chain[1][asset].manifest.data_version for asset in ASSETS[:6]
    }


def test_the_model_gives_the_canary_rewards(released: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(released)
    tokenizer = AutoTokenizer.from_pretrained(released)
    for canary in canaries(released):
        text = tokenizer.apply_chat_template(canary["messages"], tokenize=False)
        assert text == canary["text"]
        with torch.no_grad():
            reward = model(**tokenizer(text, return_tensors="pt", add_special_tokens=False)).logits.item()
        assert reward == pytest.approx(canary["reward"], abs=1e-5)


def test_a_pipeline_gives_the_canary_rewards(released: Path) -> None:
    pipe = pipeline("text-classification", model=str(released), device="cpu")
    for canary in canaries(released):
        (answer,) = pipe([canary["text"]], truncation=False)
        assert answer["label"] == "reward" and answer["score"] == pytest.approx(canary["reward"], abs=1e-5)


def test_trls_reward_trainer_trains_on_the_exported_pairs_unchanged(chain: Chain, tmp_path: Path) -> None:
    bench, made = chain
    base = str(bench.folder / "recipes" / "base")
    exported = str(made["implicit_pairs"].folder / "train.jsonl")
    pairs = load_dataset("json", data_files=exported, split="train", cache_dir=str(tmp_path / "cache"))
    trainer = RewardTrainer(
        model=AutoModelForSequenceClassification.from_pretrained(base, num_labels=1),
        processing_class=AutoTokenizer.from_pretrained(base),
        args=RewardConfig(
            output_dir=str(tmp_path / "out"), max_steps=2, per_device_train_batch_size=4, use_cpu=True,
            report_to="none", save_strategy="no", logging_steps=1, disable_tqdm=True, dataloader_pin_memory=False,
            bf16=False, activation_checkpointing=False,
        ),
        train_dataset=pairs,
    )  # fmt: skip
    assert len(trainer.train_dataset) == len(pairs) == 8
    trainer.train()
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    assert trainer.state.global_step == 2 and len(losses) == 2 and all(math.isfinite(loss) for loss in losses)


def test_a_missing_or_empty_or_foreign_file_is_release_001(chain: Chain, released: Path, tmp_path: Path) -> None:
    report, recipe = {"canaries": canaries(released)}, chain[0].recipe()
    without, empty, foreign = (copy_of(released, tmp_path / name) for name in ("without", "empty", "foreign"))
    (without / "lineage.json").unlink()
    (empty / "README.md").write_text("")
    (foreign / "optimizer.pt").write_text("x")
    for folder, says in ((without, "lineage.json"), (empty, "README.md"), (foreign, "optimizer.pt")):
        with pytest.raises(ReleaseError, match=says) as caught:
            validate(folder, report, recipe)
        assert caught.value.code == "RELEASE_001"


def test_another_model_than_the_evaluated_one_is_release_002(chain: Chain, released: Path) -> None:
    wrong = [canary | {"reward": canary["reward"] + 0.001} for canary in canaries(released)]
    with pytest.raises(ReleaseError, match="a canary scores") as caught:
        validate(released, {"canaries": wrong}, chain[0].recipe())
    assert caught.value.code == "RELEASE_002"


def test_a_sound_folder_is_within_the_tolerance(chain: Chain, released: Path) -> None:
    assert validate(released, {"canaries": canaries(released)}, chain[0].recipe()) <= 1e-5


def test_a_file_is_copied_where_it_cannot_be_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(source: Path, target: Path) -> None:
        raise OSError("another file system")

    monkeypatch.setattr("rm_assets.tasks.release.os.link", refused)
    (tmp_path / "a").write_text("a")
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "a" and (tmp_path / "b").stat().st_nlink == 1
