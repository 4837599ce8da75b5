"""What `rm-assets health` says of installations, machines and recipes that are as they should be, and of others."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from rm_assets.backends.torch import devices
from rm_assets.core.health import Condition, worst
from rm_assets.core.planning.recipe_plan import plan_training
from rm_assets.core.recipe_needs import needs_of
from rm_assets.resources.health import installation, machine, recipes
from rm_assets.storage.store import Store
from rm_assets_tests.fakes import save_causal
from rm_assets_tests.tasks.conftest import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path)
    made.write_toy()
    save_causal(tmp_path / "recipes" / "base")
    return made


def named(conditions: Any, name: str) -> Condition:
    return next(condition for condition in conditions if condition.name == name)


def test_the_installation_of_the_tests_is_the_tested_one() -> None:
    assert worst([installation.python(), *installation.packages()]) == "ok"


@pytest.mark.parametrize(
    ("package", "installed", "code", "words"),
    [
        ("wandb", "0.30.1", "SETUP_002", "`import dagster_wandb` fails with wandb 0.30"),
        ("torch", "2.1.0", "SETUP_002", "pip install 'torch>=2.13'"),
        ("dagster", "1.13.28", "SETUP_002", "dagster-wandb needs dagster==1.13.27"),
        ("numpy", "99.0", "SETUP_003", "numpy 99.0 (tested "),
        ("peft", None, "SETUP_002", "peft is not installed"),
    ],
)
def test_a_package_of_a_wrong_version_is_named_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, package: str, installed: str | None, code: str, words: str
) -> None:
    def version(name: str, real: Any = metadata.version) -> str:
        if name == package and installed is None:
            raise metadata.PackageNotFoundError
        return str(installed) if name == package else str(real(name))

    monkeypatch.setattr(metadata, "version", version)
    found = [c for c in installation.packages() if c.status != "ok" and words in f"{c.what} {c.why} {c.fix}"]
    assert [c.code for c in found] == [code]
    assert found[0].status == ("warning" if code == "SETUP_003" else "error")


def test_an_old_python_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.python_version", lambda: "3.9.1")
    assert (installation.python().code, installation.python().status) == ("SETUP_001", "error")


def test_a_source_that_needs_a_package_says_which(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "_installed", lambda name: None)
    source = {"kind": "files", "files": ["s3://bucket/prompts.jsonl"]}
    recipe = bench.recipe(prompts={"source": source, "split": {"train": 0.5, "validation": 0.0, "test": 0.5}})
    (found,) = installation.extras(needs_of(recipe).extras)
    assert found.code == "SETUP_002" and found.fix == "pip install 'rm-assets[s3]'"


def test_a_store_that_can_be_used_is_left_as_it_was(tmp_path: Path) -> None:
    home = tmp_path / "not" / "yet"
    assert [c.name for c in machine.store(home) if c.code in ("", "SETUP_005")] == ["store", "disk"]
    assert not list(tmp_path.iterdir())
    home.mkdir(parents=True)
    assert named(machine.store(home), "store").status == "ok" and not list(home.iterdir())


def test_a_store_that_cannot_be_written_is_store_001(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for home in (tmp_path / "file", tmp_path / "file" / "home"):
        (found,) = machine.store(home)
        assert (found.code, found.status) == ("STORE_001", "error") and "RM_ASSETS_HOME" in found.fix
    assert (tmp_path / "file").is_file()


def test_a_store_whose_disk_is_full_is_store_001(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from pathlib import Path; from rm_assets.resources.health import machine\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        "sys.stderr.close(); found = list(machine.store(Path(sys.argv[1]))); print([(c.code, c.what) for c in found])"
    )
    said = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "home")], stdout=subprocess.PIPE, text=True, check=True
    )
    assert said.stdout.startswith("[('STORE_001', 'no space left for ") and not list(tmp_path.iterdir())


def test_little_space_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "LITTLE_BYTES", 10**18)
    assert (found := named(machine.store(tmp_path), "disk")).code == "SETUP_005" and found.status == "warning"


def test_an_instance_of_dagster_is_opened_and_a_broken_one_is_setup_006(tmp_path: Path) -> None:
    home = tmp_path / "instance"
    unset = machine.dagster_instance(home, is_set=False)
    assert unset.status == "ok" and "DAGSTER_HOME is not set" in unset.what and not home.exists()
    assert machine.dagster_instance(home, is_set=True).code == "SETUP_006"
    assert machine.dagster_instance(Path("instance"), is_set=True).code == "SETUP_006"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: { enabled: false }\n")
    assert machine.dagster_instance(home, is_set=True).what == f"{home}, 0 runs"
    (home / "dagster.yaml").write_text("run_storage: { module: nothing.here, class: Nothing }\n")
    assert machine.dagster_instance(home, is_set=False).code == "SETUP_006"
    database = "{ hostname: h, username: u, password: 12345678, db_name: d }"
    (home / "dagster.yaml").write_text(f"storage: {{ postgres: {{ postgres_db: {database} }} }}\n")
    found = machine.dagster_instance(home, is_set=True)
    assert "postgres_db:password" in found.why and "12345678" not in str(found)


def test_a_gpu_that_pytorch_does_not_see_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "has_gpu", lambda: True)
    monkeypatch.setattr("rm_assets.backends.torch.devices.gpus", list)
    (found,) = machine.gpus()
    assert (found.code, found.status) == ("SETUP_004", "warning")


def test_a_task_process_that_does_not_start_is_setup_008(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert machine.executors().status == "ok"
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    assert machine.executors().code == "SETUP_008"


def test_what_a_recipe_names_on_this_disk_is_looked_for(bench: Bench) -> None:
    assert worst(recipes.on_disk(needs_of(bench.recipe()))) == "ok"
    (bench.folder / "recipes" / "answers.jsonl").unlink()
    absent = bench.recipe(training={"base": {"path": "nowhere"}, "learning_rate": 0.01})
    found = {c.name: c.code for c in recipes.on_disk(needs_of(absent))}
    assert found == {
        "training.base": "MODEL_001", "prompts.source": "", "prompts.test": "", "sampling.source": "DATA_001",
        "gold.source": "DATA_001",
    }  # fmt: skip
    (bench.folder / "recipes" / "base" / "model.safetensors").unlink()
    found = {c.name: c.why for c in recipes.on_disk(needs_of(bench.recipe()))}
    assert "no *.safetensors" in found["training.base"]


@pytest.mark.parametrize(
    ("changes", "name", "code"),
    [
        ({}, "memory", ""),
        ({"release": {"form": "adapter"}}, "release", "RELEASE_009"),
        ({"execution": {"device": "cuda"}}, "device", "RECIPE_003"),
    ],
)
def test_device_memory_and_form_of_the_release_go_together(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], name: str, code: str
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(recipes, "available_memory", lambda: 4 * 10**9)
    assert named(recipes.fit(bench.recipe(**changes)), name).code == code


def test_what_executors_need_here_is_looked_for_and_what_runs_elsewhere_needs_no_device_here(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    elsewhere = {"executor": {"kind": "ssh", "host": "box"}, "executors": {"train": {"kind": "local"}}}
    recipe = bench.recipe(execution={**elsewhere, "device": "cuda"})
    assert named(recipes.fit(recipe), "device").code == "RECIPE_003"
    everything = bench.recipe(execution={"executor": elsewhere["executor"], "device": "cuda"})
    assert list(recipes.fit(everything)) == []
    (found,) = recipes.elsewhere(everything, Store(bench.home))
    assert (found.name, found.code, found.status) == ("execution.executor", "EXECUTOR_001", "error")
    training = bench.recipe(execution={"executors": {"train": elsewhere["executor"]}})
    assert [c.name for c in recipes.fit(training)] == ["device"]  # its memory is not this machine's
    assert named(recipes.elsewhere(training, Store(bench.home)), "execution.executors.train").code == "EXECUTOR_001"


def test_a_training_that_does_not_fit_is_a_warning(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes, "available_memory", lambda: 1_000_000)
    found = named(recipes.fit(bench.recipe()), "memory")
    assert (found.code, found.status) == ("SETUP_005", "warning") and "1 MB are free" in found.what


@pytest.mark.parametrize(("device", "tokens"), [("mps", 2_048), ("cuda", 16_384)])
def test_the_memory_of_a_gpu_is_that_of_its_batches(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, device: str, tokens: int
) -> None:
    monkeypatch.setattr(f"torch.{'cuda' if device == 'cuda' else 'backends.mps'}.is_available", lambda: True)
    monkeypatch.setattr(devices, "gpus", lambda: [devices.Gpu(device, 10**9, 10**9, has_bfloat16=True)])
    recipe, planned = bench.recipe(execution={"device": device}), list[int]()

    def plan(*arguments: Any) -> Any:
        planned.append((made := plan_training(*arguments)).tokens_per_forward)
        return made

    training = recipe.training.model_copy(update={"pairs_per_step": 10_000})
    monkeypatch.setattr(recipes, "plan_training", plan)
    assert named(recipes.fit(recipe.model_copy(update={"training": training})), "memory").code == ""
    assert planned == [tokens]
