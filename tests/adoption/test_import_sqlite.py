"""Checkpoints of a SQLite file come over as LangGraph's Postgres savers would have written them, each value as it was."""

from __future__ import annotations

import json
import sqlite3
from collections import deque
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import ormsgpack
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.base import ChannelVersions
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.jsonplus import EXT_CONSTRUCTOR_KW_ARGS, EXT_CONSTRUCTOR_SINGLE_ARG, JsonPlusSerializer
from langgraph.checkpoint.serde.types import TASKS, _DeltaSnapshot
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.types import Send

from tests.adoption import imported
from tests.adoption.imported import counted, from_sqlite, listed, raw, sqlite_saver, tuples, unchanged
from tests.adoption.runtimes import row, rows, statements
from tests.langgraph.checkpoints import checkpoint, config, metadata
from tests.langgraph.graphs import SCENARIOS, Delta, delta_graph, history


class Mood(StrEnum):
    GOOD = "good"


@dataclass
class Point:
    x: int


VALUES: dict[str, Any] = {
    "none": None,
    "text": "é \\ \" '",
    "nul": "a\0b",
    "long": "é" * 300_000,
    "number": 2**63,
    "float": -0.25,
    "large": 1e300,
    "zero": -0.0,
    "bool": False,
    "list": ["é", {"a": (1,)}],
    "data": b"\0\xff",
    "set": {"x", "y", "z"},
    "deque": deque([1, 2]),
    "mood": Mood.GOOD,
    "point": Point(1),
    "time": datetime(2026, 1, 2, tzinfo=UTC),
    "messages": [HumanMessage("hi", id="1"), AIMessage("hello", id="2")],
    "keys": {1: "int", (1, 2): "tuple"},
    "snapshot": _DeltaSnapshot([1, {"s"}]),
}


def fill(saver: SqliteSaver, thread: str) -> None:
    """A thread with everything in it."""
    first = checkpoint(VALUES)
    first["versions_seen"] = {"node": {"text": first["channel_versions"]["text"]}}
    about = metadata(run_id="r1", note="x\0y", deep={"k": [1, None]}, writes={"left": "out"})
    where = saver.put({**config(thread), "metadata": {"user": "u"}}, first, about, first["channel_versions"])
    saver.put_writes(where, [("a", ["é", 1]), ("b", None)], "t2", "~b")
    saver.put_writes(where, [("a", Send("node", {"x": 1})), ("__interrupt__", ("why",))], "t1", "~b")
    version = saver.get_next_version(None, None)
    second = checkpoint({**VALUES, "list": ["new"]}, {**first["channel_versions"], "list": version, "gone": "3"})
    saver.put(where, second, metadata(1), {"list": version, "gone": "3"})
    child = checkpoint({"n": [1]})
    saver.put(config(thread, ns="child:1"), child, metadata(), child["channel_versions"])


async def test_values_of_every_kind(migrated: str, file: Path) -> None:
    with sqlite_saver(file) as saver:
        fill(saver, "t")
        expected = listed(saver, "t")
    report, told = await from_sqlite(migrated, file)
    assert (report.is_complete, told) == (True, [])
    # Four primitives, a text without NUL among them, are in the JSON; of the first checkpoint's values only one changes.
    counted(report, checkpoints=(3, 3, 0, 0, 0), values=(16, 16, 0, 0, 0), writes=(4, 4, 0, 0, 0))
    found = await tuples(migrated, "t")
    assert [item.checkpoint for item in found] == [item.checkpoint for item in expected]
    assert [type(item.checkpoint["channel_values"].get("mood")) for item in found] == [type(None), Mood, Mood]
    assert [(item.config, item.parent_config, item.pending_writes) for item in found] == [
        (item.config, item.parent_config, item.pending_writes) for item in expected
    ]
    # What LangGraph's Postgres savers leave out of metadata, too.
    wanted = [{key: value for key, value in item.metadata.items() if key != "writes"} for item in expected]
    assert [item.metadata for item in found] == wanted
    assert found[2].metadata["note"] == "xy"  # type: ignore[typeddict-item]  # metadata may hold anything
    assert row(migrated, "threads", "t")["owner_id"] == "alice"
    unchanged((await from_sqlite(migrated, file))[0])


