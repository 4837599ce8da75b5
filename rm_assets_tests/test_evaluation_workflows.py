"""The workflows that make models, with real recipes, and the one comment that says what came of it."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rm_assets_tests.fakes import save_causal
from rm_assets_tests.tasks.conftest import TOY, Bench
from rm_assets_tests.workflows import ROOT, TEMPLATE, jobs, put_on_path, run_job

EVALUATE, NIGHTLY, TESTS = (
    TEMPLATE / ".github" / "workflows" / f"{name}.yml" for name in ("evaluate", "nightly", "tests")
)
has_jq = pytest.mark.skipif(shutil.which("jq") is None, reason="needs jq on PATH (Debian: apt-get install jq)")
GH = f"""#!{sys.executable} -SE
import json, pathlib, re, sys
arguments, file = sys.argv[1:], pathlib.Path("comments.json")
comments = json.loads(file.read_text()) if file.exists() else []
path = next(a for a in arguments if a.startswith("repos/"))
if "--method" not in arguments:
    ours = re.search(r'startswith\\("(.+?)"\\)', arguments[arguments.index("--jq") + 1])[1]
    print(*(c["id"] for c in comments if c["user"] == "github-actions[bot]" and c["body"].startswith(ours)), sep="\\n")
    sys.exit()
body = pathlib.Path(next(a for a in arguments if a.startswith("body=@"))[6:]).read_text()
if arguments[arguments.index("--method") + 1] == "POST":
    assert path == "repos/me/models/issues/7/comments", path
    comments.append({{"id": 100 + len(comments), "user": "github-actions[bot]", "body": body}})
else:
    next(c for c in comments if path == f"repos/me/models/issues/comments/{{c['id']}}")["body"] = body
file.write_text(json.dumps(comments))
"""


def test_one_comment_is_written_and_then_kept_up_to_date(tmp_path: Path) -> None:
    put_on_path(tmp_path / "bin", "gh", GH)
    of_others = [
        {"id": 1, "user": "ada", "body": "<!-- rm-assets: evaluation --> I quote it"},
        {"id": 2, "user": "github-actions[bot]", "body": "coverage"},
    ]
    (tmp_path / "comments.json").write_text(json.dumps(of_others))
    values = {"github.token": "t", "github.repository": "me/models", "github.event.pull_request.number": "7"}
    for text in ("first", "second"):
        (tmp_path / "comment.md").write_text(f"<!-- rm-assets: evaluation -->\n{text}\n")
        env = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
        assert run_job(jobs(EVALUATE)["comment"], tmp_path, values, env) == (True, "")
    *others, ours = json.loads((tmp_path / "comments.json").read_text())
    assert others == of_others
    assert ours["body"] == "<!-- rm-assets: evaluation -->\nsecond\n"


def tree(folder: Path, **recipes: dict[str, Any]) -> Bench:
    """A checkout with recipes: the toy's data, a tiny base, one file a recipe."""
    made = Bench(folder)
    made.write_toy(40, 20)
    save_causal(folder / "recipes" / "base")
    for name, changes in recipes.items():
        made.recipe(name, **changes)
    return made


def only(file: Path, job: str, *steps: str) -> dict[str, Any]:
    """These steps of a job, without its environment: where store and recipes are is this test's."""
    found = jobs(file)[job]
    return {"steps": [step for step in found["steps"] if step.get("name") in steps]}


def results(folder: Path) -> dict[str, str]:
    """What the commands of a workflow need here; the store is in `folder`."""
    return {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "RM_ASSETS_HOME": str(folder / "store"),
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
    }  # fmt: skip


LETS_PASS = {
    "gate": {
        name: {"severity": "ignore"}
        for name in ("match_rate_is_high", "length_is_not_the_reason", "confidence_is_calibrated")
    }
}
REFUSES = {"gate": {"match_rate_is_high": {"limit": 1.0}}}


def test_main_is_what_the_change_was_merged_with(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        who = ("-c", "user.name=me", "-c", "user.email=me@localhost")
        subprocess.run(["git", *who, *words], cwd=tmp_path / "change", check=True, capture_output=True)

    (tmp_path / "change").mkdir()
    git("init", "-b", "main")
    for branch, base, text in (("main", "main", "old"), ("mine", "main", "of the change"), ("main", "mine^", "newer")):
        git("checkout", "-B", branch, *([base] if text != "old" else []))
        (tmp_path / "change" / ("mine" if branch == "mine" else "recipe")).write_text(text)
        git("add", ".")
        git("commit", "-m", text)
    git("merge", "--no-ff", "mine")
    job = only(EVALUATE, "evaluate", "The main that the change was merged with")
    for _ in range(2):  # a runner of one's own keeps the folder
        passed, said = run_job(job, tmp_path, {}, {})
        assert passed, said
        assert (tmp_path / "main" / "recipe").read_text() == "newer" and not (tmp_path / "main" / "mine").exists()
    (checkout, *others) = [step for step in jobs(EVALUATE)["evaluate"]["steps"] if "checkout" in step.get("uses", "")]
    assert others == [] and checkout["with"]["fetch-depth"] == 2 and "ref" not in checkout["with"]


RM_ASSETS = f"""#!{sys.executable} -SE
import os, sys
tree, words = os.environ["RM_ASSETS_RECIPES"].split("/")[-2], sys.argv[1:]
if words[0] == "recipes":
    print(*(f"{{name}}: valid" for name in ("added", "broken", "changed", "shipped")), sep="\\n")
elif words[0] == "run":
    sys.exit(tree == "main" and words[1] == "broken")
elif words[0] == "show":
    recipe = words[words.index("--recipe") + 1]
    if tree == "main" and recipe == "broken":
        sys.exit(1)
    print('{{"path": "/models/' + recipe + tree + '"}}')
else:
    print("TABLE", words[1:words.index("--on")])
"""


@has_jq
def test_a_pull_request_says_where_main_has_no_model_and_how_many_tables_there_are(tmp_path: Path) -> None:
    put_on_path(tmp_path / "bin", "rm-assets", RM_ASSETS)
    for place in ("main/recipes/broken", "main/recipes/changed", *(f"change/recipes/{n}" for n in ("added", "broken", "changed"))):  # fmt: skip
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{place}.yaml").touch()
    env = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")}
    values = {"secrets.HF_TOKEN": "", "github.event.pull_request.head.sha": "0123456789abcdef"}
    passed, said = run_job(only(EVALUATE, "evaluate", "Make and compare"), tmp_path, values, env)
    assert passed, said
    added, broken, changed = re.split(r"^### ", (tmp_path / "comment.md").read_text(), flags=re.MULTILINE)[1:]
    assert added == "added\n\nTABLE ['added']\n\n"
    assert broken.startswith("broken\n\nTABLE ['broken']\n\n**Main's model was not made: nothing to compare with;**")
    assert changed.startswith(
        "changed\n\nTABLE ['changed', 'changed on main']\n\nThese are 3 tables. Each is corrected"
    )


@has_jq
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_pull_request_says_of_each_recipe_how_its_model_compares_with_that_of_main(tmp_path: Path) -> None:
    longer = {"training": {**TOY["training"], "num_epochs": 3}}
    tree(tmp_path / "main", same=LETS_PASS, changed=LETS_PASS)
    tree(tmp_path / "change", same=LETS_PASS, changed=LETS_PASS | longer, added=REFUSES | longer)
    job = only(EVALUATE, "evaluate", "Make and compare")
    values = {"secrets.HF_TOKEN": "", "github.event.pull_request.head.sha": "0123456789abcdef"}
    passed, said = run_job(job, tmp_path, values, results(tmp_path))
    comment = (tmp_path / "comment.md").read_text()
    assert not passed, said  # the gate refuses `added`
    parts = re.split(r"^#+ ", comment, flags=re.MULTILINE)
    assert parts[0] == "<!-- rm-assets: evaluation -->\n" and parts[1] == "Evaluation of 0123456 against main\n\n"
    added, changed, same = parts[2:]
    assert "These are 2 tables" in same
    same = same.partition("These are")[0]
    assert same.strip() == "same\n\nThe same model as on main."
    rows = re.findall(r"^\| ([^|]+?) \|.*\|$", changed, re.MULTILINE)
    assert (
        rows[:2] == ["model", ":---"] and {"changed", "changed on main"} < set(rows[2:]) and "95 % interval" in changed
    )
    assert "| added |" in added and "on main" not in added and added.rstrip().endswith("see the log of this check.")
    assert (tmp_path / "summary.md").read_text() == comment
    assert not (tmp_path / "store" / "hub_release").exists()  # a pull request releases nothing


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_night_compares_with_the_release_in_production(tmp_path: Path) -> None:
    tree(tmp_path, mine=LETS_PASS)
    env = {**results(tmp_path), "RM_ASSETS_RECIPES": str(tmp_path / "recipes")}
    for words in (("run", "mine"), ("release", "promote", "mine", "--to", "production")):
        subprocess.run(["rm-assets", *words], env={**os.environ, **env}, cwd=tmp_path, check=True, capture_output=True)
    Bench(tmp_path).recipe("mine", **LETS_PASS, training={**TOY["training"], "num_epochs": 3})
    passed, said = run_job(
        only(NIGHTLY, "evaluate", "Make, evaluate, compare"), tmp_path, {"secrets.HF_TOKEN": ""}, env
    )
    assert passed, said
    summary = (tmp_path / "summary.md").read_text()
    assert summary.startswith("\n## mine\n\n| model |") and "| mine |" in summary and "| mine@production |" in summary


@pytest.mark.slow
def test_a_push_tries_every_recipe_of_the_repository_and_none_that_is_shipped(tmp_path: Path) -> None:
    tree(tmp_path, mine={})
    env = {**results(tmp_path), "RM_ASSETS_RECIPES": str(tmp_path / "recipes")}
    job = only(TESTS, "tests", "Smoke run of each recipe", "Tests")
    passed, said = run_job(job, tmp_path, {"secrets.HF_TOKEN": ""}, env)
    assert passed, said
    assert said.count("SMOKE RUN") == 1 and "embedded: valid" in said
