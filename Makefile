# Two commands for a newcomer: `make demo` and `make test`. Each sets itself up; `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# One more than there are cores: a good part of the tests waits, for servers, limits of time and processes that end.
WORKERS ?= $(shell echo $$(( $$(nproc 2>/dev/null || echo 1) + 1 )))

# The tests start the program a thousand times: compiled once, each start takes 0.4 s of CPU time less (1.8 -> 1.4 s).
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install npm demo test test-all test-fast lint format docs bench soak fuzz reference build check-wheel test-oldest clean ci

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# What is installed is compiled when it is first imported, not all of it at once, and found by one run of pip, not two:
# measured: 137 s -> 90 s of CPU time on `make install npm`, before which nothing else can begin.
define make_environment
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "cxrprep needs Python 3.11 or newer; set PYTHON=/path/to/python3.11" >&2; exit 2; }
$(PYTHON) -m venv $(VENV) || { echo "the venv module is missing: apt-get install python3-venv" >&2; exit 2; }
$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --editable
endef

$(VENV)/program: pyproject.toml
	$(make_environment) .
	@touch $@

$(VENV)/installed: pyproject.toml
	$(make_environment) '.[dev,dask,s3,gcs,azure,codecs,keyring,xlsx,docs]'
	@touch $(VENV)/program $@

install: $(VENV)/installed  ## make the virtual environment, cxrprep and all extras in it

npm:  # the parts of the tests that npm has: Azurite and axe-core; without npm those tests say so and are skipped
	@if command -v npm >/dev/null; then \
	  if [ tests/npm/package.json -nt tests/npm/node_modules/.package-lock.json ]; then \
	    npm install --prefix tests/npm --no-package-lock --no-audit --no-fund --loglevel=error || echo "npm install failed; the tests that need it are skipped" >&2; \
	  fi; \
	fi

# Alone it needs the program alone; beside other targets it waits for the one run of pip that they need.
demo: $(if $(filter-out demo,$(MAKECMDGOALS)),$(VENV)/installed,$(VENV)/program)  ## generate a phantom NIH collection, serve it, and run download, verify, extract-labels, convert, manifest
	$(BIN)/python tools/demo.py

test: install npm  ## run the tests; a test whose real part is absent is skipped with the command that installs it
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(if $(CXR_ALL),,-m "not long")

test-all: export CXR_ALL := 1
test-all: test  ## the longest tests too, and every case of the large grids, of which test runs a part

test-fast: install  ## the tests that need no server, browser or cluster
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not slow and not long and not part"

lint: install  ## ruff, mypy --strict, and the import contracts of docs/explanation/architecture.md
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install  ## let ruff order imports and lay out the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: install  ## build the documentation, warnings as errors
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

bench: install  ## run every benchmark with its peers and print one table
	$(BIN)/python benchmarks/all.py

soak: install  ## kill, cut, fill, deceive: some hundred faults, and a table of what came of each (twenty minutes)
	$(BIN)/python -m tests.soak

fuzz: install  ## fuzz every parser for SECONDS_EACH (20), guided by coverage where atheris is installed
	$(BIN)/python tools/fuzz.py --seconds $(or $(SECONDS_EACH),20)

reference: install  ## write the kept output of the commands again, and the reference and manual pages for a look
	$(BIN)/python tools/reference.py
	$(BIN)/python tools/manpages.py
	$(BIN)/python -m tests.cli.golden

check-wheel: install  ## build the distributions, install the wheel, and run its tests in an empty folder
	$(BIN)/python tools/check_wheel.py

test-oldest: install  ## run the tests with the oldest versions that are allowed
	$(BIN)/python tools/check_oldest.py

build: install  ## build the wheel and the source distribution
	$(BIN)/python -m build

clean:  ## drop what can be made again
	rm -rf build dist docs/_build .venv-oldest .mypy_cache .ruff_cache .pytest_cache .hypothesis demo

ci: lint test docs demo  ## what .ci/run calls after it installed the real parts
