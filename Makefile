# `make help` lists what there is; each target sets up everything that it needs, once.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
INSTALL := -m pip --disable-pip-version-check install --quiet -c constraints.txt
PIP := $(BIN)/python $(INSTALL)
PEERS := .venv-peers
KNEES ?= ../shared/data

.PHONY: help demo test test-quick lint format real-knee bench peers setup clean
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## the virtual environment .venv, with the pinned versions; the other targets make it when it is missing

$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "kneessl needs Python 3.11; name yours with: make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) "torch==2.13.0"
	$(PIP) -e ".[dev,export,reader]"
	touch $@

demo: $(READY) ## the whole way on synthetic knees, in minutes
	$(BIN)/kneessl demo

test: lint ## lint and every test
	$(BIN)/python -m pytest

test-quick: $(READY) ## the tests that neither train nor start a process, a browser or an archive: for while you write
	$(BIN)/python -m pytest -m "not slow"

lint: $(READY) ## ruff and mypy: style, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## mend what ruff can mend: imports, spaces, line breaks
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

real-knee: $(READY) ## the benchmark on real knees; KNEES=FOLDER names the data (benchmarks/real_knee.py says which)
	$(BIN)/python benchmarks/real_knee.py $(KNEES)

BENCH := runs/bench
bench: $(READY) ## the figures of docs/performance.md that need no GPU
	test -f $(BENCH)/exams.csv || $(BIN)/kneessl phantom $(BENCH) --exams 24 --acl 0.5 --seed 0
	$(BIN)/kneessl bench $(BENCH) --preset thesis --pretrain.batch 2
	$(BIN)/kneessl bench $(BENCH) --preset thesis --of finetune
	$(BIN)/kneessl bench $(BENCH) --preset thesis --of predict
	$(BIN)/python benchmarks/speed_ablation.py --rounds 5
	$(BIN)/python benchmarks/forward_forms.py --rounds 5
	$(BIN)/python benchmarks/scale.py --repeats 2 --rounds 25

peers: $(PEERS)/.ready ## beside lightly's BYOL and torchvision, in a virtual environment of its own
	$(PEERS)/bin/python benchmarks/peers/peers.py

$(PEERS)/.ready: pyproject.toml constraints.txt benchmarks/peers/requirements.txt
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python $(INSTALL) "torch==2.13.0"
	$(PEERS)/bin/python $(INSTALL) -e .
	$(PEERS)/bin/python $(INSTALL) --no-deps -r benchmarks/peers/requirements.txt
	touch $@

clean: ## delete the virtual environments and runs/
	rm -rf $(VENV) $(PEERS) runs
