# Each target makes .venv and installs what it needs; a machine needs nothing but Python 3.10 or newer.
# The browser tests use the system's Chromium (Debian, Ubuntu: apt install chromium) and skip without it.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-long check format clean

demo: .venv/app  ## serve the page on http://127.0.0.1:7860
	$(BIN)/python -m ecmnet_app.gradio

test: .venv/dev  ## everything but the long tests, in two processes of one thread each; about 11 minutes on two shared cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-long: .venv/dev  ## the long tests
	$(BIN)/python -m pytest -m long

check: .venv/dev  ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv build dist *.egg-info

.venv/app: pyproject.toml
	@echo "Installing into .venv, which takes a few minutes the first time"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/dev: .venv/app
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@
