# make run   starts rtpush with its demo page on http://127.0.0.1:8080/demo/
# make test  runs every test, with lint and types
#
# Both need Python 3.11 or newer and nothing else; all that they install goes into .venv, but for the programs that tests
# use (a browser, proxies, Redis), which come from Debian's packages where this runs as root.

# The first that is new enough. A name can be there and not work, as those of pyenv, so each is tried.
PYTHON ?= $(shell for each in python3 python3.11 python3.12 python3.13 python3.14; do \
	"$$each" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v "$$each" && break; done)
VENV ?= .venv
CONFIG ?= conf/dev.ini
# What to test, as for trial: make test TESTS=tests.protocol
TESTS ?=
# How long faults happen, and what else python -m tests.chaos takes: make chaos CHAOS="--minutes 10 --seed 7"
CHAOS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
PACKAGING := setup.cfg setup.py pyproject.toml

.PHONY: help run test test-fast test-all chaos lint docs benchmark clean

help:
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' Makefile | expand -t 20

run: $(VENV)/run.stamp  ## start the server (CONFIG=conf/dev.ini)
	@exec $(BIN)/twistd --nodaemon --pidfile= rtpush --config $(CONFIG)

test: $(VENV)/dev.stamp  ## run every test, lint and types; install the programs that tests use, where that is possible
	@$(BIN)/python -m tests.programs
	@$(BIN)/python -m tests.run --checks $(TESTS)

test-fast: $(VENV)/test.stamp  ## run the tests that start neither real servers nor a browser
	@$(BIN)/python -m tests.run --fast $(TESTS)

test-all:  ## run the fast tests on every Python that is here, from 3.11 on
	@$(PYTHON) tests/interpreters.py | { failed=; while read -r version python; do \
		echo "== Python $$version: $$python"; \
		$(MAKE) --no-print-directory test-fast PYTHON="$$python" VENV=".venv-$$version" </dev/null \
			|| failed="$$failed $$version"; \
	done; test -z "$$failed" || { echo "failed with Python$$failed"; exit 1; }; }

chaos: $(VENV)/test.stamp  ## let faults happen to nodes, Redis and clients, and prove what came of it (CHAOS="--minutes 10 --seed 7")
	@$(BIN)/python -m tests.programs
	@$(BIN)/python -m tests.chaos $(CHAOS)

lint: $(VENV)/dev.stamp  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(VENV)/dev.stamp  ## build the documentation into docs/_build/html
	$(BIN)/python -m sphinx -W -n -q -b html docs docs/_build/html

benchmark: $(VENV)/run.stamp  ## measure this machine
	@$(BIN)/python -m benchmarks

clean:  ## remove what make has made
	rm -rf .venv .venv-* build dist docs/_build *.egg-info _trial_temp* .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp for each set of packages, so that nothing is installed twice.
$(VENV)/run.stamp: EXTRAS :=
$(VENV)/test.stamp: EXTRAS := [test]
$(VENV)/dev.stamp: EXTRAS := [test,lint,docs]
$(VENV)/%.stamp: $(PACKAGING) | $(BIN)/python
	$(PIP) --editable ".$(EXTRAS)"
	@touch $@

# Debian has venv in a package of its own.
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "rtpush needs Python 3.11 or newer, and there is none" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { test "$$(id -u)" = 0 && apt-get -q update && apt-get -q -y install python3-venv; } \
		|| { echo "Python's venv is missing. On Debian: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
