#!/usr/bin/env bash
# Every test: the TypeScript client's, then those of the service and the Python client. With arguments, pytest with them.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ $# -gt 0 ]; then
  exec .venv/bin/python -m pytest "$@"
fi
(cd clients/typescript && npm run --silent build && npm test --silent)
# What takes processor time goes two at a time. What measures times, or disturbs the machine, goes alone.
together=(
  tests/{model,conformance,tenants,bad_inputs,unit,langgraph,adoption,plans,cli,docs,concurrency}
  tests/clients/test_{arguments,errors,jsontext,scenarios,shared_agent,storage,storage_assistants,storage_crons}.py
  tests/clients/test_storage_{runs,store,threads}.py
)
.venv/bin/python -m pytest --numprocesses 2 --dist worksteal "${together[@]}"
exec .venv/bin/python -m pytest "${together[@]/#/--ignore=}"
