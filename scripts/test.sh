#!/usr/bin/env bash
# Every test: the TypeScript client's, then those of the service and the Python client. With arguments, pytest with them.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ $# -gt 0 ]; then
  exec .venv/bin/python -m pytest "$@"
fi
(cd clients/typescript && npm run --silent build && npm test --silent)
# What takes processor time goes two at a time. What measures times, or disturbs the machine, goes alone.
together=(model conformance tenants bad_inputs unit langgraph adoption plans)
.venv/bin/python -m pytest --numprocesses 2 --dist worksteal "${together[@]/#/tests/}"
exec .venv/bin/python -m pytest "${together[@]/#/--ignore=tests/}"
