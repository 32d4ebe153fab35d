# `make sweep` and `make test` need only Python 3.11-3.13. Both create the environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# With these flags `make sweep` takes about 6 minutes on 2 cores without a GPU.
SWEEP_FLAGS ?= --concurrency 2 --duration 3s --warmup 500ms
# Simulated studies behind each row of `make coverage`.
STUDIES ?= 400
# Length of `make soak`.
MINUTES ?= 30
STAMP := $(VENV)/.locked

.PHONY: help .venv sweep test lint lint.js bench coverage faults kills soak example picture lock audit clean

help: ## List the targets
	@grep -hE '^[a-z.]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

.venv: $(STAMP) ## Create the locked environment; it is renewed when the lock changes

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or sys.exit("triton-bench needs Python 3.11, 3.12 or 3.13 (Locust needs 3.11, the embedded Triton has stubs up to 3.13); this is %d.%d. Name another with: make PYTHON=python3.12 ..." % v)'
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement requirements.lock
	@# torch installs the packages that its build needs (with or without CUDA), in the locked versions. It goes without hashes: each build has its own, and a constraint with hashes would ask for one of every package.
	sed -n '/^[A-Za-z0-9]/s/ *\\$$//p' requirements.lock > $(VENV)/constraints.txt
	$(BIN)/python -m pip install --quiet torch==2.13.0 --constraint $(VENV)/constraints.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

sweep: $(STAMP) ## Start a local Triton, serve the ViT, sweep batch 1,8,32 x instances 1,2, write a report
	$(BIN)/bench sweep --batch 1,8,32 --instances 1,2 --protocol http,grpc $(SWEEP_FLAGS)

test: $(STAMP) ## Run all tests, against a real Triton
	$(BIN)/bench setup perf-analyzer --quiet
	@# Most tests wait more than they compute, so four run at the same time on two cores, and a process that is done takes tests from the others. Tests marked `alone` measure exactly and run one at a time.
	@# Exit code 5 means that no test was selected, as with TEST_FLAGS="-k something". It is not a failure here.
	$(BIN)/python -m pytest -m "not alone" -n 4 --dist worksteal --durations=10 $(TEST_FLAGS) || [ $$? -eq 5 ]
	$(BIN)/python -m pytest -m alone --durations=10 $(TEST_FLAGS) || [ $$? -eq 5 ]

lint: $(STAMP) lint.js ## Run ruff, mypy --strict, the check that imports point downward, and the linter of the page's scripts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lint.js: ## Biome over the scripts of the report's page; needs Node (npm run format mends most of it)
	@if ! command -v npm >/dev/null; then \
	  echo "The scripts of the report's page are not linted: Node is missing (install Node 20 or later)."; \
	elif ! npm ci --silent --prefer-offline --no-audit --no-fund; then \
	  echo "The scripts of the report's page are not linted: npm ci cannot install the linter (see above)."; \
	else npm run --silent lint; fi

bench: $(STAMP) ## Measure the suite itself: generator, pacing, overhead
	$(BIN)/python -m benchmarks

coverage: $(STAMP) ## Hold the suite's claims against simulated servers, write docs/results/coverage.md
	$(BIN)/python -m benchmarks.coverage --studies $(STUDIES)

faults: $(STAMP) ## Run whole sweeps against every fault of the table (an hour), write docs/results/faults.md
	$(BIN)/python -m benchmarks.faults

kills: $(STAMP) ## End every verb at random moments (half an hour), write docs/results/kills.md
	$(BIN)/python -m benchmarks.kills

soak: $(STAMP) ## One sweep of MINUTES=30: does anything grow? Writes docs/results/soak.md
	$(BIN)/python -m benchmarks.soak --minutes $(MINUTES)

example: $(STAMP) ## Renew reports/example with a small real run of five minutes
	$(BIN)/bench sweep --batch 1,4 --instances 1,2 --concurrency 1,4 --protocol http,grpc --repeats 3 \
	  --duration 4s --warmup 500ms --slo p90=300ms --name example --force
	rm -f reports/example/*.log

picture: $(STAMP) ## Renew the README's picture of reports/example; needs chromium and chromedriver
	$(BIN)/python -m benchmarks.screenshot reports/example/report.html docs/report.png

lock: ## Renew requirements.lock with the hashes of all its files (needs uv)
	uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --no-header --no-annotate \
	  --generate-hashes --no-emit-package torch --no-emit-package perf-analyzer --output-file requirements.lock

audit: $(STAMP) ## List the licence of each package, and known vulnerabilities (needs the network)
	$(BIN)/python -m benchmarks.licences
	@$(PYTHON) -m venv build/audit && build/audit/bin/pip install --quiet pip-audit || { \
	  echo "make audit: pip-audit cannot be installed; it needs a package index." >&2; exit 4; }
	@build/audit/bin/python -c 'import urllib.request; urllib.request.urlopen("https://pypi.org/pypi/pip/json", timeout=20)' 2>/dev/null || { \
	  echo "make audit: vulnerabilities were not looked up; the database at https://pypi.org is out of reach. Run it where there is network." >&2; exit 4; }
	build/audit/bin/pip-audit --path $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

clean: ## Remove the environment and the files of tests and tools
	rm -rf $(VENV) node_modules build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
