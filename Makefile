# Two commands matter: `make demo` and `make test`. Both build their own virtual environment on first use.
# `make help` lists all, and what `make demo` can be told.

# The newest Python that is supported and runs here; PYTHON=python3.11 takes another one.
SUPPORTED := 3.13 3.12 3.11
PYTHON ?= $(firstword $(foreach version,$(SUPPORTED),$(shell python$(version) -c 'import sys; print(sys.executable)' 2>&-)))
VENV ?= .venv
CONFIG ?= configs/demo.json
# DATA=<path or URL> runs the demo on your own labelled volume: OME-NGFF, zarr, N5 and precomputed are read in place, HDF5 and
# TIFF are converted (datasets `raw` and `labels`, voxel size in the metadata).
DATA ?=
# RUN=<folder> says where the run goes, CONFIG=<file> which config it is, SET="key=value …" what to change in it.
RUN ?= runs/demo$(if $(DATA),-$(basename $(notdir $(patsubst %/,%,$(DATA)))))
SET ?=
# PYTEST_ARGS="-k kinds -x" are options of pytest for `make test`.
PYTEST_ARGS ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo help test slow lint format docs clean

demo: $(STAMP)
	$(BIN)/python workflows/run_all.py $(CONFIG) --set "run_directory=$(RUN)" $(if $(DATA),--data "$(DATA)") $(foreach pair,$(SET),--set $(pair))

help:
	@echo 'make demo    the whole pipeline on a synthetic volume; again, it continues where it stopped'
	@echo '               DATA=/data/mine.zarr   on your own labelled volume: a path or URL'
	@echo '               RUN=runs/mine          where everything goes'
	@echo '               CONFIG=configs/vnc.json'
	@echo '               SET="cluster.workers=4 student.training.iterations=2000"   values of the config'
	@echo 'make test    format, lint, types, tests; make slow: those that take minutes'
	@echo 'make lint    without tests; make format: mend what can be mended'
	@echo 'make docs    docs/CONFIG.md and docs/API.md anew'
	@echo 'make clean   delete runs/ and what builds leave'
	@echo 'Of all: VENV=.venv, the virtual environment; PYTHON=python3.11, the Python that it is made with'

test: $(STAMP) lint
	$(BIN)/python .ci/test.py $(PYTEST_ARGS)

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

# Each Python has its own constraints: other versions of gunpowder and zarr.
$(STAMP): setup.py $(wildcard constraints-*.txt)
	@test -x $(BIN)/python || test -n "$(PYTHON)" || { echo "there is no Python of $(SUPPORTED)" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): about 160 packages, 2.7 GB on disk (more with CUDA); this takes minutes, in silence"
	$(BIN)/python -m pip install --quiet --editable ".[test]" \
		--constraint constraints-$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])').txt
	touch $(STAMP)

clean:
	rm -rf runs build *.egg-info .pytest_cache .mypy_cache .ruff_cache
