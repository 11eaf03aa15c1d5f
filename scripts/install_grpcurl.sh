#!/usr/bin/env bash
# Builds a pinned grpcurl into .tools/bin when the machine has Go. Without Go the suite calls the service with
# `buf curl` from .venv, so this never fails a run.
set -euo pipefail
cd "$(dirname "$0")/.."

version=v1.9.3
bin=$PWD/.tools/bin
stamp=$PWD/.tools/grpcurl-$version
[ -x "$bin/grpcurl" ] && [ -e "$stamp" ] && exit 0
if ! command -v go >/dev/null 2>&1; then
  echo "grpcurl: this machine has no Go; the suite uses 'buf curl' instead"
  exit 0
fi
echo "grpcurl: building $version with Go (once; about a minute)"
mkdir -p "$bin"
# GOFLAGS is set here so that a module mode or a vendor directory of the machine's own settings does not interfere.
if (cd "$bin" && GOBIN=$bin GOFLAGS=-buildvcs=false GOWORK=off GOTOOLCHAIN=local \
  go install "github.com/fullstorydev/grpcurl/cmd/grpcurl@$version") >.tools/grpcurl.log 2>&1; then
  touch "$stamp"
else
  echo "grpcurl: could not be built ($(tail -n 1 .tools/grpcurl.log)); the suite uses 'buf curl' instead" >&2
fi