async def test_the_rows_are_those_that_langgraph_writes(migrated: str, file: Path) -> None:
    values = {key: VALUES[key] for key in ("none", "text", "float", "bool", "list", "messages", "data", "snapshot")}
    made = checkpoint(values)
    with sqlite_saver(file) as saver:
        where = saver.put(config("t"), made, metadata(note="x\0y"), made["channel_versions"])
        saver.put_writes(where, [("a", 1), ("__error__", "e")], "t1", "~a")
    await from_sqlite(migrated, file)
    tables = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")
    found = [rows(migrated, f"SELECT * FROM public.{table} ORDER BY 1, 2, 3, 4, 5") for table in tables]
    statements(migrated, *(f"DELETE FROM public.{table}" for table in tables))
    async with AsyncPostgresSaver.from_conn_string(migrated) as direct:
        where = await direct.aput(config("t"), made, metadata(note="x\0y"), made["channel_versions"])
        await direct.aput_writes(where, [("a", 1), ("__error__", "e")], "t1", "~a")
    assert found == [rows(migrated, f"SELECT * FROM public.{table} ORDER BY 1, 2, 3, 4, 5") for table in tables]
    assert [len(found) for found in found] == [1, 4, 2]


async def test_graphs_go_on_where_they_were(migrated: str, file: Path) -> None:
    async with AsyncSqliteSaver.from_conn_string(str(file)) as saver:
        for name, scenario in SCENARIOS.items():
            await scenario(saver, {"configurable": {"thread_id": name}})
        graph = delta_graph(saver, Delta)
        expected = await history(graph, config("deltas"))
        state = await graph.aget_state(config("deltas"))
        told = {name: [item async for item in saver.alist({"configurable": {"thread_id": name}})] for name in SCENARIOS}
    report, refused = await from_sqlite(migrated, file)
    assert (report.is_complete, refused) == (True, [])
    assert report.counts["checkpoints"].read == sum(map(len, told.values())) > 80
    for name in SCENARIOS:
        if name != "deltas":  # whose channels are built by LangGraph from what each saver tells of them, below
            assert await tuples(migrated, name) == told[name]
    async with AsyncPostgresSaver.from_conn_string(migrated) as direct:
        graph = delta_graph(direct, Delta)
        assert await history(graph, config("deltas")) == expected
        result = await graph.ainvoke({"log": ["after"], "turn": 11}, config("deltas"))
        assert result["log"][: len(state.values["log"])] == state.values["log"]


