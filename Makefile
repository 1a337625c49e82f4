# make demo | make test | make lint | make real-knee | make bench | make peers: each sets up everything that it needs, once.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
INSTALL := -m pip --disable-pip-version-check install --quiet -c constraints.txt
PIP := $(BIN)/python $(INSTALL)
PEERS := .venv-peers
KNEES ?= ../shared/data

.PHONY: demo test lint real-knee bench peers setup clean
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

# The figures of docs/performance.md that need no GPU, but for the peers.
BENCH := runs/bench
bench: $(READY)
	test -f $(BENCH)/exams.csv || $(BIN)/kneessl phantom $(BENCH) --exams 24 --acl 0.5 --seed 0
	$(BIN)/kneessl bench $(BENCH) --preset thesis --pretrain.batch 2
	$(BIN)/kneessl bench $(BENCH) --preset thesis --of finetune
	$(BIN)/kneessl bench $(BENCH) --preset thesis --of predict
	$(BIN)/python benchmarks/speed_ablation.py --rounds 5
	$(BIN)/python benchmarks/forward_forms.py --rounds 5
	$(BIN)/python benchmarks/scale.py --repeats 2 --rounds 25

peers: $(PEERS)/.ready
	$(PEERS)/bin/python benchmarks/peers/peers.py

$(PEERS)/.ready: pyproject.toml constraints.txt benchmarks/peers/requirements.txt
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python $(INSTALL) "torch==2.13.0"
	$(PEERS)/bin/python $(INSTALL) -e .
	$(PEERS)/bin/python $(INSTALL) --no-deps -r benchmarks/peers/requirements.txt
	touch $@

clean:
	rm -rf $(VENV) $(PEERS) runs
