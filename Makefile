# make demo | make test | make lint | make real-knee: each sets up everything that it needs, once.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt
KNEES ?= ../shared/data

.PHONY: demo test lint real-knee setup clean
setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "kneessl needs Python 3.11; name yours with: make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) "torch==2.13.0"
	$(PIP) -e ".[dev,export,reader]"
	touch $@

demo: $(READY)
	$(BIN)/kneessl demo

test: lint
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

real-knee: $(READY)
	$(BIN)/python benchmarks/real_knee.py $(KNEES)

clean:
	rm -rf $(VENV) runs
