"""Refuse what must not be in the repository: index addresses, paths of one machine, private keys, stray large files."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REFUSED = {
    "an address of a package index": re.compile(
        # The classes of one letter keep this file from complaining about itself.
        r"pyp[i]\.org|pythonhoste[d]\.org|registry\.(?:npmj[s]|yarnpk[g])|proxy\.golan[g]\.org"
        r"|--(?:extra-)?index-ur[l]\s+\S|--find-link[s]\s+\S|\"resolve[d]\"\s*:",
        re.IGNORECASE,
    ),
    "a path of one machine": re.compile(
        r"(?<![\w.$~{}<-])/(?:home|Users|root|work|workspace|mnt)/[\w.-]+|(?<![\w.])/tmp/[\w.-]+|[A-Z]:\\\\?Users\\"
    ),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KE[Y]-----"),
    "a merge conflict": re.compile(r"^(?:<{7}|>{7}) ", re.MULTILINE),
}
LARGEST_FILE_BYTES = 1_000_000


def tracked_files() -> list[Path]:
    """Return every file that git tracks or would track, in the checkout or, without git, nothing that is ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [ROOT / name for name in sorted(set(listed.split("\0"))) if name and (ROOT / name).is_file()]


def complaints(path: Path) -> list[str]:
    """Return one line for each thing in the file that must not be there."""
    name = path.relative_to(ROOT)
    content = path.read_bytes()
    if len(content) > LARGEST_FILE_BYTES:
        return [f"{name}: {len(content)} bytes, more than {LARGEST_FILE_BYTES}"]
    text = content.decode("utf-8", errors="replace")
    return [
        f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {what}: {match.group()[:80]}"
        for what, pattern in REFUSED.items()
        for match in pattern.finditer(text)
    ]


def main() -> int:
    """Check every file and print each complaint."""
    if not (ROOT / ".git").exists():
        print("tree: NOT CHECKED, this is not a git checkout", file=sys.stderr)
        return 0
    found = [line for path in tracked_files() for line in complaints(path)]
    for line in found:
        print(f"tree: {line}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
