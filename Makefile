# Every command of the project. `make serve` needs nothing but Python 3.11+ on the machine, `make test` Node 20+ beside it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

HOST ?= 127.0.0.1
PORT ?= 50051
DATA ?= .data/postgres
# Arguments for pytest, as in: make test PYTEST_ARGS="-k threads -x"
PYTEST_ARGS ?=
BIN := .venv/bin
CHECKS := check-style check-types check-typescript check-locks check-generated check-client-floor audit
# Two at a time; what they print comes one after the other, where make can do that.
AT_ONCE = $(MAKE) --no-print-directory --jobs 2 $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)
CLIENT_FLOOR := .venv-protobuf6

# A checkout may belong to another user than the one who checks it (root in a container); git would refuse to read it.
export GIT_CONFIG_COUNT := 1
export GIT_CONFIG_KEY_0 := safe.directory
export GIT_CONFIG_VALUE_0 := $(CURDIR)

.PHONY: help setup setup-node serve test benchmark lint check-style check-types check-typescript try-grpcurl check-generated check-locks check-client-floor audit grpcurl generate lock upgrade format clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Make .venv with the server, the client and every tool, from the hashed locks
	@scripts/setup.sh .venv requirements/dev.txt --editable clients/python --editable .

setup-node: ## Install what clients/typescript needs, from its lock
	@scripts/setup_node.sh

serve: setup ## Serve on HOST:PORT with the embedded Postgres in DATA
	@mkdir -p "$(DATA)"
	@exec $(BIN)/storage-service serve --host "$(HOST)" --port "$(PORT)" --embedded "$(DATA)"

test: ## Check everything, then run every test
	@$(AT_ONCE) $(CHECKS) try-grpcurl
	@exec scripts/test.sh $(PYTEST_ARGS)

try-grpcurl:
	@scripts/install_grpcurl.sh

lint: ## Every check that is not a test
	@$(AT_ONCE) $(CHECKS)

check-style: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/buf lint protos
	$(BIN)/buf format protos --diff --exit-code
	scripts/check_breaking.sh
	$(BIN)/hadolint Dockerfile
	$(BIN)/python scripts/check_tree.py

check-types: setup
	$(BIN)/mypy

check-typescript: setup-node
	cd clients/typescript && npm run --silent check

check-generated: setup setup-node ## Regenerate into a temporary directory and compare with the committed code
	@scripts/generate.sh --check

check-locks: setup ## Fail when the locks no longer follow from the pyproject files
	@scripts/check_locks.sh

check-client-floor: ## Run the client's generated code on the oldest gRPC and protobuf that it allows
	@scripts/setup.sh $(CLIENT_FLOOR) requirements/client-floor.txt
	@PYTHONPATH=clients/python $(CLIENT_FLOOR)/bin/python -W error scripts/check_client_floor.py

audit: setup setup-node ## Look up known vulnerabilities of everything in the locks
	@$(BIN)/python scripts/audit.py

grpcurl: ## Build grpcurl into .tools/bin (needs Go)
	@scripts/install_grpcurl.sh
	@test -x .tools/bin/grpcurl
	@echo "grpcurl: .tools/bin/grpcurl"

benchmark: ## Measure the service next to its peers (BENCHMARK_ARGS="--quick" for rough figures)
	@scripts/setup.sh .venv-benchmark requirements/benchmark.txt --editable clients/python --editable .
	@exec .venv-benchmark/bin/python -m benchmarks $(BENCHMARK_ARGS)

generate: setup setup-node ## Regenerate the generated code of both clients from protos/
	@scripts/generate.sh

lock: setup ## Rewrite requirements/ from the pyproject files, keeping versions where possible
	@scripts/lock.sh requirements

upgrade: setup ## Rewrite requirements/ with the newest versions that the ranges allow
	@scripts/lock.sh requirements --upgrade

format: setup setup-node ## Format Python, proto and TypeScript files and apply safe fixes
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/buf format protos --write
	cd clients/typescript && npm run --silent format

clean: ## Remove environments, tools and caches; the data of `make serve` stays
	rm -rf .venv* .tools .mypy_cache .ruff_cache .pytest_cache .hypothesis clients/typescript/node_modules clients/typescript/dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
