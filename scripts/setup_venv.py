"""Make or refresh one virtual environment from one lock file, with the standard library alone.

Packages come from the lock with their hashes checked; the project's own packages are installed editable, built with
tools from the same lock. A stamp in the environment holds a digest of everything that decides its content, so that a
second run costs milliseconds. A lock on a file next to the environment lets several runs wait for one another.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKED_NAME = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==", re.MULTILINE)
# pip comes with the environment and is what installs the rest; a lock never names it.
KEPT = {"pip"}


def canonical(name: str) -> str:
    """Return a distribution's name in the form in which two spellings are equal (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def digest(lock: Path, projects: list[Path]) -> str:
    """Return a digest of all that decides the content of the environment, its place and interpreter included."""
    text = hashlib.sha256()
    text.update(repr((str(ROOT), sys.version, sys.base_prefix)).encode())
    for path in [Path(__file__), lock]:
        text.update(path.read_bytes())
    for project in projects:
        tables = tomllib.loads((project / "pyproject.toml").read_text())
        # The settings of linters and tests install nothing.
        decisive = [tables["build-system"], tables["project"], tables.get("tool", {}).get("hatch")]
        text.update(json.dumps(decisive, sort_keys=True).encode())
    return text.hexdigest()


def refresh(venv: Path, lock: Path, projects: list[Path]) -> None:
    """Bring the environment to exactly what the lock names, plus the editable projects."""
    python = venv / "bin" / "python"
    home = venv / "made-for"
    made_for = repr((str(venv), sys.version, sys.base_prefix))
    if not python.exists() or not home.exists() or home.read_text() != made_for:
        shutil.rmtree(venv, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        home.write_text(made_for)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    install = [*pip, "install", "--quiet", "--no-warn-script-location"]
    subprocess.run([*install, "--require-hashes", "--only-binary", ":all:", "-r", str(lock)], check=True)
    for project in projects:
        subprocess.run([*install, "--no-deps", "--no-build-isolation", "--editable", str(project)], check=True)

    listed = subprocess.run([*pip, "list", "--format=json"], check=True, capture_output=True, text=True).stdout
    installed = {canonical(row["name"]): row.get("editable_project_location") for row in json.loads(listed)}
    locked = {canonical(name) for name in LOCKED_NAME.findall(lock.read_text())}
    stale = sorted(name for name, editable in installed.items() if name not in locked | KEPT and not editable)
    if stale:
        subprocess.run([*pip, "uninstall", "--quiet", "--yes", *stale], check=True)


def main() -> int:
    """Parse the arguments, wait for any other run, and work only when the stamp differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("venv", help="directory of the environment, relative to the project's root")
    parser.add_argument("lock", help="lock file, relative to the project's root")
    parser.add_argument("--editable", action="append", default=[], metavar="DIR", help="project to install editable")
    arguments = parser.parse_args()
    venv, lock = ROOT / arguments.venv, ROOT / arguments.lock
    projects = [ROOT / directory for directory in arguments.editable]
    stamp = venv / "stamp"

    with open(ROOT / f"{arguments.venv}.lock", "w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        wanted = digest(lock, projects)
        if stamp.exists() and stamp.read_text() == wanted:
            return 0
        print(f"setup: installing {arguments.lock} into {arguments.venv} (once; a minute or two)", flush=True)
        stamp.unlink(missing_ok=True)
        try:
            refresh(venv, lock, projects)
        except subprocess.CalledProcessError as failure:
            print(f"setup: failed with status {failure.returncode}; the lines above say why", file=sys.stderr)
            return 1
        stamp.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
