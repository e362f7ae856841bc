# Everything a newcomer types. `make` alone lists it.
PYTHON ?= python3
BIN := .venv/bin
QUESTION := What is the capital of France? Answer in one sentence.
seconds_since = $$(( $$(date +%s) - $(1) ))

# Each process of an engine would compile vLLM anew: 12 s a start.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install serve demo test check rules serving-tests http-tests science-tests remaining-tests prove lock clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: ## set up .venv, or finish setting it up (done by the others too)
	@$(PYTHON) scripts/install.py

serve: install ## start the sample model, ask it one question, serve it until Ctrl-C
	@$(BIN)/headrace serve smollm2 --ask "$(QUESTION)"

demo: install ## the same, then stop
	@$(BIN)/headrace serve smollm2 --ask "$(QUESTION)" --once

test: ## install, then every test but the long evidence and those that need a GPU
	@start=$$(date +%s); $(MAKE) --no-print-directory install && \
	installed=$$(date +%s) && { \
	$(MAKE) --no-print-directory --jobs=2 --output-sync=target engine-tests fast-tests computing-tests; code=$$?; \
	echo "make test: $(call seconds_since,$$start) s, of which tests $(call seconds_since,$$installed) s"; \
	exit $$code; }

fetch-%:
	@$(BIN)/headrace fetch $*

check: install ## format, lint, types, import rules, fast tests
	@start=$$(date +%s); \
	$(MAKE) --no-print-directory --jobs=4 --output-sync=target serving-tests http-tests science-tests remaining-tests rules && \
	echo "make check: $(call seconds_since,$$start) s"

rules:
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/lint-imports --no-logo
	@PATH="$(BIN):$$PATH" $(BIN)/pyright

FAST := -q -m "not slow and not prove and not gpu"
QUICK := $(FAST) --hypothesis-profile=quick
# Half of what tests/deployments takes.
HTTP := $(wildcard tests/deployments/test_[h-z]*.py)
SERVING := tests/autoscaling tests/deployments tests/k8s tests/routing
SCIENCE := tests/benchmarks tests/compress
SLOW := -q --durations=10 -m "slow and not prove and not gpu"
# Slow ones that compute for the most part, or start no engine: run while engines of others start and wait.
COMPUTING := tests/compress tests/headrace/test_fetching_hub.py tests/e2e/test_distil.py tests/e2e/test_compress.py \
	tests/deployments/test_batch_kills.py

# Each of these imports what its folders need and the others don't: Ray and clients; torch and scipy; neither.
serving-tests:
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(QUICK) $(SERVING) $(addprefix --ignore=,$(HTTP))

http-tests:
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(QUICK) $(HTTP)

science-tests:
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(QUICK) $(SCIENCE)

remaining-tests:
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(QUICK) $(addprefix --ignore=,$(SERVING) $(SCIENCE))

# Threads that wait for each other sleep: those that spin would take the cores from whatever else runs.
engine-tests: fetch-tiny fetch-smollm2
	@OMP_WAIT_POLICY=passive $(BIN)/python -m pytest $(SLOW) $(addprefix --ignore=,$(COMPUTING))

# On one core, while the tiny model is trained on the other.
fast-tests: fetch-smollm2
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(FAST)

computing-tests: fetch-tiny fetch-smollm2
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SLOW) $(COMPUTING)

prove: install ## the long evidence: kills, soaks, benchmarks (hours; ONLY=... for parts); JSON under docs/evidence
	@$(BIN)/python scripts/prove.py $(ONLY)

lock: install ## solve the versions of constraints.txt anew
	@$(BIN)/python scripts/lock.py

clean: ## remove .venv and the tools' caches (models stay in Headrace's own cache folder)
	@rm -rf .venv .pytest_cache .ruff_cache .hypothesis .import_linter_cache dist
	@find $$(git ls-files '*.py' | xargs -n1 dirname | sort -u) -maxdepth 1 -name __pycache__ -exec rm -rf {} +
