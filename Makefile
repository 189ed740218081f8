# Each target sets up all that it needs. `make demo` and `make test` are the two to know.

PYTHON ?= python3
VENV   ?= .venv
PY     := $(VENV)/bin/python

.PHONY: demo test check lint format bench bench-all notebooks wheel clean

demo: $(VENV)/.installed  ## train the sentence classifier; DATA=dir takes IMDB and GloVe from there
	$(PY) examples/sentiment.py $(if $(DATA),--data "$(DATA)")

test:  ## lint, types, and every test, in clean environments with and without the extras
	PYTHON="$(PYTHON)" .ci/run

check: $(VENV)/.developing  ## every test once, in this checkout: what one runs while working
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(PY) -m pytest -n auto

lint: $(VENV)/.developing  ## style, types and the direction of imports
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

format: $(VENV)/.developing
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: $(VENV)/.peers  ## fnflare beside PyTorch, JAX and autograd; ARGS="mlp tiny --seconds 3"
	$(PY) -m benchmarks.run $(ARGS)

bench-all: $(VENV)/.peers  ## times, first calls, memory and an unseen cell, as one table in out/performance.md
	$(PY) -m benchmarks.everything --markdown out/performance.md $(ARGS)

notebooks: $(VENV)/.developing  ## run the notebooks
	$(PY) -m pytest tests/test_notebooks.py

wheel: $(VENV)/.developing  ## build dist/*.whl
	$(PY) -m pip wheel --no-deps --wheel-dir dist .

clean:
	rm -rf $(VENV) build dist out .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp file for each set of extras, so that the second run starts at once. A change of
# pyproject.toml installs again.
$(PY):
	@$(PYTHON) -c 'import sys; sys.exit("fnflare wants Python 3.11 or newer; name one: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(PY)
	@echo 'installing fnflare[jit,train,io,notebooks] into $(VENV): a minute or so, once'
	@$(PY) -m pip install -qq --editable '.[jit,train,io,notebooks]'
	@touch $@

$(VENV)/.developing: pyproject.toml | $(PY)
	@echo 'installing fnflare[all] into $(VENV): a minute or so, once'
	@$(PY) -m pip install -qq --editable '.[all]'
	@touch $@

$(VENV)/.peers: pyproject.toml | $(PY)
	@echo 'installing fnflare[bench,jit] into $(VENV): a minute or so, once'
	@$(PY) -m pip install -qq --editable '.[bench,jit]'
	@touch $@
