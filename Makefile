# One habit, one command. `make` alone lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory
# Processes come by the dozen: without bytecode each would compile torch and all else again, for seconds.
unexport PYTHONDONTWRITEBYTECODE

CYCLONEDX := cyclonedx-bom==7.5.0
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up
PACKAGES := aggregation schemas backends learning producers stream_apps fluvial
SOURCES = $(wildcard $(PACKAGES) tests benchmarks)
# The first of these that is there and fits; `make setup PYTHON=/path/to/python` chooses another.
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3,$(shell command -v $(name) 2>/dev/null)))
ARGS ?=
# Pythons that are not the environment's, and an environment for each with what the fold needs.
PYTHONS_AGAIN ?= $(shell $(BIN)/python -m tests.interpreters)
AGAIN := cramjam cryptography fastavro msgspec numba numpy rfc8785 safetensors
# More than cores: a test of the real stack waits for a third of its time.
PROCESSES ?= 3
SEEDS ?= 20000
RECORDS ?= 100000
SEED ?= 1
SECONDS ?= 60

.PHONY: help setup demo test test-long twins simulate mutants fuzz fuzz-records fuzz-decoder vectors vectors-again fold-again check verify format bench peers docs docs-serve lock sbom clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## the virtual environment .venv with the fluvial command in it
	@:

$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' || { \
	  echo "Fluvial needs Python 3.11 or 3.12, found: $$($(PYTHON) --version 2>&1 || echo none)" >&2; \
	  echo "hint: make setup PYTHON=/path/to/python3.11   (Debian, Ubuntu: sudo apt install python3.11-venv)" >&2; \
	  exit 4; }
	@echo "setup: $(VENV) from $(PYTHON)"
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "hint: the venv module is missing; Debian, Ubuntu: sudo apt install python3-venv" >&2; exit 2; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement infra/uv.txt
	@echo "setup: installing the locked packages (several GB the first time, most of it torch)"
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip sync --require-hashes requirements.lock
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $(STAMP)
	@echo "setup: done, the command is $(BIN)/fluvial"

demo: setup ## train, attack and audit a federation here; options in ARGS="..."
	@$(BIN)/fluvial demo $(ARGS)

