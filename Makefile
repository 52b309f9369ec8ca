# Thin: every target is a command that you can also run by hand. CI runs `make test`.
.DEFAULT_GOAL := help
PYTHON ?= python3

# uv comes from the PATH, else from PyPI into a directory of its own.
UV := $(shell command -v uv || echo .cache/uv/bin/uv)
RUN := .venv/bin
# What the machine lacks is said before anything is begun: hack/preflight.
NO_PYTHON = "missing: $(PYTHON), by which everything here runs (3.11 or newer): apt-get install python3 python3-venv"
PREFLIGHT = @command -v $(PYTHON) >/dev/null || { echo $(NO_PYTHON) >&2; exit 1; }; $(PYTHON) -m hack.preflight
# One more than CI has processors: tests often wait for others. tests/distribution.py says which process does what.
PARALLEL := --numprocesses 3
# Tests start Python hundreds of times: whatever the environment says, what they import is compiled once.
export PYTHONDONTWRITEBYTECODE =
ifneq ($(VERBOSE),)
PYTEST_FLAGS += -v
endif

.PHONY: help
help:  ## Show the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/.complete: pyproject.toml uv.lock
	$(PREFLIGHT) setup
	@test -x $(UV) || command -v uv >/dev/null || { echo "installing uv"; \
	  $(PYTHON) -m venv .cache/uv && .cache/uv/bin/pip install -qq --retries 1 --disable-pip-version-check uv; } \
	  || { $(PYTHON) -m hack.preflight --after python; exit 1; }
	$(UV) sync --locked --all-extras --quiet || { $(PYTHON) -m hack.preflight --after python; exit 1; }
	@touch $@

# Before what takes minutes.
.PHONY: needs-demo needs-test
needs-demo:
	$(PREFLIGHT) demo
needs-test:
	$(PREFLIGHT) test

.PHONY: setup
setup: .venv/.complete  ## Install the development environment into .venv

.PHONY: servers
servers:
	$(PREFLIGHT) servers
	@$(PYTHON) -m hack.test_servers

.PHONY: cluster-binary
cluster-binary:
	@$(PYTHON) -m hack.cluster build >/dev/null || { $(PYTHON) -m hack.preflight --after go; exit 1; }

.PHONY: demo
demo: needs-demo setup  ## The main job, end to end, on a real cluster: from kubectl apply to messages between pods
	$(RUN)/python -m hack.demo

.PHONY: test
test: needs-test lint servers cluster-binary  ## Everything CI runs: lint, unit, database, runtime, chart, API server, cluster
	$(RUN)/pytest $(PARALLEL) $(PYTEST_FLAGS)

.PHONY: test-fast
test-fast: setup servers  ## What needs no cluster, on one version of PostgreSQL, in under two minutes
	$(RUN)/pytest -m "not cluster and not slow" -k "not (pg15 or pg16 or pg17)" $(PARALLEL) $(PYTEST_FLAGS)

.PHONY: test-isolation
test-isolation: setup servers  ## Attack it: hostile tenants, fuzzed calls, and what the catalog says
	$(RUN)/pytest tests/isolation $(PARALLEL) $(PYTEST_FLAGS)

.PHONY: chaos
chaos:  ## Break it, the next two, in half an hour (as root): docs/reliability.md
	@$(MAKE) --no-print-directory --keep-going chaos-bus chaos-operator

.PHONY: chaos-bus
chaos-bus: setup servers  ## All nemeses of the bus, alone and together, in 15 minutes (as root): bench/chaos.json
	PYTHONPATH=tests $(RUN)/python -m chaos --output bench/chaos.json --page docs/reliability.md $(CHAOS_FLAGS)

.PHONY: chaos-operator
chaos-operator: setup servers cluster-binary  ## The operator killed between its steps, Kubernetes broken, in 12 minutes: bench/chaos-operator.json
	PYTHONPATH=tests $(RUN)/python -m chaos.operators --output bench/chaos-operator.json --page docs/reliability.md

.PHONY: soak
soak: setup servers cluster-binary  ## An hour at half of the maximum, with faults: nothing lost, grown or left (as root): bench/soak.json
	@$(UV) sync --locked --all-extras --group bench --quiet
	PYTHONPATH=tests $(RUN)/python -m chaos.soak --output bench/soak.json --page docs/reliability.md \
	  --picture docs/images/soak.png $(SOAK_FLAGS)

.PHONY: bench-setup
bench-setup: setup
	@$(UV) sync --locked --all-extras --group bench --quiet
	@$(PYTHON) -m hack.test_servers bench

.PHONY: bench
bench: bench-setup  ## Measure beside Redis, NATS and pipecat (45 minutes, nothing else running): bench/, docs/images/
	$(RUN)/python -m benchmarks --output bench --plots docs/images

.PHONY: bench-quick
bench-quick: bench-setup  ## The same in under five minutes: shows that it works, not who is faster
	$(RUN)/python -m benchmarks --quick

.PHONY: bench-operator
bench-operator: setup servers cluster-binary  ## Measure the operator with 5,000 BusChannels over 20 databases (25 minutes): bench/operator.md
	$(RUN)/python -m benchmarks.operator_scale --output bench/operator.json

.PHONY: bench-busctl
bench-busctl: setup servers cluster-binary  ## Measure how quickly busctl answers on 500 channels (5 minutes): bench/busctl.json
	$(RUN)/python -m benchmarks.busctl --output bench/busctl.json --page docs/busctl.md

.PHONY: bench-pipecat
bench-pipecat: bench-setup  ## Measure what pipecat's workers gain with our backend (15 minutes): bench/pipecat.json
	$(RUN)/python -m benchmarks.pipecat --output bench/pipecat.json --page docs/how-to/pipecat.md

.PHONY: docs
docs: setup  ## Build the documentation's site into build/site
	$(RUN)/python -m hack.docs

.PHONY: pictures
pictures: setup  ## Draw busctl's terminal anew from real runs, in two minutes: docs/images/busctl-*.svg
	PYTHONPATH=tests $(RUN)/python -m hack.pictures

.PHONY: lint
lint: setup  ## Format, lint, types, import boundaries
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/mypy
	$(RUN)/lint-imports

.PHONY: format
format: setup  ## Format and fix what can be fixed
	$(RUN)/ruff format .
	$(RUN)/ruff check --fix .

.PHONY: release
release: setup  ## Build a release and show how it would be published; RELEASE_FLAGS=--publish does it: CONTRIBUTING.md
	$(RUN)/python -m hack.release $(RELEASE_FLAGS)

.PHONY: cluster
cluster:  ## Start the local cluster (CLUSTER=current uses the current kubeconfig context)
	$(PREFLIGHT) cluster
	$(PYTHON) -m hack.cluster up

.PHONY: cluster-down
cluster-down:  ## Stop the local cluster and leave nothing running
	$(PYTHON) -m hack.cluster down
