"""hub_release: what somebody who has nothing but the folder gets from it."""

import fcntl
import json
import math
import pickle
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import load_dataset
from huggingface_hub import ModelCard
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline
from trl.trainer.reward_config import RewardConfig
from trl.trainer.reward_trainer import RewardTrainer

from rm_assets.backends.torch.released import load_released, stored_dtype
from rm_assets.core.errors import ReleaseError
from rm_assets.core.protocols import QuietReporter
from rm_assets.resources.compute import Made
from rm_assets.storage.release_files import EVERY_RELEASE, OF_FORM, check_files
from rm_assets.tasks.release import link_or_copy, publish, validate
from rm_assets_tests.fakes import TEMPLATE, build_tokenizer, save_causal
from rm_assets_tests.tasks.conftest import ASSETS, TOY, Bench, in_this_process

torch.set_num_threads(1)
Chain = tuple[Bench, dict[str, Made]]


@pytest.fixture
def released(chain: Chain) -> Path:
    return chain[1]["hub_release"].folder / "release"


def report_of(released: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((released / "report.json").read_text("utf-8"))
    assert len(found["canaries"]) == 3
    return found


def canaries(released: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = report_of(released)["canaries"]
    return found


def copy_of(released: Path, target: Path) -> Path:
    target.mkdir()
    for file in released.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def test_the_folder_is_complete_and_named_in_the_manifest(chain: Chain, released: Path) -> None:
    names = {f.name for f in released.iterdir()}
    assert names >= {*EVERY_RELEASE, *OF_FORM["whole"], "tokenizer.json", "model.safetensors"}
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


def test_what_must_not_leave_the_house_is_refused_for_its_reason(chain: Chain, released: Path, tmp_path: Path) -> None:
    whole = json.loads((released / "config.json").read_text("utf-8"))
    index = json.dumps({"weight_map": {"a": "model.safetensors", "b": "model-00002.safetensors"}}).encode()
    faults: list[tuple[str, str, bytes | None]] = [
        ("RELEASE_001", "lineage.json", None),
        ("RELEASE_001", "model.safetensors", None),
        ("RELEASE_001", "README.md", b""),
        ("RELEASE_001", "optimizer.parquet", b"x"),
        ("RELEASE_001", "model.safetensors.index.json", index),
        ("RELEASE_005", "optimizer.pt", b"x"),
        ("RELEASE_005", "notes.txt", pickle.dumps({"a": 1})),
        ("RELEASE_005", "model.safetensors", pickle.dumps({"a": 1})),
        ("RELEASE_005", "weights.model", b"PK\x03\x04" + b"0" * 30),
        ("RELEASE_006", "notes.md", b"use hf_" + b"a" * 34),
        ("RELEASE_006", "config.json", json.dumps({**whole, "wandb_key": "0" * 40}).encode()),
        ("RELEASE_006", "notes.txt", b"-----BEGIN RSA PRIVATE KEY-----"),
        ("RELEASE_006", "notes.html", b"<p>AKIA" + b"A" * 16),
    ]
    for number, (code, name, content) in enumerate(faults):
        folder = copy_of(released, tmp_path / str(number))
        (folder / name).unlink(missing_ok=True)
        if content is not None:
            (folder / name).write_bytes(content)
        with pytest.raises(ReleaseError) as caught:
            validate(folder, report_of(released), chain[0].recipe(), nullcontext)
        says = {"model.safetensors.index.json": "model-00002.safetensors"}.get(
            name, name.replace("model.s", "*.s", content is None)
        )
        assert caught.value.code == code and says in caught.value.what, (code, name, caught.value)
        assert "hf_aaa" not in str(caught.value)


def test_a_secret_of_the_environment_is_found_and_never_shown(released: Path, tmp_path: Path) -> None:
    folder = copy_of(released, tmp_path / "r")
    (folder / "README.md").write_text((folder / "README.md").read_text() + "opensesame1")
    check_files(folder, "whole", {"MY_SERVICE_TOKEN": "seven77", "TOKENIZERS_X": "opensesame1", "PATH": "opensesame1"})
    with pytest.raises(ReleaseError, match=r"README\.md holds the value of MY_API_KEY") as caught:
        check_files(folder, "whole", {"MY_API_KEY": "opensesame1"})
    assert caught.value.code == "RELEASE_006" and "opensesame1" not in str(caught.value)


def test_a_safetensors_header_that_begins_like_a_pickle_is_none(released: Path, tmp_path: Path) -> None:
    folder = copy_of(released, tmp_path / "r")
    header = b'{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}'.ljust(0x280)  # its length is written 80 02 00 ...
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    check_files(folder, "whole", {})


def test_another_model_than_the_evaluated_one_is_release_002(chain: Chain, released: Path) -> None:
    report = report_of(released)
    spread = report["distributions"]["reward"]["sd"]
    for share, passes in ((0.5e-4, True), (2e-4, False)):
        moved = [canary | {"reward": canary["reward"] + share * spread} for canary in canaries(released)]
        if passes:
            assert validate(released, {**report, "canaries": moved}, chain[0].recipe(), nullcontext) > 0
            continue
        with pytest.raises(ReleaseError, match="a canary scores") as caught:
            validate(released, {**report, "canaries": moved}, chain[0].recipe(), nullcontext)
        assert caught.value.code == "RELEASE_002" and "in float32 they may differ by" in str(caught.value)


def test_weights_in_bfloat16_are_scored_as_they_are_loaded_and_may_differ_more(
    chain: Chain, released: Path, tmp_path: Path
) -> None:
    folder, report, recipe = copy_of(released, tmp_path / "r"), report_of(released), chain[0].recipe()
    AutoModelForSequenceClassification.from_pretrained(released).bfloat16().save_pretrained(folder)
    assert stored_dtype(folder) == "bfloat16"
    scorer = load_released(folder, recipe.execution, QuietReporter())
    rewards = [next(iter(scorer.score([canary["messages"]]))).reward for canary in canaries(released)]
    for share, passes in ((0.09, True), (0.11, False)):
        moved = [
            canary | {"reward": reward + share * report["distributions"]["reward"]["sd"]}
            for canary, reward in zip(canaries(released), rewards, strict=True)
        ]
        with nullcontext() if passes else pytest.raises(ReleaseError, match="in bfloat16 they may differ by"):
            validate(folder, {**report, "canaries": moved}, recipe, nullcontext)


def test_the_card_says_how_to_get_the_reported_rewards_and_does(
    released: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(released)
    code = (released / "README.md").read_text("utf-8").partition("```python\n")[2].partition("```")[0]
    for canary in canaries(released):
        assert rewards_by(code, canary) == pytest.approx(canary["reward"], abs=1e-5)


def rewards_by(code: str, canary: dict[str, Any]) -> float:
    """The reward that a card's code gives to a canary."""
    example = 'messages = [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]'
    assert code.count(example) == 1
    found: dict[str, Any] = {}
    exec(code.replace(example, f"messages = {canary['messages']!r}"), found)
    reward: float = found["reward"]
    return reward


def test_the_card_holds_results_that_the_hub_reads_with_their_intervals(released: Path) -> None:
    card, report = ModelCard.load(released / "README.md"), report_of(released)
    results = {result.metric_name: result for result in card.data.eval_results}
    match = results["Match rate with gold"]
    assert match.metric_value == report["match_rate"]["value"] and match.task_type == "text-classification"
    assert (
        match.metric_args["low"] == report["match_rate"]["low"] and match.metric_args["n"] == report["match_rate"]["n"]
    )
    assert {"reward-model", "rm_assets"} <= set(card.data.tags)


def test_a_template_that_takes_a_date_and_a_long_response_give_the_reported_rewards_by_the_card(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_this_process(monkeypatch)
    dated = "{{- 'Today ' + (date_string if date_string is defined else 'whenever') + ' ' -}}" + TEMPLATE
    save_causal(bench.folder / "recipes" / "base", tokenizer=build_tokenizer(dated))
    bench.write("test.jsonl", [{"prompt": f"is {n} even"} for n in range(4)])
    long = "good " * 200
    answers = [json.loads(line) for line in (bench.folder / "recipes" / "answers.jsonl").read_text().splitlines()]
    tests = [a | {"response": a["response"] + long} if a["prompt"].startswith("is ") else a for a in answers]
    bench.write("answers.jsonl", tests)
    made = bench.make(bench.recipe(), *ASSETS)
    released = made.folder / "release"
    monkeypatch.chdir(released)
    code = (released / "README.md").read_text("utf-8").partition("```python\n")[2].partition("```")[0]
    assert 'date_string="26 Jul 2024"' in code and "max_length=100" in code
    for canary in canaries(released):
        assert rewards_by(code, canary) == pytest.approx(canary["reward"], abs=1e-5)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's own
def test_an_adapter_is_released_with_the_score_head_and_gives_the_reported_rewards_on_its_base(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    in_this_process(monkeypatch)
    save_causal(bench.folder / "recipes" / "base")
    training = {**TOY["training"], "lora": {"rank": 4, "alpha": 8}}
    recipe = bench.recipe(training=training, release={"form": "adapter"})
    made = bench.make(recipe, *ASSETS)
    released = made.folder / "release"
    names = {file.name for file in released.iterdir()}
    assert names >= {*EVERY_RELEASE, *OF_FORM["adapter"]} and not names & {"model.safetensors", "config.json"}
    config = json.loads((released / "adapter_config.json").read_text("utf-8"))
    assert config["task_type"] == "SEQ_CLS" and config["modules_to_save"] == ["score"]
    assert config["base_model_name_or_path"] == str(bench.folder / "recipes" / "base")
    code = (released / "README.md").read_text("utf-8").partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(released)
    for canary in canaries(released):
        assert rewards_by(code, canary) == pytest.approx(canary["reward"], abs=1e-5)

    for number, (key, value, says) in enumerate(
        [("task_type", "CAUSAL_LM", "task_type is 'CAUSAL_LM'"), ("base_model_name_or_path", None, "is missing"),
         ("modules_to_save", None, "modules_to_save is missing"), ("modules_to_save", ["head"], "has no head")]
    ):  # fmt: skip
        faulty = copy_of(released, tmp_path / f"faulty{number}")
        (faulty / "adapter_config.json").write_text(json.dumps(config | {key: value}))
        with pytest.raises(ReleaseError, match=says) as caught:
            validate(faulty, report_of(released), recipe, nullcontext)
        assert caught.value.code == "RELEASE_009"
    with pytest.raises(ReleaseError, match="its base is a folder of this machine"):
        publish(released, "me/toy", "toy-1", report_of(released), recipe, nullcontext)
    merged = bench.make(bench.recipe(training=training), "hub_release")
    assert (merged.folder / "release" / "model.safetensors").is_file()
    with pytest.raises(ReleaseError, match="its model has no adapter"):
        bench.make(bench.recipe(release={"form": "adapter"}), "reward_model", "evaluation_report", "hub_release")


def test_the_device_is_held_while_a_release_is_scored(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    held = []

    def seen(*arguments: Any) -> Any:
        with open(chain[0].home / "device.lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(True)
        return load_released(*arguments)

    in_this_process(monkeypatch)
    monkeypatch.setattr("rm_assets.backends.torch.released.load_released", seen)
    chain[0].make(chain[0].recipe(release={"tags": ["held"]}), "hub_release")
    assert held == [True]


def test_a_file_is_copied_where_it_cannot_be_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(source: Path, target: Path) -> None:
        raise OSError("another file system")

    monkeypatch.setattr("rm_assets.tasks.release.os.link", refused)
    (tmp_path / "a").write_text("a")
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "a" and (tmp_path / "b").stat().st_nlink == 1
