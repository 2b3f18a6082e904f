# Each target builds what it needs: `make test` works on a fresh clone.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
PYTEST = $(BIN)/python -m pytest --numprocesses=2 --dist=loadscope --no-loadscope-reorder

.PHONY: quickstart test test-fast test-matrix notebooks faults check-statistics lint docs bench clean

quickstart: $(VENV)/installed-runtime
	$(BIN)/vtcav quickstart

# Tests and the commands that they start share a cache of compiled programs, which later runs use too.
test test-fast: export JAX_COMPILATION_CACHE_DIR = $(abspath $(VENV))/compiled
test test-fast: export JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES = -1
test test-fast: export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS = 0
# Many tests spend most of their time compiling. XLA's own passes stay as for users, but LLVM optimises nothing, and fusions
# are written by XLA's older emitter: a quarter of the time. Networks are compared with their references, results of
# shared passes with those of single ones, and the tutorial runs, in code that is written as for users; so do tests that
# spend their time running networks.
CODE_OF_USERS = tests/test_tutorial.py tests/models/test_network_parity.py tests/models/test_parity.py \
	tests/models/layers tests/evaluation/world_benchmark tests/evaluation/faithfulness/test_metrics.py \
	tests/evaluation/discovery_benchmark/test_discovery_benchmark.py tests/attribution/removal/test_optimised_masks.py \
	tests/faults/test_processes.py tests/worlds/test_gates_and_dots.py tests/attribution/test_synthesis.py \
	tests/tcav/test_planted_causes.py tests/discovery/test_importance.py
QUICK_CODE = --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false \
	--xla_llvm_disable_expensive_passes=true --xla_cpu_parallel_codegen_split_count=1

test: $(VENV)/installed-test
	XLA_FLAGS="$(QUICK_CODE)" $(PYTEST) $(CODE_OF_USERS:%=--ignore=%)
	XLA_FLAGS=--xla_backend_optimization_level=1 $(PYTEST) $(CODE_OF_USERS)

test-fast: $(VENV)/installed-test
	XLA_FLAGS="$(QUICK_CODE)" $(PYTEST) -m "not slow"

# Core tests on each Python and JAX that the package allows and the registry has; about a minute per pair.
test-matrix: $(BIN)/python
	$(BIN)/python -m tests.version_matrix

# Executes every notebook of examples/, without network, and compares its cells with those of its script.
notebooks: export JAX_COMPILATION_CACHE_DIR = $(abspath $(VENV))/compiled
notebooks: $(VENV)/installed-test
	$(BIN)/python -m pytest tests/test_examples.py

# Kills, faulty entries, fuzzed input and concurrent commands.
faults: export JAX_COMPILATION_CACHE_DIR = $(abspath $(VENV))/compiled
faults: export JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES = -1
faults: export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS = 0
faults: export XLA_FLAGS = $(QUICK_CODE)
faults: $(VENV)/installed-test
	$(BIN)/python -m tests.faults.run --write

# Level, power and coverage of the tests and intervals, with few draws.
check-statistics: $(VENV)/installed-test
	$(BIN)/python -m benchmarks.statistics --small

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# Strict: a broken link or an undocumented public name is an error.
docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(VENV)/installed-test
	$(BIN)/python -m benchmarks.forward
	$(BIN)/python -m benchmarks.gradients
	$(BIN)/python -m benchmarks.decode
	$(BIN)/python -m benchmarks.tcav
	$(BIN)/python -m benchmarks.attribution
	$(BIN)/python -m benchmarks.pyramid
	$(BIN)/python -m benchmarks.parity

clean:
	rm -rf $(VENV)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed-runtime: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) --editable .
	@touch $@

$(VENV)/installed-test: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) --editable '.[test]'
	@touch $@ $(VENV)/installed-runtime

$(VENV)/installed-docs: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) --editable '.[docs]'
	@touch $@ $(VENV)/installed-runtime
