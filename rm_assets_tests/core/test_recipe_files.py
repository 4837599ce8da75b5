"""Recipe files: finding, extending, expanding, and one clear sentence for every fault."""

import os
from pathlib import Path

import jsonschema
import pytest
import yaml

from rm_assets.core.errors import RecipeError
from rm_assets.core.recipe import Recipe, RecordedGold, SkyPilotMachine, VerifierGold, VmExecutor
from rm_assets.core.recipe_files import PACKAGE_FOLDER, SHIPPED_FOLDER, RecipeBook, json_schema
from rm_assets.core.recipe_reference import reference

MINIMAL = """
prompts: {source: {kind: generator, num_prompts: 10}}
sampling: {kind: policy, policy: {path: policy}, num_responses: 4}
gold: {kind: verifier, exact: 1.0, format: 0.5}
training: {base: {hub_id: some/model, revision: abc, pad_token: "<pad>"}, learning_rate: 1.0e-3}
"""
SHIPPED = sorted(file.stem for file in SHIPPED_FOLDER.glob("*.yaml"))


def write(folder: Path, **recipes: str) -> RecipeBook:
    for name, text in recipes.items():
        (folder / f"{name}.yaml").write_text(text)
    return RecipeBook(folder, environment={})


def fault(folder: Path, text: str, key: str = "mine") -> str:
    """The message that a recipe `mine` with this text gets, beside a good one called `minimal`."""
    book = write(folder, minimal=MINIMAL, mine=text)
    with pytest.raises(RecipeError) as caught:
        book.load(key)
    return str(caught.value)


def test_misspelt_key_names_file_key_value_and_the_key_meant(tmp_path: Path) -> None:
    message = fault(tmp_path, "extends: minimal\ntraining: {num_epoch: 3}")
    assert "[RECIPE_003]" in message
    assert str(tmp_path / "mine.yaml") in message
    assert "training.num_epoch: 3: unknown key; did you mean 'num_epochs'?" in message


def test_misspelt_key_inside_a_union_is_compared_with_the_chosen_kind_only(tmp_path: Path) -> None:
    message = fault(
        tmp_path, "extends: minimal\ngold: {kind: recorded, source: {kind: files, files: [a.csv]}, rank: true}"
    )
    assert "gold.rank: True: unknown key; did you mean 'ranks'?" in message


