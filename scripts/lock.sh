#!/usr/bin/env bash
# Writes requirements/*.txt from the pyproject files: every version and every hash, no index address, for all platforms.
# Usage: lock.sh [DIRECTORY] [extra arguments of `uv pip compile`, e.g. --upgrade]
set -euo pipefail
cd "$(dirname "$0")/.."

out=${1:-requirements}
[ $# -gt 0 ] && shift
uv=$(command -v .venv/bin/uv || command -v uv) || {
  echo "lock: uv is missing: run 'make setup', or install uv" >&2
  exit 1
}
mkdir -p "$out"

# --no-annotate and --no-header keep paths of this checkout out of the files; the versions already locked are kept
# unless --upgrade is given, because uv reads the existing output file first.
compile() {
  local name=$1
  shift
  "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
    --no-emit-index-url --no-emit-find-links --no-emit-package agentstorage --no-emit-package storage-service \
    --output-file "$out/$name.txt" "$@" >/dev/null
}

compile image pyproject.toml "$@"
compile server pyproject.toml --extra embedded --constraint "$out/image.txt" "$@"
compile dev pyproject.toml --extra embedded --group dev --constraint "$out/server.txt" "$@"
compile benchmark pyproject.toml --extra embedded --group benchmark --constraint "$out/dev.txt" "$@"
compile build --group build --constraint "$out/dev.txt" "$@"
compile codegen --group codegen "$@"
compile client-floor clients/python/pyproject.toml --extra langgraph --group pyproject.toml:client-floor "$@"
