"""The benchmarks of LangGraph call what they say that they call."""

from __future__ import annotations

from collections import Counter
from typing import Any

from langgraph.checkpoint.memory import InMemorySaver

from benchmarks import targets
from benchmarks.checkpoints import CHECKPOINTS, SUPERSTEPS, calling, graph, insert, messages_of
from benchmarks.operations import Rows

ROWS = Rows.of_size(1024)


class _Counting(InMemorySaver):
    """Counts the calls of its methods."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    async def aput(self, *args: Any, **kwargs: Any) -> Any:
        self.calls["aput"] += 1
        return await super().aput(*args, **kwargs)

    async def aput_writes(self, *args: Any, **kwargs: Any) -> Any:
        self.calls["aput_writes"] += 1
        return await super().aput_writes(*args, **kwargs)

    async def aget_tuple(self, *args: Any, **kwargs: Any) -> Any:
        self.calls["aget_tuple"] += 1
        return await super().aget_tuple(*args, **kwargs)


async def _called(saver: InMemorySaver, name: str, times: int = 1) -> list[Any]:
    call = calling(saver, CHECKPOINTS[name], ROWS)
    return [await call() for _ in range(times)]


async def test_what_is_read_is_there() -> None:
    saver = InMemorySaver()
    await insert(saver, ROWS)
    found = await _called(saver, "aget_tuple", 600)
    assert len({item.config["configurable"]["thread_id"] for item in found}) == 500
    for item in found:
        assert item.parent_config
        assert item.checkpoint["channel_values"]["messages"] == messages_of(1024)
        assert [channel for _, channel, _ in item.pending_writes] == ["messages", "branch:to:agent"]


async def test_puts_go_on_with_threads_that_are_not_read() -> None:
    saver = InMemorySaver()
    await _called(saver, "aput", 1001)
    read = {config["configurable"]["thread_id"] for (config,) in _arguments("aget_tuple", 500)}
    lengths = Counter(item.config["configurable"]["thread_id"] for item in saver.list(None))
    assert not read & set(lengths)
    assert sorted(Counter(lengths.values()).items()) == [(2, 499), (3, 1)]
    first = ROWS.threads[500]
    chain = list(saver.list({"configurable": {"thread_id": first}}))
    assert [item.parent_config for item in chain] == [*(item.config for item in chain[1:]), None]


async def test_writes_are_of_another_task_each_time() -> None:
    tasks = [(config["configurable"]["checkpoint_id"], task) for config, _, task in _arguments("aput_writes", 1000)]
    assert len(set(tasks)) == 1000


async def test_a_graph_has_its_supersteps() -> None:
    saver = _Counting()
    (state,) = await _called(saver, "ainvoke")
    assert len(state["messages"]) == len(messages_of(1024)) + 2 * SUPERSTEPS
    # Those of the input and of its start beside the supersteps.
    assert saver.calls == {"aput": SUPERSTEPS + 2, "aput_writes": 2 * SUPERSTEPS + 1, "aget_tuple": 1}


async def test_a_graph_runs_two_tasks_in_a_superstep() -> None:
    built = graph(InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    await built.ainvoke({"messages": messages_of(1024)}, config)
    tasks = [len(item.next) async for item in built.aget_state_history(config)]
    assert tasks == [0, *[2] * SUPERSTEPS, 1]


def test_messages_have_the_size() -> None:
    for size in (1024, 32768):
        messages = messages_of(size)
        assert sum(len(message.text) for message in messages) == size
        assert len({message.id for message in messages}) == len(messages)


def test_figures_to_reach_against_the_saver() -> None:
    def figure(peer: str, rate: float, kind: str, callers: int) -> dict[str, Any]:
        point = {"operation": kind, "kind": kind, "payload": 1024, "callers": callers}
        return point | {"peer": peer, "calls_per_second": rate, "server_cpu_us": 100}

    figures = [
        figure(peer, rate, kind, callers)
        for kind, callers, own in (("write", 64, 2490), ("read", 16, 2000), ("write", 1, 790), ("graph", 64, 1800))
        for peer, rate in (("AsyncPostgresSaver", 1000), ("AsyncGrpcSaver", own))
    ]
    found = targets.rows({"figures": figures, "machine": {"cores": 8}, "memory": []})
    assert [row[1:] for row in found] == [
        ["2.49", ">= 2.5", "missed"],
        ["0.79", ">= 0.8", "missed"],
        ["2.00", ">= 2", "reached"],
        ["1.80", ">= 1.8", "reached"],
    ]


def _arguments(name: str, times: int) -> list[Any]:
    requests = CHECKPOINTS[name].requests(ROWS)
    return [next(requests) for _ in range(times)]
