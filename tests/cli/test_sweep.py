"""What ``sweep`` says of a thread that is not there, and of checkpoints where no age is set."""

from __future__ import annotations

import pytest

from tests.adoption.runtimes import statements
from tests.docs.markdown import ROOT
from tests.faults.servers import run
from tests.postgres_server import MakeDatabase

NO_AGE = "no age is set (--older-than, STORAGE_CHECKPOINT_DAYS)"


@pytest.fixture
def database(make_database: MakeDatabase) -> str:
    """A database with a thread of alice's."""
    url = make_database()
    assert run("migrate", DATABASE_URL=url).returncode == 0
    statements(url, """INSERT INTO langgraph_server.threads (id, metadata) VALUES ('chat', '{"owner": "alice"}')""")
    return url


@pytest.mark.parametrize("flags", [(), ("--dry-run",)])
def test_a_thread_that_is_not_there(database: str, flags: tuple[str, ...]) -> None:
    for arguments, says in (
        (("--thread", "t1"), "Error: not swept: t1 (no thread has this id)"),
        (
            ("--thread", "chat", "--owner", "bob"),
            "Error: not swept: chat (no thread of this owner has this id)",
        ),
    ):
        result = run("sweep", *arguments, *flags, DATABASE_URL=database)
        assert (result.returncode, result.stdout, result.stderr) == (1, "", f"{says}\n")
        assert f"`{says}`" in (ROOT / "docs" / "operation.md").read_text()
    for arguments in (("--thread", "chat"), ("--thread", "chat", "--owner", "alice")):
        result = run("sweep", *arguments, *flags, DATABASE_URL=database)
        assert (result.returncode, result.stderr) == (0, "")


def test_checkpoints_without_an_age(database: str) -> None:
    def says(*arguments: str, **environment: str) -> str:
        result = run("sweep", *arguments, DATABASE_URL=database, **environment)
        assert (result.returncode, result.stderr) == (0, "")
        (line,) = [line for line in result.stdout.splitlines() if line.startswith("checkpoints: ")]
        return line

    assert says() == says(STORAGE_CHECKPOINT_DAYS="0") == f"checkpoints: 0 deleted: {NO_AGE}"
    assert says("--dry-run") == f"checkpoints: 0 would be deleted: {NO_AGE}"
    for arguments, environment in ((("--older-than", "0"), {}), ((), {"STORAGE_CHECKPOINT_DAYS": "30"})):
        assert says(*arguments, **environment) == "checkpoints: 0 deleted for their age"
        assert says(*arguments, "--dry-run", **environment) == "checkpoints: 0 would be deleted for their age"