async def test_nothing_of_the_file_is_executed(migrated: str, file: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    # What a file can hold: a call of a function, and an object of a class that is not here.
    call = ormsgpack.Ext(EXT_CONSTRUCTOR_SINGLE_ARG, ormsgpack.packb(("os", "mkdir", str(made))))
    stranger = ormsgpack.Ext(EXT_CONSTRUCTOR_KW_ARGS, ormsgpack.packb(("no.such.module", "Thing", {"x": 1})))
    raw(file, "t", "1", checkpoint({"call": call, "strangers": [stranger]}, {"call": "1", "strangers": "1"}))
    assert (await from_sqlite(migrated, file))[0].is_complete
    assert not made.exists()
    kept = {row["channel"]: row["blob"] for row in rows(migrated, "SELECT channel, blob FROM checkpoint_blobs")}
    assert kept == {"call": ormsgpack.packb(call), "strangers": ormsgpack.packb([stranger])}
    # It is what LangGraph would have called.
    JsonPlusSerializer().loads_typed(("msgpack", kept["call"]))
    assert made.exists()


async def test_values_that_changed_without_a_new_version(migrated: str, file: Path) -> None:
    """As where a node changes a list in place, or a set is written in another order by another process."""
    same = {"other": [1]}
    versions: ChannelVersions = {"log": f"{1:032}.5", "other": f"{1:032}.6"}
    expected = []
    for number, log in enumerate((["a"], ["a", "b"], ["a", "b"], ["a"], ["a", "b", "c"])):
        made = checkpoint({"log": log, **same}, versions, checkpoint_id=f"{number}")
        made["versions_seen"] = {"node": {**versions}, "end": {"log": f"{0:032}.7"}}
        raw(file, "t", str(number), made)
        expected.append(log)
    report, told = await from_sqlite(migrated, file)
    assert (report.is_complete, told) == (True, [])
    counted(report, checkpoints=(5, 5, 0, 0, 0), values=(4, 4, 0, 0, 0))
    unchanged((await from_sqlite(migrated, file))[0])
    found = [item.checkpoint for item in reversed(await tuples(migrated, "t"))]
    assert [item["channel_values"] for item in found] == [{"log": log, **same} for log in expected]
    for item in found:
        # The order of versions is what it was: what has been seen, and what is newer.
        now, seen = item["channel_versions"]["log"], item["versions_seen"]
        assert seen["node"]["log"] == now > seen["end"]["log"]
        assert int(str(now).split(".")[0]) == 1
        assert item["channel_versions"]["other"] == seen["node"]["other"] == versions["other"]
    assert [item["channel_versions"]["log"] == versions["log"] for item in found] == [True, False, False, True, False]


async def test_versions_that_are_numbers_stand_for_one_value(migrated: str, file: Path) -> None:
    raw(file, "t", "1", checkpoint({"log": ["a"], "x": [0]}, {"log": 1, "x": 1}))
    raw(file, "t", "2", checkpoint({"new": [1], "log": ["b"]}, {"new": 1, "log": 1}))
    raw(file, "t", "3", checkpoint({"new": [1], "log": ["c"]}, {"new": 1, "log": 2}))
    report, told = await from_sqlite(migrated, file)
    assert told == [
        "refused: checkpoints: t /  / 2: another one has another value for version 1 of the channel log",
    ]
    counted(report, checkpoints=(3, 2, 0, 0, 1), values=(4, 4, 0, 0, 0))
    # The value that the refused one had first is there for the one after it.
    assert [item.checkpoint["channel_values"] for item in await tuples(migrated, "t")] == [
        {"new": [1], "log": ["c"]},
        {"log": ["a"], "x": [0]},
    ]


async def test_a_file_of_langgraph_js(migrated: str, file: Path) -> None:
    values = {"text": "é", "number": 1.5, "none": None, "list": [{"a": 1}]}
    made = checkpoint(values, dict.fromkeys(values, 1))
    with closing(sqlite3.connect(file)) as conn:
        conn.execute(imported.CHECKPOINTS)
        conn.execute(imported.OLD_WRITES)
        text = json.dumps({**made, "pending_sends": []}, ensure_ascii=False)
        conn.execute(
            "INSERT INTO checkpoints VALUES ('t', '', '1', NULL, 'json', ?, ?)", (text.encode(), '{"step": 1}')
        )
        conn.execute("INSERT INTO writes VALUES ('t', '', '1', 'task', 0, 'list', 'json', ?)", ('{"a": "é"}',))
        conn.commit()
    assert (await from_sqlite(migrated, file))[0].is_complete
    (found,) = await tuples(migrated, "t")
    assert found.checkpoint["channel_values"] == values
    assert (found.metadata, found.pending_writes) == ({"step": 1}, [("task", "list", {"a": "é"})])
    # LangGraph.js looks for none of them in the checkpoint.
    assert rows(migrated, "SELECT checkpoint -> 'channel_values' AS inline FROM checkpoints") == [{"inline": {}}]


async def test_checkpoints_of_old_formats(migrated: str, file: Path) -> None:
    """Up to format 3, what a step sent was kept with the checkpoint, and with the writes of the one before."""
    sends = [Send("node", 1), 2]
    for number in (1, 2):
        made: Any = checkpoint({"a": [number]}, {"a": f"{number:032}.1"}, checkpoint_id=str(number))
        made |= {"v": number + 1, "pending_sends": sends}
        raw(file, "t", str(number), made, parent=str(number - 1) if number > 1 else None)
    with sqlite_saver(file) as saver:
        saver.put_writes(config("t", "1"), [(TASKS, sends[0]), (TASKS, sends[1])], "task")
    assert (await from_sqlite(migrated, file))[0].is_complete
    found = await tuples(migrated, "t")
    assert [item.checkpoint["channel_values"] for item in found] == [{"a": [2], TASKS: sends}, {"a": [1], TASKS: sends}]
    assert [item.checkpoint["channel_versions"][TASKS] for item in found] == [f"{2:032}.1", f"{1:032}.1"]
