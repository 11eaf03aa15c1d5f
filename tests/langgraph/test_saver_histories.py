"""Histories of delta channels: from one call what the base class makes of many, in chains with forks."""

from __future__ import annotations

import random
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, ChannelVersions
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.types import _DeltaSnapshot

from agentstorage.langgraph import AsyncGrpcSaver
from tests.langgraph.checkpoints import checkpoint, config, metadata

CHANNELS = ["seldom", "often", "plain", "never"]


def value_of(channel: str, dice: random.Random) -> Any:
    """What a checkpoint keeps of a channel; None for nothing."""
    kept = {"seldom": 0.1, "often": 0.5, "plain": 0.2, "never": 0.0}[channel]
    if dice.random() > kept:
        return None
    number = dice.randrange(1000)
    return dice.choice([f"t{number}", number, number / 8, [number]]) if channel == "plain" else _DeltaSnapshot([number])


@pytest.mark.parametrize("seed", range(4))
async def test_histories_are_those_of_a_walk(saver: AsyncGrpcSaver, thread: str, seed: int) -> None:
    dice = random.Random(seed)
    memory = InMemorySaver()
    made: list[RunnableConfig] = []
    versions: ChannelVersions = {}
    for step in range(40):
        before = config(thread) if not made else dice.choice([made[-1], made[-1], made[-1], dice.choice(made)])
        values = {channel: value for channel in CHANNELS if (value := value_of(channel, dice)) is not None}
        new: ChannelVersions = {channel: saver.get_next_version(None, None) for channel in CHANNELS}
        versions |= new
        here = checkpoint(values, dict(versions))
        writes = [
            (
                [(dice.choice(CHANNELS), [step, task, index]) for index in range(dice.randrange(4))],
                f"{dice.random()}",
                f"~{dice.random()}",
            )
            for task in range(dice.randrange(4))
        ]
        for own in (saver, memory):
            where = await own.aput(before, here, metadata(step), new)
            for values_of_task, task_id, path in writes:
                await own.aput_writes(where, values_of_task, task_id, path)
        made.append(where)
    for where in (*made, config(thread)):
        found: Any = await saver.aget_delta_channel_history(config=where, channels=CHANNELS)
        assert found == await BaseCheckpointSaver.aget_delta_channel_history(saver, config=where, channels=CHANNELS)
        assert found == await memory.aget_delta_channel_history(config=where, channels=CHANNELS)
    unknown: Any = await saver.aget_delta_channel_history(config=config(thread, "none"), channels=["often"])
    assert unknown == {"often": {"writes": []}}
