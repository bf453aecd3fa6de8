# make demo    install, then match and reconstruct the example scene, draw it and write its report
# make test    install with the development tools, then run all tests: about five minutes on two cores
# make check   the quick tests, in less than a minute
# make lint    style and types
# make man     regenerate the man pages from the program's help

PYTHON ?= python3
VENV ?= .venv
DEMO ?= romacli-out/example
# Tests run in two processes of one thread each: 5 GB.
PROCESSES ?= 2
THREADS ?= 1
BIN := $(VENV)/bin
QUICK := $(addprefix tests/,geometry images pairs keypoints store test_layers.py test_docs.py test_names.py test_words.py)

.PHONY: demo test check lint man
.DELETE_ON_ERROR:

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("romacli needs Python 3.11 or newer: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[report]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/romacli match examples/scene/images --output $(DEMO)
	$(BIN)/romacli reconstruct examples/scene/images --output $(DEMO)
	$(BIN)/python examples/draw_overview.py examples/scene/images $(DEMO) $(DEMO)/overview.jpg
	$(BIN)/romacli report $(DEMO)
	@echo "hloc files: $(DEMO)/features.h5 and matches.h5; COLMAP: $(DEMO)/database.db and $(DEMO)/sparse/0"
	@echo "look at $(DEMO)/report.html and $(DEMO)/overview.jpg, the first image of the README"

test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=$(THREADS) $(BIN)/python -m pytest --numprocesses=$(PROCESSES) --dist=loadfile

check: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(QUICK)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/mypy

man: $(VENV)/.installed-dev
	$(BIN)/python -m romacli.cli.manual man
