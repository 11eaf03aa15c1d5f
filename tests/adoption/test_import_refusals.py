"""What can't come over, or is there already with other content, is told and left out; all else comes over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

from storage_service.settings import Limits
from storage_service.store.postgres.imports import sqlite_file
from storage_service.store.postgres.imports.checkpoints import CHECKPOINTS
from storage_service.store.postgres.imports.report import SourceError
from storage_service.store.postgres.migrate import MigrationError
from tests.adoption import imported
from tests.adoption.imported import counted, from_sqlite, raw, sqlite_saver, tuples, unchanged
from tests.adoption.runtimes import row, rows, statements
from tests.langgraph.checkpoints import checkpoint, config, metadata
from tests.langgraph.ciphers import Mask


def thread(file: Path, id: str, *values: Any) -> None:
    """Put a thread into a file, with a checkpoint and a write for each of the values."""
    with sqlite_saver(file) as saver:
        where = config(id)
        for number, value in enumerate(values):
            made = checkpoint({"a": [value]}, checkpoint_id=f"{id}{number}")
            where = saver.put(where, made, metadata(number), made["channel_versions"])
            saver.put_writes(where, [("a", value)], f"task {number}")


# A checkpoint that can't come over, and what is said of it.
_VALUES = {"a": [1]}
STRANGE: dict[str, tuple[tuple[Any, ...], dict[str, Any], str]] = {
    "encrypted": (
        ("t", "x", b"..."),
        {"kind": "msgpack+aes"},
        "t /  / x: it is encrypted (msgpack+aes), and only a program with",
    ),
    "pickled": (("t", "x", b"..."), {"kind": "pickle"}, "t /  / x: it is neither msgpack nor JSON, but pickle"),
    "untyped": (("t", "x", b"..."), {"kind": None}, "t /  / x: it is neither msgpack nor JSON, but None"),
    "a number": (("t", "x", 7), {}, "t /  / x: it is neither msgpack nor JSON"),
    "metadata that are a number": (
        ("t", "x", checkpoint(_VALUES)),
        {"about": 7},
        "t /  / x: its metadata can't be read",
    ),
    "empty": (("t", "x", None), {}, "t /  / x: it is neither msgpack nor JSON"),
    "garbage": (("t", "x", b"\xc1..."), {}, "t /  / x: its bytes can't be read"),
    "garbage in JSON": (("t", "x", b"{"), {"kind": "json"}, "t /  / x: its bytes can't be read"),
    "too deep": (("t", "x", b"[" * 100_000), {"kind": "json"}, "t /  / x: its bytes can't be read"),
    "a list": (("t", "x", b"[]"), {"kind": "json"}, "t /  / x: its bytes are no checkpoint"),
    "an object beside": (
        ("t", "x", {**checkpoint(_VALUES), "extra": Path("p")}),
        {},
        "t /  / x: it holds an object beside the values of its channels",
    ),
    "a value without a version": (
        ("t", "x", checkpoint(_VALUES, {})),
        {},
        "t /  / x: its channel a has a value and no version",
    ),
    "metadata": (("t", "x", checkpoint(_VALUES)), {"about": "{"}, "t /  / x: its metadata can't be read"),
    "metadata that are none": (
        ("t", "x", checkpoint(_VALUES)),
        {"about": "[]"},
        "t /  / x: its metadata can't be read",
    ),
    "metadata with NUL": (
        ("t", "x", checkpoint(_VALUES)),
        {"about": '{"a": {"b": "\\u0000"}}'},
        "t /  / x: metadata: holds the character U+0000",
    ),
    "no number": (
        ("t", "x", {**checkpoint(_VALUES), "ts": float("nan")}),
        {},
        "t /  / x: checkpoint: NaN and Infinity are not JSON",
    ),
    "a long id": (("t" * 256, "x", checkpoint(_VALUES)), {}, "thread_id: is longer than 255 bytes"),
    "an id with NUL": (("t\0", "x", checkpoint(_VALUES)), {}, "'t\\x00 /  / x': thread_id: holds a control character"),
    "an id that is no text": ((b"\xff", "x", checkpoint(_VALUES)), {}, "a column of it holds what is no text"),
    "an id without text": (("t", "", checkpoint(_VALUES)), {}, "t /  / : checkpoint_id: must not be empty"),
}


@pytest.mark.parametrize("name", STRANGE)
async def test_a_checkpoint_that_cannot_come_over(migrated: str, file: Path, name: str) -> None:
    given, more, expected = STRANGE[name]
    thread(file, "good", 1, 2)
    raw(file, *given, **more)
    report, told = await from_sqlite(migrated, file)
    assert not report.is_complete
    assert [line for line in told if line.startswith("refused: checkpoints: ") and expected in line], told
    assert report.counts["checkpoints"].refused == 1
    # All others came.
    assert report.counts["checkpoints"].written == 2
    assert len(await tuples(migrated, "good")) == 2


async def test_a_write_that_cannot_come_over(migrated: str, file: Path) -> None:
    thread(file, "t", 1)
    with closing(sqlite3.connect(file)) as conn:
        add = "INSERT INTO writes (thread_id, checkpoint_id, task_id, idx, channel, type, value) VALUES ('t', 't0', 'w', ?, ?, ?, ?)"
        conn.execute(add, (0, "a", "msgpack", None))
        conn.execute(add, (1, "c" * 513, "msgpack", b"\xc0"))
        conn.execute(add, (2, "a", "pickle", b"as it is"))
        conn.execute(add, (3, "a", "msgpack", 7))
        conn.commit()
    report, told = await from_sqlite(migrated, file)
    counted(report, checkpoints=(1, 1, 0, 0, 0), writes=(5, 2, 0, 0, 3))
    assert told == [
        "refused: writes: t /  / t0 / w / 0: it has no value",
        "refused: writes: t /  / t0 / w / 1: writes[0].channel: is longer than 512 bytes",
        "refused: writes: t /  / t0 / w / 3: it has no value",
    ]


async def test_a_checkpoint_whose_value_is_too_large_stays_out(migrated: str, file: Path) -> None:
    """It would be read without the value, as if that had never been."""
    thread(file, "t", 1, "x" * 1000, 3)
    report, told = await from_sqlite(migrated, file, limits=Limits(blob_bytes=900))
    assert len(told) == 3
    assert "channels[0].value: is longer than 900 bytes" in told[0]
    assert told[1].startswith("refused: writes: t /  / t1 / task 1 / 0: ")
    assert told[2] == "refused: checkpoints: t /  / t1: the value of its channel a is not there"
    counted(report, checkpoints=(3, 2, 0, 0, 1), values=(3, 2, 0, 0, 1), writes=(3, 2, 0, 0, 1))


async def test_threads_of_others_stay_as_they_are(migrated: str, file: Path) -> None:
    for id in ("bobs", "nobodys", "free", "mine"):
        thread(file, id, 1, 2)
    statements(
        migrated,
        """INSERT INTO langgraph_server.threads (id, metadata) VALUES
            ('bobs', '{"owner": "bob"}'), ('nobodys', '{}'), ('mine', '{"owner": "alice", "my": "own"}')""",
        # Somebody's, though no row says whose.
        "INSERT INTO checkpoints (thread_id, checkpoint_id, checkpoint) VALUES ('free', 'before', '{}')",
    )
    before = rows(migrated, "SELECT * FROM langgraph_server.threads ORDER BY id")
    report, told = await from_sqlite(migrated, file)
    nobody = "has no owner; `storage-service assign-owner` gives it one"
    assert told == [
        "refused: thread bobs: here it belongs to another owner",
        f"refused: thread free: here it {nobody}",
        f"refused: thread nobodys: here it {nobody}",
    ]
    counted(report, checkpoints=(8, 2, 0, 0, 6), values=(8, 2, 0, 0, 6), writes=(8, 2, 0, 0, 6))
    assert rows(migrated, "SELECT * FROM langgraph_server.threads ORDER BY id") == before
    assert rows(migrated, "SELECT DISTINCT thread_id FROM checkpoint_writes") == [{"thread_id": "mine"}]
    assert rows(migrated, "SELECT DISTINCT thread_id FROM checkpoint_blobs") == [{"thread_id": "mine"}]
    # What is bob's comes over for bob.
    report, told = await from_sqlite(migrated, file, "bob")
    assert report.counts["checkpoints"].written == 2
    assert [line.split(":")[1] for line in told] == [" thread free", " thread mine", " thread nobodys"]


async def test_two_owners_with_files_of_their_own(migrated: str, tmp_path: Path) -> None:
    for owner in ("alice", "bob"):
        thread(tmp_path / owner, f"of {owner}", 1)
        assert (await from_sqlite(migrated, tmp_path / owner, owner))[0].is_complete
    for owner in ("alice", "bob"):
        assert row(migrated, "threads", f"of {owner}")["owner_id"] == owner
        unchanged((await from_sqlite(migrated, tmp_path / owner, owner))[0])


async def test_two_imports_at_once(migrated: str, file: Path) -> None:
    for number in range(20):
        thread(file, f"t{number}", 1, 2)
    reports = await asyncio.gather(*(from_sqlite(migrated, file) for _ in range(3)))
    assert [(report.is_complete, told) for report, told in reports] == [(True, [])] * 3
    written = [report.counts["checkpoints"].written for report, _ in reports]
    assert sum(written) == 40 == rows(migrated, "SELECT count(*) FROM checkpoints")[0]["count"]


async def test_what_is_there_with_other_content_stays(migrated: str, file: Path) -> None:
    thread(file, "t", 1, 2, 3)
    assert (await from_sqlite(migrated, file))[0].is_complete
    statements(
        migrated,
        """UPDATE checkpoints SET metadata = '{"changed": true}' WHERE checkpoint_id = 't0'""",
        "UPDATE checkpoint_writes SET blob = 'changed' WHERE checkpoint_id = 't1'",
        "DELETE FROM checkpoints WHERE checkpoint_id = 't2'",
        # The value of the one that is not there any more.
        "UPDATE checkpoint_blobs SET blob = 'changed' WHERE version = (SELECT max(version) FROM checkpoint_blobs)",
    )
    before = [
        rows(migrated, f"SELECT * FROM {table}") for table in ("checkpoints", "checkpoint_writes", "checkpoint_blobs")
    ]
    for dry_run in (True, False):
        report, told = await from_sqlite(migrated, file, dry_run=dry_run)
        counted(report, checkpoints=(3, 0, 1, 1, 1), values=(3, 0, 2, 1, 0), writes=(3, 0, 2, 1, 0))
        assert told[0].startswith("clash: values: t /  / a / ")
        assert told[1] == "clash: writes: t /  / t1 / task 1 / 0: other content is there, and stays"
        # It would be read with a value that is not its own.
        assert sorted(told[2:]) == [
            "clash: checkpoints: t /  / t0: other content is there, and stays",
            "refused: checkpoints: t /  / t2: the value of its channel a is not there",
        ]
        assert before == [
            rows(migrated, f"SELECT * FROM {table}")
            for table in ("checkpoints", "checkpoint_writes", "checkpoint_blobs")
        ]


async def test_a_dry_run_tells_what_would_be(migrated: str, file: Path) -> None:
    thread(file, "t", 1, 2)
    tried, _ = await from_sqlite(migrated, file, dry_run=True)
    assert rows(migrated, "SELECT * FROM langgraph_server.threads") == []
    assert rows(migrated, "SELECT * FROM checkpoint_blobs") == []
    done, _ = await from_sqlite(migrated, file)
    assert tried.counts == done.counts
    assert tried.lines()[0] == "values: 2 read, 2 to be written, 0 there already, 0 clashing, 0 refused"
    assert tried.lines()[-1] == "read back and compared with the source: 0 rows, equal"
    assert done.lines() == [
        "values: 2 read, 2 written, 0 there already, 0 clashing, 0 refused",
        "writes: 2 read, 2 written, 0 there already, 0 clashing, 0 refused",
        "checkpoints: 2 read, 2 written, 0 there already, 0 clashing, 0 refused",
        "read back and compared with the source: 6 rows, equal",
    ]
    unchanged((await from_sqlite(migrated, file, dry_run=True))[0])


async def test_what_is_deleted_while_it_is_imported_is_lost(migrated: str, file: Path) -> None:
    thread(file, "t", 1)
    # As a program would that prunes at the same moment.
    statements(
        migrated,
        "CREATE FUNCTION gone() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN DELETE FROM checkpoint_writes; RETURN NULL; END'",
        "CREATE CONSTRAINT TRIGGER gone AFTER INSERT ON checkpoint_writes DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
        " EXECUTE FUNCTION gone()",
    )
    report, told = await from_sqlite(migrated, file)
    assert told == ["lost: writes: t /  / t0 / task 0 / 0: it was written, and something has deleted it"]
    assert not report.is_complete
    assert report.lines()[1] == "writes: 1 read, 0 written, 0 there already, 0 clashing, 0 refused, 1 lost"


async def test_a_file_that_is_written_to(migrated: str, file: Path) -> None:
    """What is only in the log of the file is there, too; and who writes it is not held up."""
    with sqlite_saver(file) as saver:
        made = checkpoint({"a": [1]})
        saver.put(config("t"), made, metadata(), made["channel_versions"])
        assert file.with_name(file.name + "-wal").stat().st_size
        with sqlite_file.opened(str(file)):
            made = checkpoint({"a": [2]})
            saver.put(config("t"), made, metadata(), made["channel_versions"])
        assert (await from_sqlite(migrated, file))[0].counts["checkpoints"].written == 2


async def test_a_file_in_a_directory_that_cannot_be_written_to() -> None:
    """SQLite makes files beside one that has had a log, even to read it."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        file = Path(name) / "file"
        thread(file, "t", 1, 2)
        file.chmod(0o444)
        os.chmod(name, 0o555)  # noqa: S103 - a directory of this test, which another user is to read
        stack.callback(os.chmod, name, 0o755)
        if os.geteuid() == 0:  # who may write everywhere
            os.seteuid(65534)
            stack.callback(os.seteuid, 0)
        with sqlite_file.opened(str(file)) as source:
            assert len([row async for row in source.rows(CHECKPOINTS)]) == 2


