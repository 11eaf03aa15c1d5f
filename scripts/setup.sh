#!/bin/sh
# Makes a virtual environment from a lock file, with nothing but Python 3.11+ and its venv module on the machine.
# Usage: setup.sh [arguments of setup_venv.py]; PYTHON names the interpreter to use instead of looking for one.
set -eu
cd "$(dirname "$0")/.."

candidates=${PYTHON:-"python3 python3.13 python3.12 python3.11 python3.14"}
found_old=""
found_bare=""
for candidate in $candidates; do
  command -v "$candidate" >/dev/null 2>&1 || continue
  if ! "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
    found_old=$candidate
  elif ! "$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    found_bare=$candidate
  else
    exec "$candidate" scripts/setup_venv.py "$@"
  fi
done

if [ -n "$found_bare" ]; then
  echo "setup: $found_bare has no venv module; install it (Debian and Ubuntu: apt install python3-venv) and try again" >&2
elif [ -n "$found_old" ]; then
  echo "setup: Python 3.11 or newer is needed and $found_old is older; install one, or name one with PYTHON=..." >&2
else
  echo "setup: Python 3.11 or newer is needed and none was found (looked for: $candidates)" >&2
fi
exit 1
