# `make demo` and `make test` work on a fresh clone: each builds .venv first when it is not there.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow lint format docs parity parity-evaluation clean

demo: .venv/.installed
	$(BIN)/diptych demo

test: .venv/.installed lint
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-slow: .venv/.installed
	$(BIN)/python -m pytest -m slow

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: .venv/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/.installed
	$(BIN)/python -m pip install -q -e '.[docs]' -c constraints.txt
	$(BIN)/mkdocs build --strict

# Needs 6 GB of disk for the peers, and 10 GB of memory.
parity: .venv-parity/.installed
	.venv-parity/bin/python benchmarks/parity.py

# The same counts as clip-benchmark: make parity-evaluation DATA=FOLDER, of WebDataset evaluation folders.
parity-evaluation: .venv-parity/evaluation/.installed
	PYTHONPATH=.venv-parity/evaluation .venv-parity/bin/python benchmarks/parity_evaluation.py $(DATA)

.venv-parity/evaluation/.installed: .venv-parity/.installed benchmarks/parity-evaluation-requirements.txt
	.venv-parity/bin/python -m pip install -q --disable-pip-version-check --no-deps --upgrade \
		--target .venv-parity/evaluation -r benchmarks/parity-evaluation-requirements.txt
	touch $@

.venv-parity/.installed: pyproject.toml benchmarks/parity-requirements.txt
	$(PYTHON) -m venv .venv-parity
	.venv-parity/bin/python -m pip install -q --disable-pip-version-check -r benchmarks/parity-requirements.txt -e .
	touch $@

# torch first and pinned: without the pin pip would fetch a build with gigabytes of GPU libraries.
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv .venv-parity build dist site runs
