# Two commands matter: `make demo` and `make test`. Both build their own virtual environment on first use.
# CONTRIBUTING.md says when the others are of use.

# Python 3.11 is the tested version.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
CONFIG ?= configs/demo.json
# DATA=<path or URL> runs the demo on your own labelled volume: OME-NGFF, zarr, N5 and precomputed are read in place, HDF5 and
# TIFF are converted (datasets `raw` and `labels`, voxel size in the metadata).
DATA ?=
RUN ?= runs/demo$(if $(DATA),-$(basename $(notdir $(patsubst %/,%,$(DATA)))))
SET ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test slow lint format docs clean

demo: $(STAMP)
	$(BIN)/python workflows/run_all.py $(CONFIG) --set "run_directory=$(RUN)" $(if $(DATA),--data "$(DATA)") $(foreach pair,$(SET),--set $(pair))

test: $(STAMP) lint
	$(BIN)/python -m pytest -m "not slow"

slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m codespell_lib

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python .ci/wrap_docs.py

docs: $(STAMP)
	$(BIN)/python -m pipeline.config docs > docs/CONFIG.md
	$(BIN)/python -m pipeline.api_reference > docs/API.md

$(STAMP): setup.py constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[test]"
	touch $(STAMP)

clean:
	rm -rf runs build *.egg-info .pytest_cache .mypy_cache .ruff_cache
