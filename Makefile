# `make demo` and `make test` do all the set-up: nothing is needed but Python 3.11+, make and a network.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# Each worker has servers of its own.
WORKERS ?= -n 2 --dist worksteal

.PHONY: help setup demo test test-all lint audit sbom fuzz docs docs-serve screenshots bench bench-quick clean

help:
	@echo "make demo      train on real digits through stateless split servers, on this machine"
	@echo "make test      the tests (some 10 minutes on two cores)"
	@echo "make test-all  the tests and the slow ones"
	@echo "make lint      ruff and mypy"
	@echo "make audit     look up known vulnerabilities of the installed packages (needs PyPI)"
	@echo "make sbom      write what is installed to sbom.cdx.json (CycloneDX)"
	@echo "make fuzz      over 20,000 requests that the services' own descriptions make up (15 minutes)"
	@echo "make docs      write the generated reference pages again, and build the docs site into site/"
	@echo "make bench     measure speed and size against their targets (10 minutes; bench-quick: 2)"
	@echo "make setup     only install, into .venv"

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "microsfl needs Python 3.11 or newer; try make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(READY)

demo: setup
	$(BIN)/microsfl run

test: setup
	$(BIN)/python -m pytest $(WORKERS) -m "not slow"

test-all: setup
	$(BIN)/python -m pytest $(WORKERS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

audit: setup
	$(BIN)/python .ci/audit.py

sbom: setup
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --of JSON -o sbom.cdx.json \
		$(BIN)/python

fuzz: setup
	$(BIN)/python -m tests.fuzz.fuzz_api 330

docs: setup
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-serve: docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

screenshots: setup
	$(BIN)/python docs/screenshots.py

bench: setup
	$(BIN)/python -m benchmarks

bench-quick: setup
	$(BIN)/python -m benchmarks --quick

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis runs site
