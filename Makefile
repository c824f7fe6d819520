# `make run` and `make test` set up all they need: Python 3.11 to 3.13 and pip are enough.
#
#   make run                                      the demo: two small models, no key, no network
#   POLICY=my.yaml PORT=8000 make run             your policy, on another port
#   make test                                     format, lint, types, tests
#   make browser                                  Chromium, for the dashboard's tests (else they skip)
#   make kernels                                  Triton, for the GPU kernels' tests (else they skip)
#   make screenshots                              the pictures in docs/images, from those tests
#   make bench                                    the benchmarks that need nothing but this tree
#   make lock                                     pin the newest allowed versions again

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3 python python3.13 python3.12 python3.11; do \
	"$$p" -c '$(SUPPORTED)' 2>/dev/null && echo "$$p" && break; done)
BIN := .venv/bin
INSTALLED := .venv/.installed
TORCH := 2.13.0

.PHONY: help run lint test browser kernels screenshots bench lock setup clean

help:
	@sed -n '3,10s/^# *//p' Makefile

run: $(INSTALLED)
	@$(BIN)/frugal $(if $(POLICY),serve "$(POLICY)",up) $(if $(PORT),--port $(PORT)) $(if $(ADMIN_PORT),--admin-port $(ADMIN_PORT))

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint
	$(BIN)/pytest -q -n 2 --dist loadfile

# Where nobody may install packages, the dashboard's tests say so and skip.
browser:
	@if command -v chromium chromium-browser google-chrome >/dev/null; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get install -y --no-install-recommends chromium fonts-inter fonts-noto-color-emoji >/dev/null \
		|| { apt-get update >/dev/null && apt-get install -y --no-install-recommends chromium fonts-inter \
			fonts-noto-color-emoji >/dev/null; }; \
	else echo "Chromium is not installed; on Debian: apt install chromium" >&2; exit 1; fi

# Its interpreter runs the kernels on a processor, and reads NumPy 2.4 from 3.8 on. It is not in
# the lock, since torch for CUDA names a version of its own.
kernels: $(INSTALLED)
	@$(BIN)/python -c 'import triton' 2>/dev/null \
		|| $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps 'triton>=3.8,<3.9'

screenshots: $(INSTALLED)
	FRUGAL_SCREENSHOTS=docs/images $(BIN)/pytest -q tests/dashboard/test_screenshots.py

bench: $(INSTALLED)
	$(BIN)/python -m bench.ledger

setup: $(INSTALLED)

$(INSTALLED): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "frugal-gateway needs Python 3.11, 3.12 or 3.13, and found none of them." \
		"Install one, or name it: PYTHON=/path/to/python3.11 make ..." >&2; exit 2; }
	@"$(PYTHON)" -c '$(SUPPORTED)' || { echo "frugal-gateway needs Python 3.11, 3.12 or 3.13;" \
		"$(PYTHON) is $$("$(PYTHON)" --version 2>&1). Name another: PYTHON=/path/to/python3.11 make ..." >&2; exit 2; }
	@test -x $(BIN)/python || "$(PYTHON)" -m venv .venv || { rm -rf .venv; \
		echo "$(PYTHON) cannot make an environment; on Debian: apt install python3-venv" >&2; exit 2; }
	@$(BIN)/python -c '$(SUPPORTED)' || { echo "the Python in .venv is not supported; make clean, then again" >&2; exit 2; }
	@echo "Installing what requirements.lock names into .venv (once; a few minutes) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(INSTALLED)

# torch is pinned to the version the engine is tested with; the CUDA packages below it are left
# to torch, which names the ones that fit it where it needs them at all.
lock: $(INSTALLED)
	$(BIN)/python -m pip install --quiet 'pip-tools>=7.6,<8'
	echo 'torch==$(TORCH)' > .venv/constraints.txt
	$(BIN)/pip-compile --quiet --upgrade --all-extras --strip-extras --allow-unsafe --no-header \
		--no-annotate --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
		--constraint .venv/constraints.txt --output-file .venv/lock.txt pyproject.toml
	{ echo '# Made by `make lock`. Everything the product and its tests need, for Python 3.11 to 3.13.'; \
		grep -E '^[a-z0-9]' .venv/lock.txt | grep -vE '^(cuda|nvidia|triton|frugal-gateway)' \
		| sed -E 's/^(torch==[0-9.]+)\+[a-z0-9]+/\1/'; } > requirements.lock

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
