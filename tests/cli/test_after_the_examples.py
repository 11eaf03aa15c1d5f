"""The examples leave nothing behind that ``doctor`` warns of."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

from tests.docs.markdown import ROOT
from tests.faults.servers import Serve, run
from tests.postgres_server import MakeDatabase


async def test_nothing_to_warn_of(serve: Serve, make_database: MakeDatabase) -> None:
    url = make_database()
    server = await serve(url)
    for name in ("first_steps.py", "lost_updates.py"):
        await asyncio.to_thread(
            subprocess.run,
            [sys.executable, str(ROOT / "examples" / name)],
            env={**os.environ, "AGENTSTORAGE_TARGET": server.target},
            check=True,
            capture_output=True,
            timeout=60,
        )
    looked = run("doctor", DATABASE_URL=url)
    assert (looked.returncode, looked.stderr) == (0, "")
    assert not [line for line in looked.stdout.splitlines() if line.startswith("warning")], looked.stdout
