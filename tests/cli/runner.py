"""Several commands in one process, whose start takes longer than they do."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_EACH = """
import json, sys
from click.testing import CliRunner
from storage_service.cli import main
results = [CliRunner().invoke(main, arguments, env=environment) for arguments, environment in json.loads(sys.argv[1])]
print(json.dumps([(result.exit_code, result.stdout, result.stderr) for result in results]))
"""


class Ended(NamedTuple):
    """How a command ended."""

    status: int
    output: str
    errors: str


def run_each(*commands: tuple[Sequence[str], Mapping[str, str]]) -> list[Ended]:
    """Run commands, each with its arguments and what is set for it, and nothing else in their environment."""
    done = subprocess.run(
        [sys.executable, "-c", _EACH, json.dumps(commands)],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return [Ended(*ended) for ended in json.loads(done.stdout)]
