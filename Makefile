# Two commands: `make book` builds the book, `make test` checks everything.
#
#   make book                          # the smoke profile, two cores, minutes
#   make book SERENDIFF_PROFILE=laptop # the same code with larger sizes
#   make test PYTHON=python3.12        # another interpreter for .venv
#   make test VENV="$CONDA_PREFIX"     # an environment that already exists
#   make book HASHES=1                 # every file but torch by its SHA-256
#   make gpu MINUTES=9                 # records at the paper's size, resumable

SHELL := bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.serendiff-installed
PYTEST := $(BIN)/python -m pytest

export SERENDIFF_CACHE ?= $(CURDIR)/.cache
export SERENDIFF_PROFILE ?= smoke
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.NOTPARALLEL:
.PHONY: help install book test lint unit notebooks gpu format clean

help:
	@echo "make book    execute the notebooks and build the book"
	@echo "make test    lint, unit and contract tests, then all notebooks"
	@echo "make gpu     record all tables at the paper's size, MINUTES at a time"
	@echo "make format  format code and strip notebooks before a commit"
	@echo "make clean   remove the built book (caches and .venv stay)"

install: $(STAMP)

# The constraints name exact versions, so that two people who build the book
# in the same month build the same book.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Python 3.11 or newer is needed: make PYTHON=python3.12"; \
	    exit 1; }
	@test -x "$(BIN)/python" || $(PYTHON) -m venv "$(VENV)"
	@echo "installing into $(VENV), a few minutes the first time"
	@test -z "$(HASHES)" || "$(BIN)/python" -m pip install --quiet --no-deps \
	    --require-hashes -r constraints-hashes.txt
	@SECONDS=0; "$(BIN)/python" -m pip install --quiet -c constraints.txt \
	    -e ".[book,test]" && echo "installed in $$SECONDS s"
	@touch "$@"

book: $(STAMP)
	@$(BIN)/python tools/build_book.py

test: $(STAMP)
	@SECONDS=0; $(MAKE) --no-print-directory lint unit notebooks && \
	    echo "make test: all passed in $$SECONDS s"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/nbstripout --verify notebooks/*.ipynb
	$(BIN)/codespell
	$(BIN)/lint-imports
	$(BIN)/mypy

# Two processes with one thread each: the kernels would fight for the cores.
unit: $(STAMP)
	OMP_NUM_THREADS=1 $(PYTEST) -n 2 --doctest-modules \
	    serendifflib tools tests

# Handed out one by one and in order: what a notebook trains, the next loads.
# pytest ends with status 5, a failure, when it finds no notebook to run.
notebooks: $(STAMP)
	$(BIN)/python tools/build_book.py --prepare
	OMP_NUM_THREADS=1 $(PYTEST) --nbmake --nbmake-timeout=600 -n 2 \
	    --maxschedchunk=1 --durations=0 notebooks/

# The most important records first. Run it again until nothing is left.
MINUTES ?= 60
gpu: $(STAMP)
	$(BIN)/python -m serendifflib run all --profile paper --minutes $(MINUTES)

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/nbstripout notebooks/*.ipynb
	$(BIN)/python tools/launch_cell.py

clean:
	@rm -rf _build