def test_misspelt_section_suggests_the_section(tmp_path: Path) -> None:
    assert "trainin: {}: unknown key; did you mean 'training'?" in fault(tmp_path, "extends: minimal\ntrainin: {}")
    assert "did you mean 'extends'?" in fault(tmp_path, MINIMAL + "extend: minimal")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("training: {num_epochs: three}", "training.num_epochs: 'three': input should be a valid number"),
        ("training: {num_epochs: .inf}", "training.num_epochs: inf: input should be a finite number"),
        ("training: {learning_rate: .nan}", "training.learning_rate: nan: input should be a finite number"),
        ("training: {learning_rate: 0}", "training.learning_rate: 0: input should be greater than 0"),
        ("training: {pairs_per_step: yes}", "training: 'pairs_per_step' is a truth value (True) here"),
        ("training: null", "training: None: write {kind: train or existing}"),
        ("training: {objective: soft_bradley_terry}", "training.objective: 'soft_bradley_terry': write {kind: soft_bradley_terry}"),
        ("training: {objective: soft}", "training.objective: 'soft': write {kind: bradley_terry or soft_bradley_terry or regression}"),
        ("training: {objective: true}", "training: 'objective' is a truth value (True) here; write a mapping of its keys, such as 'kind'"),
        ("training: {lora: true}", "training: 'lora' is a truth value (True) here; write a mapping of its keys, such as 'rank', or null"),
        ("training: {validation: true}", "write a mapping of its keys, such as 'every_steps', or null"),
        ("prompts: {test: true}", "prompts: 'test' is a truth value (True) here; write a mapping"),
        ("prompts: {system: no}", "prompts: 'system' is a truth value (False) here; quote it if a text is meant, or null"),
        ("execution: {gradient_checkpointing: true}", "truth value (True) here; write one of auto, always, never"),
        ("training: {gradient_checkpointing: always}", "unknown key; it is a key of 'execution'"),
        ("gold: {answer_pattern: '('}", "gold: answer_pattern '(' is no regular expression"),
        ("gold: {answer_pattern: x}", "gold: answer_pattern 'x' has no group"),
        ("gold: {exact: 0, format: 0}", "gold: at least one of the weights"),
        ("sampling: {policy: {path: a, hub_id: b/c}}", "sampling.policy: give exactly one of 'path' and 'hub_id'"),
        ("sampling: {kind: polcy}", "sampling.kind: 'polcy'; it must be one of policy, server, recorded; did you mean 'policy'?"),
        ("gold: {kind: recorded, source: {}}", "gold.source.kind: is missing; it must be one of files, dataset"),
        ("gold: {kind: combined, scorers: [{name: a, gold: {kind: verfier}}]}", "gold.scorers.0.gold.kind: 'verfier'; it must be one of classifier, verifier, recorded, judge; did you mean 'verifier'?"),
        ("gold: {kind: combined, scorers: [{nam: a, gold: {kind: verifier}}]}", "gold.scorers.0.nam: 'a': unknown key; did you mean 'name'?"),
        ("prompts: {source: {kind: mixture, parts: [{name: a, wait: 2}]}}", "prompts.source.parts.0.wait: 2: unknown key; did you mean 'weight'?"),
        ("prompts: {split: {train: 0.5}}", "prompts.split: train + validation + test must be 1"),
        ("execution: {executors: {trian: {kind: local}}}", "execution.executors.trian: unknown key; did you mean 'train'?"),
        ("execution: {executors: {reward_model: {kind: local}}}", "reward_model: unknown key; known here: ingest, sample, score, pair, train, evaluate, release"),
        ("execution: {executor: {kind: vm, machine: {dialect: gclod}}}", "executor.machine.dialect: 'gclod'; it must be one of gcloud, skypilot; did you mean 'gcloud'?"),
        ("execution: {executor: {kind: vm, machine: gcloud}}", "executor.machine: 'gcloud': write {dialect: gcloud}"),
        ("pairs: {policy: best-worst}", "pairs.policy: 'best-worst': input should be 'best_worst', 'all' or 'adjacent'; did you mean 'best_worst'?"),
        ("execution: {device: gpu}", "execution.device: 'gpu': input should be 'auto', 'cpu', 'cuda' or 'mps'.\n"),
        ("execution: {executor: {kind: ray, address: 'head:8265'}}", "what belongs here: Where the cluster's head takes jobs, such as http://head:8265"),
        ("execution: {executor: {kind: ssh, host: a, environment: [HF_TOKEN=x]}}", "what belongs here: Names of variables of this environment"),
        ("execution: {executor: {kind: ssh, host: a, python: ~/venv/bin/python}}", "starts at the home folder there (venv/bin/python, without ~)"),
        ("execution: {executor: {kind: vm, machine: {dialect: gcloud, zon: a}}}", "execution.executor.machine.zon: 'a': unknown key; did you mean 'zone'?"),
    ],
)  # fmt: skip
def test_wrong_value_is_one_sentence_with_its_place(tmp_path: Path, override: str, sentence: str) -> None:
    assert sentence in fault(tmp_path, f"extends: minimal\n{override}")


SERVER = "kind: server, base_url: 'http://127.0.0.1/v1', model: m, revision: r"


@pytest.mark.parametrize(
    ("sampling", "sentence"),
    [
        (f"{SERVER}, api_key: sk-secret", "sampling.api_key: unknown key; did you mean 'api_key_env'?"),
        (f"{SERVER}, api_key_env: sk-secret", "sampling.api_key_env: string should match pattern"),
        (
            "kind: server, base_url: 'http://me:sk-secret@host', model: m, revision: r",
            "must not hold a user or password",
        ),
    ],
)
def test_a_key_written_into_the_recipe_is_refused_and_not_repeated(
    tmp_path: Path, sampling: str, sentence: str
) -> None:
    message = fault(tmp_path, f"extends: minimal\nsampling: {{{sampling}}}")
    assert sentence in message and "sk-secret" not in message


@pytest.mark.parametrize("key", ["environment: [HF_TOKEN=hf_secret]", "environment: HF_TOKEN=hf_secret"])
def test_a_secret_written_for_the_name_of_a_variable_is_not_repeated(tmp_path: Path, key: str) -> None:
    message = fault(tmp_path, f"extends: minimal\nexecution: {{executor: {{kind: ssh, host: box, {key}}}}}")
    assert "execution.executor.environment" in message and "hf_secret" not in message


