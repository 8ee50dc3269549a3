# Everything a person or a machine does with this tree. It needs Python 3.11 or newer and make, nothing else.

PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11; do \
	if $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$name; break; fi; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PIP_COMPILE := .venv/pins/bin/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe \
	--no-header --no-annotate --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options

.DEFAULT_GOAL := help
.PHONY: help demo test quick lint format servers fixtures pages pins clean

help: ## what can be made
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' Makefile | expand -t 16

demo: .venv/base.stamp ## a throw-away store, a simulated campaign through the real endpoints, two receivers
	$(BIN)/aftersend demo

test: lint ## the checks of `make lint`, then every test; says which were skipped for want of a server
	$(BIN)/python -m pytest

quick: .venv/dev.stamp ## the tests that take less than a minute together
	$(BIN)/python -m pytest -m "not slow"

lint: .venv/dev.stamp ## style, types and import rules
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: .venv/dev.stamp ## put style right where a machine can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

servers: ## install the real servers that tests talk to (Debian, root)
	@sh tools/servers.sh

fixtures: .venv/dev.stamp ## write expected.jsonl anew from what the dialects say now: make fixtures NAMES="halon"
	$(BIN)/python -m aftersend.testing.dialects $(NAMES)

pages: .venv/dev.stamp ## write the pages that are made from the code anew (docs/cli.md and others)
	$(BIN)/python -m aftersend.pages

pins: .venv/dev.stamp ## choose new versions of everything installed, after a change of pyproject.toml
	@test -x .venv/pins/bin/pip-compile || { $(PYTHON) -m venv .venv/pins && .venv/pins/bin/python -m pip --quiet install pip-tools==7.6.2; }
	$(PIP_COMPILE) --upgrade -o requirements/base.txt pyproject.toml requirements/base.in
	$(BIN)/python tools/development.py | $(PIP_COMPILE) --upgrade -c requirements/base.txt \
		-o requirements/dev.txt pyproject.toml requirements/base.in -
	sed -i '1i # Written by `make pins` from pyproject.toml and base.in: exact versions, every file checked by its hash.' \
		requirements/base.txt requirements/dev.txt

clean: ## remove what was set up or cached
	rm -rf .venv .node .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# A stamp is newer than what it was made from: a second run does nothing. dev.txt holds all that base.txt holds.
.venv/base.stamp: requirements/base.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "aftersend needs Python 3.11 or newer; name one: make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/pip || { echo "setting up .venv (once)"; $(PYTHON) -m venv --clear .venv; }
	$(PIP) install --require-hashes -r requirements/base.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

.venv/dev.stamp: .venv/base.stamp requirements/dev.txt
	$(PIP) install --require-hashes -r requirements/dev.txt
	@touch $@
