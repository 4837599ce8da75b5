"""The documentation says what the code does, and its links lead somewhere."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from rm_assets.cli import check_reference, command_reference
from rm_assets.cli.main import app
from rm_assets.core.errors import RecipeError
from rm_assets.core.recipe import Recipe
from rm_assets.core.recipe_files import json_schema
from rm_assets.definitions import defs

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]
COMMAND = re.compile(r"(?:^|[`(])rm-assets ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?(?= |`|$|\))", re.MULTILINE)
KEY = re.compile(rf"`(?:{'|'.join(Recipe.model_fields)})\.([a-z_][a-z_.]*)`")
"""`section.key`, and what is in it."""


def test_reference_of_the_commands_is_up_to_date() -> None:
    assert (DOCS / "commands.md").read_text("utf-8") == command_reference.reference(), "run: make reference"


def test_reference_of_the_checks_is_up_to_date() -> None:
    assert (DOCS / "checks.md").read_text("utf-8") == check_reference.reference(), "run: make reference"


def test_every_check_says_what_to_do_when_it_fails() -> None:
    assert set(check_reference.REMEDIES) == {key.name for key in defs.resolve_asset_graph().asset_check_keys}


def test_exit_status_is_1_for_an_error_and_2_for_a_command_that_is_written_wrongly() -> None:
    unknown, wrong = CliRunner().invoke(app, ["show", "prompts", "--recipe", "none"]), CliRunner().invoke(app, ["run"])
    assert isinstance(unknown.exception, RecipeError)  # which `main` turns into a message and status 1
    assert wrong.exit_code == 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_of_a_page_lead_to_files(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link and not link.startswith("#")]
    missing = [link for link in links if not (page.parent / link.partition("#")[0]).exists()]
    assert not missing


def test_commands_and_recipe_keys_that_the_pages_name_exist() -> None:
    commands = set(re.findall(r"^## rm-assets (.+)$", (DOCS / "commands.md").read_text("utf-8"), re.MULTILINE))
    groups = {name.split()[0] for name in commands if " " in name}
    models = json_schema()["$defs"].values()
    keys = {key for model in models for key in model["properties"]}
    for page in PAGES:
        text = page.read_text("utf-8")
        named = {f"{one} {two}" if one in groups and two else one for one, two in COMMAND.findall(text)}
        assert named <= commands | groups, page
        assert {key for path in KEY.findall(text) for key in path.split(".")} <= keys, page


def test_no_code_block_is_indented_since_the_site_does_not_read_those() -> None:
    assert not [page.name for page in DOCS.rglob("*.md") if re.search(r"^ +```", page.read_text("utf-8"), re.MULTILINE)]


@pytest.mark.skipif(find_spec("mkdocs") is None, reason="needs mkdocs (in the extra docs)")
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site"))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"]
    assert pages[0] == {"Quick start": "index.md"} and (tmp_path / "site" / "decisions").is_dir()