async def test_a_file_whose_log_cannot_be_read(migrated: str, file: Path) -> None:
    """Without it, what was written last would be missed."""
    thread(file, "t", 1)
    file.with_name(file.name + "-wal").mkdir()
    file.with_name(file.name + "-wal").joinpath("something").touch()
    with pytest.raises(SourceError, match="unable to open database file"):
        await from_sqlite(migrated, file)


def _directory(file: Path) -> None:
    file.mkdir()


def _garbage(file: Path) -> None:
    file.write_text("garbage" * 1000)


def _empty(file: Path) -> None:
    file.write_bytes(b"")


def _tables(*statements: str) -> Callable[[Path], None]:
    def make(file: Path) -> None:
        with closing(sqlite3.connect(file)) as conn:
            for statement in statements:
                conn.execute(statement)

    return make


def _damaged(file: Path) -> None:
    for number in range(30):
        raw(file, f"t{number}", "1", checkpoint({"a": ["x" * 4000]}))
    data = bytearray(file.read_bytes())
    data[8192:] = b"\xaa" * (len(data) - 8192)
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda file: None, "is not there, or is no file"),
        (_directory, "is not there, or is no file"),
        (_garbage, "can't be read: file is not a database"),
        (_empty, "has no table checkpoints and no table writes: it holds no checkpoints of LangGraph"),
        (_tables(imported.CHECKPOINTS), "has no table writes"),
        (
            _tables("CREATE TABLE checkpoints (thread_id TEXT, thread_ts TEXT, checkpoint BLOB)", imported.OLD_WRITES),
            "has no column checkpoint_id, checkpoint_ns, metadata, parent_checkpoint_id, type: it is not of this LangGraph",
        ),
        (_damaged, "can't be read: database disk image is malformed"),
    ],
    ids=["absent", "directory", "garbage", "empty", "no writes", "old", "damaged"],
)
async def test_what_is_no_file_of_checkpoints(
    migrated: str, file: Path, make: Callable[[Path], None], named: str
) -> None:
    make(file)
    with pytest.raises(SourceError) as raised:
        await from_sqlite(migrated, file)
    assert named in str(raised.value)
    assert str(file) in str(raised.value)


async def test_a_database_that_is_not_migrated(empty: str, file: Path) -> None:
    thread(file, "t", 1)
    with pytest.raises(MigrationError, match="storage-service migrate"):
        await from_sqlite(empty, file)


async def test_writes_that_are_encrypted_come_over_as_they_are(migrated: str, file: Path) -> None:
    """Only what must be taken apart must be read."""
    with sqlite_saver(file) as saver:
        saver.serde = EncryptedSerializer(Mask())
        saver.put_writes(config("t", "1"), [("a", "secret")], "task")
        expected = saver.conn.execute("SELECT type, value FROM writes").fetchall()
    report, _ = await from_sqlite(migrated, file)
    counted(report, writes=(1, 1, 0, 0, 0))
    assert [
        (kept["type"], kept["blob"]) for kept in rows(migrated, "SELECT type, blob FROM checkpoint_writes")
    ] == expected
