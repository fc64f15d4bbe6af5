# The two commands: `make run` and `make test`. Both do all their own set-up; see scripts/setup.
.PHONY: run test test-slow check format bench docs bench-miniwob clean setup
SHELL := /bin/bash
BIN := .venv/bin

run: ## JupyterLab on port 8000 with the first notebook
	@scripts/setup run
	@scripts/run

test: ## set-up, checks and every test, nothing skipped
	@scripts/setup test
	@$(MAKE) --no-print-directory check-code
	@scripts/test $(PYTEST)

test-slow: ## the same kills, leaks and restarts, with a hundred rounds and more
	@scripts/setup test
	@MARKED=slow scripts/test --timeout 3600 $(PYTEST)

check: ## formatting, lint, types (Python and TypeScript), audits
	@scripts/setup test
	@$(MAKE) --no-print-directory check-code audit

check-code:
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PATH=$(CURDIR)/$(BIN):$$PATH npm --prefix labextension --silent run check

audit: ## known vulnerabilities in what we depend on (asks the advisory databases)
	@scripts/audit

format: ## put Python and the front end in shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	npm --prefix labextension --silent run format

bench: ## the numbers of DESIGN, measured here, as ratios
	@scripts/setup test
	@scripts/bench $(BENCH)

docs: ## the documentation, in docs/_build/html; a warning is an error
	@scripts/setup test
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html
	@echo "docs: open docs/_build/html/index.html"

bench-miniwob: ## every page of MiniWoB++ with the random and the oracle baseline; no key
	@scripts/setup test
	$(BIN)/python -m benchmarks.miniwob $(BENCH)

setup:
	@scripts/setup test

clean: ## what the build made; the engine's data and your sessions stay
	rm -rf .venv dist build docs/_build labextension/lib labextension/node_modules cambio_lab/labextension
	find cambio_lab/static -mindepth 1 ! -name .keep -delete
