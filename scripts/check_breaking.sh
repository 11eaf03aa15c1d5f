#!/usr/bin/env bash
# Compares protos/ with what the main branch holds; a change that breaks a client fails.
# BREAKING_AGAINST names another commit to compare with.
set -euo pipefail
cd "$(dirname "$0")/.."

# The first of these that exists and is not simply this checkout's own commit: on a branch that is main, on main its
# predecessor, so that a landed break is still seen.
commit_of() { git rev-parse --quiet --verify "$1^{commit}" 2>/dev/null || true; }

head=$(commit_of HEAD)
if [ -z "$head" ]; then
  echo "breaking: NOT CHECKED, this checkout has no commit to compare with"
  exit 0
fi
base=""
if [ -n "${BREAKING_AGAINST:-}" ]; then
  base=$(commit_of "$BREAKING_AGAINST")
  if [ -z "$base" ]; then
    echo "breaking: BREAKING_AGAINST names no commit: $BREAKING_AGAINST" >&2
    exit 1
  fi
else
  for candidate in origin/main main; do
    commit=$(commit_of "$candidate")
    if [ -n "$commit" ] && [ "$commit" != "$head" ]; then
      base=$(git merge-base "$commit" "$head" || true)
      # A checkout that main contains already: compare with what came before it.
      [ "$base" = "$head" ] && base=""
      [ -n "$base" ] && break
    fi
  done
fi
if [ -z "$base" ]; then
  # With uncommitted changes HEAD itself is the base, otherwise its predecessor.
  if [ -n "$(git status --porcelain -- protos)" ]; then
    base=$head
  else
    base=$(commit_of HEAD~1)
  fi
fi
if [ -z "$base" ]; then
  echo "breaking: NOT CHECKED, this checkout has no earlier commit to compare with (first commit or shallow clone)"
  exit 0
fi
if [ -z "$(git ls-tree -r --name-only "$base" -- protos | grep '\.proto$' || true)" ]; then
  echo "breaking: NOT CHECKED, ${base:0:12} holds no .proto files yet"
  exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git archive "$base" protos | tar -x -C "$work"
if ! .venv/bin/buf breaking protos --against "$work/protos"; then
  echo "breaking: protos/ breaks what ${base:0:12} promised (see above)" >&2
  exit 1
fi
echo "breaking: compatible with ${base:0:12}"