def test_every_fault_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    message = fault(tmp_path, "description: nothing else")
    assert all(f"{section}: is missing" in message for section in ("prompts", "sampling", "gold", "training"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: [", "not readable YAML"),
        ("a: 2024-13-45", "not readable YAML"),
        ("? [a, b]\n: 1", "not readable YAML"),
        ("a: &a [*a]", "not readable YAML"),
        ("", "does not hold a mapping"),
        ("- a", "does not hold a mapping"),
        ("1: a", "does not hold a mapping"),
        ("pairs:\n  policy: all\n  min_margin: 0\n\n  policy: adjacent", "key 'policy' is given twice, line 5"),
    ],
)
def test_file_that_is_no_mapping_says_so(tmp_path: Path, text: str, sentence: str) -> None:
    message = fault(tmp_path, text)
    assert "[RECIPE_002]" in message
    assert sentence in message


def test_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "latin.yaml").write_bytes(b"description: caf\xe9")
    for name in ("folder", "latin"):
        with pytest.raises(RecipeError, match="RECIPE_002"):
            RecipeBook(tmp_path).load(name)


def test_yaml_merge_keys_work(tmp_path: Path) -> None:
    recipe = write(tmp_path, mine=MINIMAL + "evaluation: {<<: {seed: 3, num_canaries: 2}, seed: 4}").load("mine")
    assert (recipe.evaluation.seed, recipe.evaluation.num_canaries) == (4, 2)


def test_name_inside_the_file_is_refused(tmp_path: Path) -> None:
    assert "a recipe is named as its file" in fault(tmp_path, MINIMAL + "name: mine")


@pytest.mark.parametrize("name", ["a@1", "a,b", "a...b"])
def test_file_name_that_cannot_be_a_partition_key_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RecipeError, match="recipe's name cannot hold"):
        write(tmp_path, **{name: MINIMAL}).files()


def test_unknown_recipe_suggests_a_near_name(tmp_path: Path) -> None:
    assert "did you mean 'minimal'?" in fault(tmp_path, MINIMAL, key="minimum")
    assert "did you mean 'mine'?" in fault(tmp_path, MINIMAL, key="recipes/mine.yaml")


def test_missing_folder_and_name_taken_twice_are_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="RECIPE_001"):
        RecipeBook(tmp_path / "none").files()
    with pytest.raises(RecipeError, match="RECIPE_005"):
        write(tmp_path, gsm8k=MINIMAL).files()


def test_hidden_files_are_no_recipes(tmp_path: Path) -> None:
    assert ".#mine" not in write(tmp_path, **{".#mine": MINIMAL}).files()


def test_extends_in_a_circle_shows_the_circle(tmp_path: Path) -> None:
    write(tmp_path, other="extends: mine")
    message = fault(tmp_path, "extends: other")
    assert "[RECIPE_004]" in message
    assert "mine -> other -> mine" in message
    assert "mine -> mine" in fault(tmp_path, "extends: mine")


def test_extends_of_an_unknown_recipe_names_the_file_that_asks(tmp_path: Path) -> None:
    message = fault(tmp_path, "extends: minimall")
    assert f"{tmp_path / 'mine.yaml'}: extends: there is no recipe 'minimall'" in message
    assert "did you mean 'minimal'?" in message
    assert "extends: 3 is not the name" in fault(tmp_path, "extends: 3")


def test_extends_merges_key_by_key_and_through_a_chain(tmp_path: Path) -> None:
    book = write(
        tmp_path,
        a=MINIMAL,
        b="extends: a\ntraining: {num_epochs: 2}\nrelease: {license: mit, hub_id: me/a}",
        c="extends: b\ntraining: {num_epochs: 3, max_length: 99}\nrelease: {hub_id: me/c}",
    )
    recipe = book.load("c")
    assert (recipe.training.num_epochs, recipe.training.max_length, recipe.training.learning_rate) == (3, 99, 1e-3)
    assert (recipe.release.license, recipe.release.hub_id) == ("mit", "me/c")
    assert book.load("b").training.num_epochs == 2


def test_change_of_kind_replaces_the_whole_mapping(tmp_path: Path) -> None:
    override = "extends: a\ngold: {kind: recorded, source: {kind: files, files: [gold.csv]}, response_field: response}"
    book = write(tmp_path, a=MINIMAL, b=override, c="extends: a\ngold: {kind: verifier, partial: 0.1}")
    gold = book.load("b").gold
    assert isinstance(gold, RecordedGold)
    assert gold.reward_fields == ["gold_reward"]
    same_kind = book.load("c").gold
    assert isinstance(same_kind, VerifierGold)
    assert (same_kind.format, same_kind.partial) == (0.5, 0.1)


