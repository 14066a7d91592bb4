# Two commands on a machine with Python 3.11 or later and make:
#   make demo   sets up a virtual environment and runs the main job: cube -> unmix -> report
#   make test   sets up and runs the tests
PYTHON  ?= python3
VENV    ?= .venv
# Fast tests by default; `make test MARKERS="not gpu"` runs everything that a machine without a GPU can.
MARKERS ?= not slow and not long and not gpu and not cluster and not emulated and not bench and not examples
DEMO    ?= demo
# What is tested with the oldest versions: the parts that meet other packages most.
OLDEST  ?= tests/io tests/blocks tests/metrics tests/test_cube.py tests/test_result.py tests/test_schema.py

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test lint types format docs gallery dist test-oldest bench clean help

help:
	@sed -n '2,3s/^# *//p' Makefile
	@echo "make docs | gallery | dist | test-oldest | lint | types | format | bench | clean"

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed, this is " + sys.version) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(PIP) -e '.[io]'
	@touch $@

$(VENV)/.test: pyproject.toml tests/constraints.txt | $(BIN)/python
	$(PIP) -e '.[io,cluster,gp,networks,test]' -c tests/constraints.txt
	@touch $@ $(VENV)/.demo

$(VENV)/.docs: pyproject.toml | $(BIN)/python
	$(PIP) -e '.[docs]'
	@touch $@

demo: $(VENV)/.demo
	$(BIN)/scalehsi demo $(DEMO) --overwrite

# One thread of BLAS in each process of pytest: the processes fill the cores, and threads that wait for one cost ten times.
test: $(VENV)/.test
	OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile -m "$(MARKERS)" $(PYTEST)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python -m tests.docstrings

types: $(VENV)/.test
	$(BIN)/mypy

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The pages, in build/docs/index.html. Needs no network; a warning, or a link to nothing, is an error.
docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -b html -W --keep-going -q -d build/doctrees docs build/docs

# The figures of the gallery, drawn again by the examples. They are stored in docs/gallery.
gallery: $(VENV)/.test
	OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python docs/draw_gallery.py

# Wheel and source archive in dist/, checked; the wheel, in an empty environment without a compiler, runs the demo.
dist: | $(BIN)/python
	rm -rf dist build/empty build/wheel-demo
	$(PIP) build twine
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m twine check --strict dist/*
	$(PYTHON) -m venv build/empty
	build/empty/bin/python -m pip install --quiet --disable-pip-version-check --only-binary :all: "$$(ls dist/*.whl)[io]"
	cd build && env -i HOME="$$PWD" PATH=/nowhere NUMBA_CACHE_DIR="$${NUMBA_CACHE_DIR:-$$PWD/numba}" \
	  empty/bin/scalehsi demo wheel-demo

# The oldest versions of everything that pyproject.toml allows, in an environment of their own.
test-oldest:
	$(PYTHON) -m venv build/oldest
	build/oldest/bin/python -m pip install --quiet --disable-pip-version-check -e . -r tests/oldest.txt
	OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 build/oldest/bin/python -m pytest -n auto --dist loadfile -m "$(MARKERS)" \
	  $(OLDEST) $(PYTEST)

bench: $(VENV)/.test
	$(BIN)/python -m tests.bench.corners
	$(BIN)/python -m tests.bench.nmf

clean:
	find scalehsi tests -name '*.nb[ci]' -delete
	rm -rf $(VENV) $(DEMO) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
