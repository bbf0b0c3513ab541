# The two commands a newcomer needs: `make demo` and `make test`. All of it happens in .venv.
VENV := .venv
PY   := $(VENV)/bin/python

# The first Python that is new enough; name another with `make PYTHON=/path/to/python demo`.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)

RUN_STAMP  := $(VENV)/.installed-run
TEST_STAMP := $(VENV)/.installed-test
ROOMS      := kvs journal schedulers instances tools

# Without bytecode files each of the many short processes would compile fluxkv anew.
unexport PYTHONDONTWRITEBYTECODE
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test soak lint types bench man image ci clean
.SUFFIXES:

help:
	@echo 'make demo    install into $(VENV) and run an ensemble of real jobs, then replay its journal'
	@echo 'make test    install what the tests need and run them'
	@echo 'make soak    hours of the same: SOAK_ROUNDS=1000 of kill -9, SOAK_S=3600 of endurance, SOAK=chaos for one part'
	@echo 'make lint    ruff check'
	@echo 'make types   mypy --strict'
	@echo 'make bench   measure speed against bare processes on this machine'
	@echo 'make man     write the man pages to build/man/man1 (MANDIR=... elsewhere)'
	@echo 'make image   build the container image fluxkv (BASE=... to stand on another one)'
	@echo 'make ci      all that must pass: lint, types, test'
	@echo 'make clean   remove $(VENV) and everything made here'

demo: $(RUN_STAMP)
	@$(PY) -m fluxkv.tools.demo --directory demo-results

# Much of the suite waits for real daemons: one file more at a time than there are cores.
TEST_JOBS ?= $(shell expr $$(nproc) + 1)
test: $(TEST_STAMP)
	@$(PY) -m pytest -n $(TEST_JOBS) --dist loadfile $(PYTEST_ARGS)

# Each part is a file tests/soak/soak_<part>.py; what a part does how often it reads from the environment (FLUXKV_SOAK_*).
SOAK ?= *
SOAK_ROUNDS ?= 1000
SOAK_S ?= 3600
soak: $(TEST_STAMP)
	@FLUXKV_SOAK_ROUNDS=$(SOAK_ROUNDS) FLUXKV_SOAK_S=$(SOAK_S) \
		$(PY) -m pytest -s -p no:cacheprovider -o timeout=0 $(SOAK_ARGS) tests/soak/soak_$(SOAK).py

lint: $(TEST_STAMP)
	@$(PY) -m ruff check --output-format=concise .

types: $(TEST_STAMP)
	@MYPYPATH=$(VENV)/src $(PY) -m mypy $(ROOMS:%=-p fluxkv.%)

bench: $(TEST_STAMP)
	@$(PY) tests/bench/run.py $(BENCH_ARGS)

MANDIR ?= build/man/man1
man: $(RUN_STAMP)
	@$(VENV)/bin/fluxkv man --output $(MANDIR)

# From what is committed, so that nothing else goes into the image.
BASE ?= python:3.11-slim
image:
	@git archive HEAD | docker build --build-arg BASE=$(BASE) $(IMAGE_ARGS) -f docker/Dockerfile -t fluxkv -

ci:
	@bash .ci/run

# Made anew if an earlier try left half of it. mypy finds the package by the link: the folders' names are not `fluxkv`.
$(VENV)/.made:
	@test -n '$(PYTHON)' || { echo 'fluxkv needs Python 3.11 or newer; name it: make PYTHON=/path/to/python' >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) || { \
		echo 'python -m venv failed; on Debian and Ubuntu: apt-get install python3-venv' >&2; exit 1; }
	@mkdir -p $(VENV)/src && ln -sfn ../.. $(VENV)/src/fluxkv
	@$(PY) -m pip install -qq --upgrade pip 'setuptools>=77'
	@touch $@

$(RUN_STAMP): pyproject.toml $(VENV)/.made
	@echo 'installing into $(VENV) ...'
	@$(PY) -m pip install -qq --no-build-isolation -e .
	@touch $@

$(TEST_STAMP): pyproject.toml $(VENV)/.made
	@echo 'installing into $(VENV), with what the tests need ...'
	@$(PY) -m pip install -qq --no-build-isolation -e '.[test,dev,top]' 2>/dev/null || { \
		echo 'without textual, which is not to be had here: the live view of `fluxkv top` is not tested'; \
		$(PY) -m pip install -qq --no-build-isolation -e '.[test,dev]'; }
	@touch $@ $(RUN_STAMP)

clean:
	rm -rf $(VENV) build dist *.egg-info demo-results bench-results.json \
		.mypy_cache .ruff_cache .pytest_cache .hypothesis
	find $(ROOMS) tests . -maxdepth 3 -name __pycache__ -prune -exec rm -rf {} +