def test_change_of_dialect_replaces_the_whole_machine(tmp_path: Path) -> None:
    machine = "{dialect: gcloud, zone: z, machine_type: m, image_family: f, image_project: p}"
    book = write(
        tmp_path,
        a=f"{MINIMAL}execution: {{executor: {{kind: vm, machine: {machine}, max_hours: 2}}}}",
        b="extends: a\nexecution: {executor: {machine: {dialect: skypilot}}}",
    )
    executor = book.load("b").execution.executor
    assert isinstance(executor, VmExecutor) and executor.max_hours == 2
    assert isinstance(executor.machine, SkyPilotMachine)


def test_another_model_takes_nothing_over_from_the_first(tmp_path: Path) -> None:
    book = write(
        tmp_path,
        a=MINIMAL,
        b="extends: a\ntraining: {base: {path: here}}",
        c="extends: a\ntraining: {base: {revision: def}}",
    )
    base = book.load("b").training.base
    assert (base.path, base.hub_id, base.revision, base.pad_token) == (str(tmp_path / "here"), None, None, None)
    same_model = book.load("c").training.base
    assert (same_model.hub_id, same_model.revision, same_model.pad_token) == ("some/model", "def", "<pad>")


def test_seeds_expand_to_partitions_that_differ_in_seed_alone(tmp_path: Path) -> None:
    book = write(tmp_path, a=MINIMAL, b="extends: a\nseeds: [1, 20]")
    assert [key for key in book.partition_keys() if key not in SHIPPED] == ["a", "b@1", "b@20"]
    one, twenty = book.load("b@1"), book.load("b@20")
    assert (one.name, one.seed, twenty.seed) == ("b@1", 1, 20)
    assert one.model_copy(update={"name": "", "seed": 0}) == twenty.model_copy(update={"name": "", "seed": 0})


@pytest.mark.parametrize("key", ["mine", "mine@3", "mine@01", "minimal@1"])
def test_key_with_a_seed_that_the_recipe_lacks_is_unknown(tmp_path: Path, key: str) -> None:
    assert "[RECIPE_001]" in fault(tmp_path, "extends: minimal\nseeds: [1, 2]", key=key)


@pytest.mark.parametrize("seeds", ["3", "[]", "[1, 1]", "[-1]", "[yes]", "[1, x]", "[1.0]", "{1: 2}", "[[1]]"])
def test_bad_seeds_fail_on_load_and_leave_one_partition(tmp_path: Path, seeds: str) -> None:
    text = f"extends: minimal\nseeds: {seeds}"
    assert "is not a list of distinct whole numbers" in fault(tmp_path, text)
    assert [key for key in RecipeBook(tmp_path).partition_keys() if key not in SHIPPED] == ["mine", "minimal"]


def test_broken_recipe_does_not_hide_the_others(tmp_path: Path) -> None:
    book = write(tmp_path, bad="a: [", circle="extends: circle", good=MINIMAL, odd="extends: 3\nseeds: [1]")
    (tmp_path / "link.yaml").symlink_to(tmp_path / "gone")
    keys = book.partition_keys()
    assert {"bad", "circle", "good", "link", "odd"} <= set(keys)
    assert len(keys) == len(set(keys))
    assert book.load("good").name == "good"


def test_relative_path_starts_at_the_file_it_was_written_in(tmp_path: Path) -> None:
    override = """
extends: ranked-answers
sampling: {source: {files: [../data/*.csv, /abs/x.csv]}}
training: {base: {path: base}}
execution: {executor: {kind: ssh, host: box, config: ssh/config}}
"""
    recipe = write(tmp_path, mine=override).load("mine")
    assert recipe.execution.executor.config == str(tmp_path / "ssh" / "config")  # type: ignore[union-attr]
    assert recipe.prompts.source.files == [str(SHIPPED_FOLDER / "ranked-answers.csv")]  # type: ignore[union-attr]
    assert recipe.sampling.source.files == [str(tmp_path.parent / "data" / "*.csv"), "/abs/x.csv"]  # type: ignore[union-attr]
    assert recipe.training.base.path == str(tmp_path / "base")


def test_package_path_lies_in_the_package(tmp_path: Path) -> None:
    recipe = write(tmp_path, mine=MINIMAL.replace("path: policy", "path: package://embedded/policy")).load("mine")
    assert recipe.sampling.policy.path == str(PACKAGE_FOLDER / "embedded" / "policy")  # type: ignore[union-attr]


