#!/usr/bin/env bash
# Installs what clients/typescript needs from its lock, when the lock has changed.
set -euo pipefail
cd "$(dirname "$0")/../clients/typescript"

if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
  echo "setup: the TypeScript client needs Node 20 or later with npm, and there is none: install it, or put it on the PATH" >&2
  exit 1
fi
if ! node -e 'process.exitCode = Number(process.versions.node.split(".")[0]) < 20 ? 1 : 0'; then
  echo "setup: the TypeScript client needs Node 20 or later, and this is $(node --version)" >&2
  exit 1
fi
stamp=node_modules/.installed
wanted="$(node --version) $(cat package.json package-lock.json | cksum)"
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
  echo "setup: installing clients/typescript/package-lock.json (once; less than a minute)"
  npm ci --no-audit --no-fund --loglevel=error
  echo "$wanted" >"$stamp"
fi
