"""Look up known vulnerabilities of every locked package.

A vulnerability fails. Advisories that cannot be read do not fail, because a build must not depend on a service that it
does not control, but they are said in one line and never pass for "none found".
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Advisory id -> why it does not concern this project, with the date of the decision.
ACCEPTED: dict[str, str] = {}
LOCKS = ["dev.txt", "codegen.txt", "client-floor.txt"]
TIME_LIMIT_S = 90


def audit(lock: Path, certificates: dict[str, str]) -> tuple[list[str], str]:
    """Return the lines that name vulnerabilities, and the reason why advisories could not be read or an empty text."""
    command = [sys.executable, "-m", "pip_audit", "--require-hashes", "--disable-pip", "--progress-spinner", "off"]
    command += ["--format", "json", "--timeout", "10", "-r", str(lock)]
    for advisory in ACCEPTED:
        command += ["--ignore-vuln", advisory]
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=TIME_LIMIT_S, env=os.environ | certificates
        )
    except subprocess.TimeoutExpired:
        return [], f"no answer within {TIME_LIMIT_S} s"
    try:
        report = json.loads(done.stdout)
    except ValueError:
        words = done.stderr.strip().splitlines() or [f"status {done.returncode} without a word"]
        return [], words[-1][:300]
    found: list[str] = []
    skipped: list[str] = []
    for package in report["dependencies"]:
        if "skip_reason" in package:
            skipped.append(f"{package['name']}: {package['skip_reason']}")
        for advisory in package.get("vulns", []):
            fixed = ", ".join(advisory["fix_versions"]) or "no version yet"
            found.append(f"{package['name']} {package['version']}: {advisory['id']}, fixed in {fixed}")
    reason = f"{len(skipped)} of {len(report['dependencies'])} packages, such as {skipped[0]}" if skipped else ""
    return found, reason


def audit_npm() -> tuple[list[str], str]:
    """Return the same for the TypeScript client's lock."""
    command = ["npm", "audit", "--json", "--loglevel=silent"]
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=TIME_LIMIT_S, cwd=ROOT / "clients/typescript"
        )
        report = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return [], f"no answer within {TIME_LIMIT_S} s"
    except ValueError:
        return [], f"npm ended with status {done.returncode} without a report"
    if "vulnerabilities" not in report:
        return [], str(report.get("message", "npm gave no reason")).split(" - ", maxsplit=1)[0]
    found = []
    for name, package in report["vulnerabilities"].items():
        for advisory in package["via"]:
            # Others are packages that depend on one with an advisory.
            if isinstance(advisory, dict) and str(advisory["source"]) not in ACCEPTED:
                found.append(f"{name} {advisory['range']}: {advisory['source']}, {advisory['title']}")
    return found, ""


def main() -> int:
    """Audit every lock; return 1 when any holds a known vulnerability."""
    # The audit's HTTP client looks for certificates in a place of its own; an address set for pip is meant for it too.
    bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("PIP_CERT")
    certificates = {"REQUESTS_CA_BUNDLE": bundle} if bundle else {}
    found: set[str] = set()
    unread: list[str] = []
    with tempfile.TemporaryDirectory() as directory:
        for name in LOCKS:
            # Markers are dropped so that packages of other platforms are audited too.
            lines = (ROOT / "requirements" / name).read_text().splitlines()
            copy = Path(directory) / name
            copy.write_text("\n".join(line.split(" ;")[0] + " \\" if " ;" in line else line for line in lines) + "\n")
            lines_found, reason = audit(copy, certificates)
            found.update(lines_found)
            if reason:
                unread.append(f"{name}: {reason}")
    lines_found, reason = audit_npm()
    found.update(lines_found)
    if reason:
        unread.append(f"package-lock.json: {reason}")
    for reason in unread:
        print(f"audit: NOT CHECKED, advisories could not be read for {reason}", file=sys.stderr)
    for line in sorted(found):
        print(f"audit: {line}", file=sys.stderr)
    if not found and not unread:
        print(f"audit: no known vulnerability in {', '.join(LOCKS)} and package-lock.json")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