def test_variable_is_filled_in_and_kept_as_written_where_it_is_not_set(tmp_path: Path) -> None:
    write(tmp_path, mine=MINIMAL.replace("path: policy", 'path: "${MODELS}/policy"'))
    set_book, unset_book = RecipeBook(tmp_path, {"MODELS": "/models"}), RecipeBook(tmp_path, {})
    assert set_book.load("mine").sampling.policy.path == "/models/policy"  # type: ignore[union-attr]
    assert unset_book.load("mine").sampling.policy.path == "${MODELS}/policy"  # type: ignore[union-attr]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_recipe_loads_offline_and_says_what_it_is_for(name: str) -> None:
    book = RecipeBook(environment={})
    keys = [key for key in book.partition_keys() if key.split("@")[0] == name]
    assert keys
    assert all(len(book.load(key).description) > 20 for key in keys)


def test_alpacafarm_recipe_has_every_figure_of_the_system_it_replaces() -> None:
    recipe = RecipeBook(environment={}).load("alpacafarm-qwen3-4b").model_dump()
    sampling, gold, training = recipe["sampling"], recipe["gold"], recipe["training"]
    policy = "Hahmdong/RMOOD-qwen3-4b-alpacafarm-sft"
    assert (sampling["policy"]["hub_id"], sampling["num_responses"], sampling["dtype"]) == (policy, 2, "bfloat16")
    assert (sampling["temperature"], sampling["top_p"], sampling["max_new_tokens"]) == (1.0, 1.0, 1024)
    assert gold["model"]["hub_id"] == "Skywork/Skywork-Reward-V2-Llama-3.1-8B"
    assert (gold["max_length"], gold["dtype"], recipe["prompts"]["system"]) == (2048, "bfloat16", "")
    assert (training["base"]["hub_id"], training["learning_rate"], training["num_epochs"]) == (policy, 5e-6, 1)
    assert (training["schedule"], training["warmup_ratio"], training["pairs_per_step"]) == ("cosine", 0.05, 64)


def test_longer_alpacafarm_recipe_differs_in_training_alone() -> None:
    book = RecipeBook(environment={})
    short, longer = (book.load(key).model_dump() for key in ("alpacafarm-qwen3-4b", "alpacafarm-qwen3-4b-longer"))
    assert {key for key in short if short[key] != longer[key]} == {"name", "description", "training"}
    assert (longer["training"]["learning_rate"], longer["training"]["num_epochs"]) == (5e-5, 2)
    assert {key for key in short["training"] if short["training"][key] != longer["training"][key]} == {
        "learning_rate",
        "num_epochs",
    }


@pytest.mark.parametrize("name", SHIPPED)
def test_json_schema_accepts_the_shipped_recipe_as_written(name: str) -> None:
    jsonschema.validate(yaml.safe_load((SHIPPED_FOLDER / f"{name}.yaml").read_text()), json_schema())


@pytest.mark.parametrize(
    "text",
    [
        "training: {num_epoch: 3}",
        "trainin: {}",
        "gold: {kind: verifier, exat: 1}",
        "seeds: []",
        "pairs: {policy: best}",
    ],
)
def test_json_schema_rejects_what_loading_rejects(text: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(text), json_schema())


def test_json_schema_accepts_overrides_without_required_keys_and_kinds() -> None:
    jsonschema.validate(
        yaml.safe_load("extends: a\nseeds: [1]\ntraining: {num_epochs: 2}\nsampling: {num_responses: 8}"), json_schema()
    )
    jsonschema.Draft202012Validator.check_schema(json_schema())


def test_reference_page_is_up_to_date() -> None:
    page = Path(__file__).parents[2] / "docs" / "recipes.md"
    assert page.read_text() == reference(), "run: python -m rm_assets.core.recipe_reference > docs/recipes.md"


def test_environment_of_the_process_is_read_where_none_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "MODELS", "/models")
    (tmp_path / "mine.yaml").write_text(MINIMAL.replace("path: policy", 'path: "${MODELS}/policy"'))
    assert RecipeBook(tmp_path).load("mine").sampling.policy.path == "/models/policy"  # type: ignore[union-attr]


def test_recipe_survives_a_round_trip_as_plain_data() -> None:
    recipe = RecipeBook(environment={}).load("ranked-answers")
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe
