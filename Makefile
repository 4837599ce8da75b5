# Every target sets up what it needs: `make demo` and `make test` work on a fresh machine with Python 3.11.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(CURDIR)/$(VENV)/bin
export DAGSTER_HOME ?= $(CURDIR)
SHELL  := /bin/bash

.DEFAULT_GOAL := help
.PHONY: help demo ui test test-slow bench check format docs reference hooks install clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

install: $(VENV)/.installed  ## Create .venv with the tested versions

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,docs]'
	touch $@

demo: install  ## Build the embedded recipe end to end: prompts to released reward model, about a minute
	@$(BIN)/rm-assets run embedded

ui: install  ## Start the web UI and the daemon on http://127.0.0.1:3000
	@echo "Web UI: http://127.0.0.1:3000  (assets: http://127.0.0.1:3000/asset-groups)   stop with Ctrl-C"
	@$(BIN)/dagster dev --workspace workspace.yaml --host 127.0.0.1 --port 3000

test: install  ## Run the tests, two files at a time
	@$(BIN)/python -m pytest -n 2 --dist loadfile --durations 10

test-slow: install  ## Run the tests that need a browser, servers or much time
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m slow --timeout 900 --durations 15

bench: install  ## Measure against TRL, plain scoring and generate; needs RM_ASSETS_REAL_DATA; about 20 minutes
	@$(BIN)/python -W ignore -m benchmarks

check: install  ## Lint, types, import contracts
	@$(BIN)/ruff check rm_assets rm_assets_tests benchmarks
	@$(BIN)/ruff format --check rm_assets rm_assets_tests benchmarks
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: install  ## Format the code
	@$(BIN)/ruff check --fix rm_assets rm_assets_tests benchmarks
	@$(BIN)/ruff format rm_assets rm_assets_tests benchmarks

docs: install  ## Build the documentation into site/; fails at a link or anchor that leads nowhere
	@$(BIN)/mkdocs build --strict

reference: install  ## Write the generated pages of docs/ anew: recipe keys, commands, checks
	@$(BIN)/python -m rm_assets.core.recipe_reference > docs/recipes.md
	@$(BIN)/python -m rm_assets.cli.command_reference > docs/commands.md
	@$(BIN)/python -m rm_assets.cli.check_reference > docs/checks.md

hooks: install  ## Check each commit: format, types, spelling, secrets, large files, recipes
	@$(BIN)/pre-commit install

clean:  ## Remove caches (what was made, Dagster's history and .venv stay)
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis site
