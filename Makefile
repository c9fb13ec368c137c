# One command surface for people and CI. `make help` explains itself.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# A machine behind its own certificate authority: uv then trusts what the system trusts.
export UV_SYSTEM_CERTS := 1

PY_SOURCES := libs services lab skills tests bench tools
NAME ?=
T ?= tests

.PHONY: help
help: ## Show this list
	@echo "anneal: targets (usual time on 2 cores)"; \
	if [ -t 1 ]; then bold=$$'\033[1m'; plain=$$'\033[0m'; else bold=; plain=; fi; \
	grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' -v b="$$bold" -v p="$$plain" '{printf "  %s%-12s%s %s\n", b, $$1, p, $$2}'

.PHONY: setup
setup: ## Install everything that the rest needs: Debian packages, .venv (2 min the first time, 1 s after)
	@tools/setup

.PHONY: demo
demo: ## The main job: build the lab, harden it, show the score and the report (10 min first, 5 min after)
	@tools/demo

.PHONY: dev
dev: setup ## Start all of anneal here, in the foreground (10 s; Ctrl-C stops it)
	@anneal dev

.PHONY: test
test: setup ## Check and test everything, the real lab included (30 min)
	@$(MAKE) check
	@echo "==> lab: the machine that the tests run on (3 min once, 1 s after)"; python -m tests.support.watched_build
	@echo "==> tests"; python -m pytest $(T)

.PHONY: check
check: setup ## Lint, types, layers, contracts, drift (1 min)
	@echo "==> ruff"; ruff check $(PY_SOURCES); ruff format --check $(PY_SOURCES)
	@echo "==> mypy"; tools/types
	@echo "==> layers"; lint-imports | tail -n 8
	@echo "==> contracts"; cd protos && buf lint
	@python tools/gen_protos.py --check 2> >(grep -v '^Writing' >&2 || true)
	@echo "==> locked requirements"; tools/lock --check

.PHONY: proto
proto: setup ## Generate the Python stubs from protos/ (3 s)
	@python tools/gen_protos.py >/dev/null 2>&1; echo "stubs written to libs/contracts/src/anneal"

.PHONY: lock
lock: setup ## Lock new dependencies with hashes in requirements/; tools/lock --upgrade moves the others too (5 s)
	@tools/lock

.PHONY: fmt
fmt: setup ## Format the code (1 s)
	@ruff check --fix -q $(PY_SOURCES); ruff format -q $(PY_SOURCES)

.PHONY: simulate
simulate: setup ## Play random runs in virtual time: N=20000 SEED=7, WITHOUT=RULE plants a bug (1 min for 5000)
	@python -m tests.simulation $(if $(N),--runs $(N)) $(if $(SEED),--seed $(SEED)) $(if $(WITHOUT),--without $(WITHOUT))

.PHONY: bench
bench: setup lab-build ## Run all benchmarks, or one: make bench NAME=verdict (10 min in all)
	@python -m bench $(NAME)

.PHONY: lab-build lab-up lab-down lab-reset lab-status lab-ssh
lab-build: setup ## Build the disposable EL9-like machine (3 min once, 1 s after)
	@anneal lab build
lab-up: lab-build ## Boot it (2 s)
	@anneal lab up
lab-down: setup ## Stop it (1 s)
	@anneal lab down
lab-reset: lab-build ## Bring it back to the pristine image (5 s)
	@anneal lab reset
lab-status: setup ## Say what runs
	@anneal lab status
lab-ssh: setup ## Open a shell on it
	@anneal lab ssh

.PHONY: clean
clean: ## Stop what runs, remove .venv and caches here; the data in ~/.local/share/anneal stays
	@if [ -x .venv/bin/anneal ]; then anneal dev stop >/dev/null 2>&1 || true; anneal lab down >/dev/null 2>&1 || true; fi
	@rm -rf .venv .tools .mypy_cache .ruff_cache .pytest_cache .import_linter_cache bench/out; echo "clean"
