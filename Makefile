# Every target prepares .venv by itself, also on a fresh machine.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
UNIT ?=
DEMO := demo-results

.PHONY: demo test lint build audit mutate soak bench bench-budgets clean help

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[nbgrader,dev,cluster]'
	@touch $@

demo: $(READY) ## grade a small class of real submissions end to end and show the result
	$(BIN)/grader grade tests/submissions --out $(DEMO) || [ $$? -eq 1 ]  # 1 says that not everybody passed

test: $(READY) lint ## all tests, and the course's own audit
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal  # a process a core already
	$(BIN)/grader build --check

lint: $(READY) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

build: $(READY) ## make solutions/ and assignments/ from reference/
	$(BIN)/grader build

audit: $(READY) ## is every wrong answer caught, does every right one pass?
	$(BIN)/grader audit $(UNIT)

mutate: $(READY) ## the same, and mechanical mutants of the solutions
	$(BIN)/grader audit --mutate $(UNIT)

soak: $(READY) ## 1000 checks of right answers over fresh seeds: none may be rejected
	$(BIN)/grader soak

bench-budgets: $(READY) ## do budgets flake? false fails and detection, idle and with two hogs; the estimate's rank correlation
	$(BIN)/python tests/bench/budgets.py

bench: $(READY) ## throughput against stock nbgrader on the same 30 notebooks
	$(BIN)/python tests/bench/throughput.py

clean: ## remove what was made
	rm -rf $(VENV) $(DEMO) build .pytest_cache .mypy_cache .ruff_cache
