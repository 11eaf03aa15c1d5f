#!/usr/bin/env bash
# Every test: the TypeScript client's, then those of the service and the Python client. With arguments, pytest with them.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ $# -gt 0 ]; then
  exec .venv/bin/python -m pytest "$@"
fi
(cd clients/typescript && npm run --silent build && npm test --silent)
# What takes processor time goes three at a time. What measures times, or disturbs the machine, goes alone.
together=(
  tests/{model,conformance,tenants,bad_inputs,unit,langgraph,adoption,plans,cli,docs,concurrency}
  tests/queue tests/lifecycle/test_{embedded,start,workers,worker_faults}.py
  tests/rpc/test_{checkpoint_streams,identity,pipeline,reflection}.py
  tests/retention/test_{checkpoints,ids,plans,replicas,serving,threads}.py
  tests/regressions/test_{calls_that_gather,crons_of_gone_rows,page_tokens,reading_of_pages,rows_of_others_making}.py
  tests/regressions/test_{rules_of_both_backends,runs_of_gone_threads,texts_and_lines,threads_that_are_freed}.py
  tests/regressions/test_rows_that_are_locked.py tests/faults/test_admission_faults.py
  tests/clients/test_{arguments,errors,jsontext,scenarios,shared_agent,storage,storage_assistants,storage_crons}.py
  tests/clients/test_storage_{runs,store,threads}.py tests/clients/test_worker{,_events}.py
  tests/clients/test_{run_events,following,waiting_calls,queue_example,channel,server_lifecycle}.py
)
.venv/bin/python -m pytest --numprocesses 3 --dist worksteal "${together[@]}"
exec .venv/bin/python -m pytest "${together[@]/#/--ignore=}"