test: setup ## every test, PROCESSES=3 at a time, each process with its own Kafka and object store; options in ARGS="..."
	@$(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist loadscope $(ARGS)

test-long: setup ## what is long by nature: minutes of chaos, thousands of seeds, every mutant (about an hour)
	@$(BIN)/python -m pytest -m long $(ARGS)

twins: setup ## the kernels' tests once more without the compiler: the source itself is held against the twins
	@NUMBA_DISABLE_JIT=1 $(BIN)/python -m pytest -q tests/unit/aggregation/codecs/test_kernels.py tests/unit/aggregation/codecs/test_codecs.py tests/unit/aggregation/codecs/test_values.py \
	  tests/unit/aggregation/fold/test_fold.py tests/unit/aggregation/fold/test_sums.py tests/unit/aggregation/fold/test_histories.py \
	  tests/unit/aggregation/server/test_merge.py tests/unit/aggregation/server/test_passes.py tests/unit/aggregation/merges/test_merges.py \
	  tests/unit/aggregation/optimizers/test_optimizers.py

simulate: setup ## SEEDS=20000 simulated schedules of faults, the invariants checked after each
	@$(BIN)/python -m tests.simulation --seeds $(SEEDS) $(ARGS)

mutants: setup ## take one safeguard away at a time: the simulator has to notice each
	@$(BIN)/python -m tests.simulation.mutants $(ARGS)

fuzz: setup ## RECORDS=100000 mutated records from SEED=1 beside honest ones, through the real pipeline
	@$(BIN)/python -m tests.fuzz.run --records $(RECORDS) --seed $(SEED) $(ARGS)

fuzz-records: setup ## RECORDS=100000 mutated records and certificates from SEED=1: every reader of them has to agree
	@$(BIN)/python -m tests.fuzz.records --records $(RECORDS) --seed $(SEED) $(ARGS)

fuzz-decoder: setup ## SECONDS=60 of coverage-guided bytes for the decoder and the envelope
	@$(BIN)/python -c 'import atheris' 2>/dev/null || \
	  VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --only-binary atheris "atheris>=2.3" || { \
	  echo "atheris has no wheel for $$($(BIN)/python --version) on $$(uname -sm): the decoder is not fuzzed" >&2; \
	  exit 4; }
	@mkdir -p build && PYTHONPATH=. $(BIN)/python tests/fuzz/fuzz_decoder.py -artifact_prefix=build/ \
	  -max_total_time=$(SECONDS) -max_len=16384 -print_final_stats=1 $(ARGS)

vectors: setup ## write schemas/vectors and the tables of schemas/README.md from the code
	@$(BIN)/python -m tests.vectors $(ARGS)

vectors-again: RUN = -m tests.vectors --check
vectors-again: setup ## the vectors on other Pythons, PYTHONS_AGAIN="/path/to/python ...": are they the same
	@$(again)

# The loops as they are written: compiling them would take most of the time. NUMBA_DISABLE_JIT=0 compiles.
fold-again: RUN = -m tests.golden.fold_again
fold-again: export NUMBA_DISABLE_JIT ?= 1
fold-again: setup ## the recorded logs folded and merged on other Pythons, PYTHONS_AGAIN="...": are they the same
	@$(again)

# RUN on each of PYTHONS_AGAIN. In CI there has to be one.
define again
if [ -z "$(PYTHONS_AGAIN)" ]; then \
  echo "$@: no second Python here; name one: make $@ PYTHONS_AGAIN=/path/to/python"; [ -z "$${CI:-}" ] || exit 4; fi; \
for python in $(PYTHONS_AGAIN); do \
  folder=build/again/$@-$$($$python -c 'import platform; print(platform.python_version())'); \
  $(BIN)/uv venv --quiet --clear --python $$python $$folder; \
  $(BIN)/uv pip install --quiet --python $$folder/bin/python --constraint <(sed 's/ *\\$$//; /^ *--hash/d' requirements.lock) $(AGAIN); \
  PYTHONPATH=. $$folder/bin/python $(RUN) || { echo "$@: not the same on $$python" >&2; exit 1; }; \
  echo "$@: the same on $$($$folder/bin/python --version)"; \
done
endef

check: verify twins fold-again test ## what CI runs: format, lint, types, import chain, a second Python, tests

verify: setup ## the part of check that runs nothing
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/mypy

format: setup ## let ruff format and mend what it can
	@$(BIN)/ruff format $(SOURCES)
	@$(BIN)/ruff check --fix $(SOURCES)

bench: setup ## print the benchmark figures
	@for name in import_time kernels passes layout ingest live latency edges recovery snapshots audit observing export console defences merges; do echo "== benchmarks/$$name.py"; \
	  PYTHONPATH=. $(BIN)/python benchmarks/$$name.py $(ARGS); done

peers: setup ## Fluvial beside Flower and NVFlare, installed from the package index into the cache; options in ARGS="..."
	@PYTHONPATH=. $(BIN)/python benchmarks/peers.py $(ARGS)

docs: setup ## build the documentation site into build/site; a dead link or anchor ends it
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict $(ARGS)
	@echo "docs: build/site/index.html"

docs-serve: setup ## the same on a local port, built again when a page changes
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve $(ARGS)

lock: setup ## resolve the dependencies anew into requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement infra/uv.txt
	@$(BIN)/uv pip compile pyproject.toml --extra all --extra dev --extra docs --extra tracking --universal --python-version 3.11 --upgrade \
	  --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --output-file requirements.lock

sbom: setup ## build/sbom.json: all that Fluvial runs, as CycloneDX, with hashes
	@mkdir -p build
	@$(BIN)/uv tool run --quiet --from "$(CYCLONEDX)" cyclonedx-py requirements requirements.lock --pyproject pyproject.toml \
	  --output-reproducible --output-format JSON --output-file build/sbom.json
	@$(BIN)/python -m infra.sbom build/sbom.json

clean: ## remove the environment and caches (not .fluvial: `fluvial down --delete-data` does)
	@rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
