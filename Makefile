# `make demo` and `make test` work on a fresh clone: each builds .venv first when it is not there.
PYTHON ?= python3
BIN := .venv/bin

# The oldest Python that is promised, and the newest that all dependencies have wheels for.
PYTHONS ?= python3.11 python3.14

.PHONY: demo test test-slow test-matrix test-lowest coverage lint format docs release benchmarks-compare parity
.PHONY: parity-evaluation clean

demo: .venv/.installed
	$(BIN)/diptych demo

test: .venv/.installed lint
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-slow: .venv/.installed
	$(BIN)/python -m pytest -m slow

# By hand, an environment each: make test-matrix PYTHONS="python3.11 /path/to/python3.13". All are tried before it fails.
test-matrix:
	@failed=; for python in $(PYTHONS); do .ci/test-with $$python constraints.txt || failed="$$failed $$python"; done; \
		test -z "$$failed" || { echo "not passed:$$failed" >&2; exit 1; }

# By hand: the lowest versions that pyproject.toml promises. torch brings gigabytes of GPU libraries along.
test-lowest:
	.ci/test-with $(PYTHON) constraints-lowest.txt

coverage: .venv/.installed
	$(BIN)/python -m pytest -n 2 -m "not slow" --cov

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

# Builds the commit, tries its wheel in a clean environment, and prints the tag command; pushes nothing.
release:
	$(PYTHON) .ci/release.py

# What moved in benchmarks/results/*.jsonl since the run before on the same hardware.
benchmarks-compare:
	$(PYTHON) benchmarks/compare.py

# Needs 6 GB of disk for the peers, and 10 GB of memory.
parity: .venv-parity/.installed
	.venv-parity/bin/python benchmarks/parity.py
	.venv-parity/bin/python benchmarks/parity_zoo.py
	.venv-parity/bin/python benchmarks/published_tags.py

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
	rm -rf .venv .venv-parity .venv-tests build dist site runs
