# `make sweep` and `make test` need Python 3.11-3.13 and nothing else; both make the environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# At most 5 minutes on 2 cores without a GPU.
SWEEP_FLAGS ?= --concurrency 2 --duration 3s --warmup 500ms
STAMP := $(VENV)/.locked

.PHONY: help .venv sweep test lint bench example picture lock clean

help: ## What can be made
	@grep -hE '^[a-z.]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

.venv: $(STAMP) ## The locked environment; renewed when the lock changes

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or sys.exit("triton-bench needs Python 3.11, 3.12 or 3.13 (Locust needs 3.11, the embedded Triton has stubs up to 3.13); this is %d.%d. Name another with: make PYTHON=python3.12 ..." % v)'
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps --requirement requirements.lock
	@# torch brings what its build needs (CUDA libraries or not), held to the lock.
	$(BIN)/python -m pip install --quiet torch==2.13.0 --constraint requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

sweep: $(STAMP) ## Start a Triton here, serve the ViT, sweep batch 1,8,32 x instances 1,2, write a report
	$(BIN)/bench sweep --batch 1,8,32 --instances 1,2 --protocol http,grpc $(SWEEP_FLAGS)

test: $(STAMP) ## All tests, against a real Triton
	$(BIN)/bench setup perf-analyzer --quiet
	@# Most tests wait more than they compute, so three go at a time on two cores, and who is done takes over from the
	@# others; those that measure exactly get the cores for themselves.
	@# 5: nothing was selected, as with TEST_FLAGS="-k something".
	$(BIN)/python -m pytest -m "not alone" -n 3 --dist worksteal --durations=10 $(TEST_FLAGS) || [ $$? -eq 5 ]
	$(BIN)/python -m pytest -m alone --durations=10 $(TEST_FLAGS) || [ $$? -eq 5 ]

lint: $(STAMP) ## ruff, mypy --strict, and that imports point downward
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP) ## Measure the suite itself: generator, pacing, overhead
	$(BIN)/python -m benchmarks

example: $(STAMP) ## Renew reports/example with a small real run of five minutes
	$(BIN)/bench sweep --batch 1,4 --instances 1,2 --concurrency 1,4 --protocol http,grpc --repeats 3 \
	  --duration 4s --warmup 500ms --slo p90=300ms --name example --force
	rm -f reports/example/*.log

picture: $(STAMP) ## Renew the README's picture of reports/example; needs chromium and chromedriver
	$(BIN)/python -m benchmarks.screenshot reports/example/report.html docs/report.png

lock: ## Renew requirements.lock (needs uv)
	uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --no-header --no-annotate \
	  --no-emit-package torch --no-emit-package perf-analyzer --output-file requirements.lock

clean: ## Remove the environment and what tests and tools left
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
