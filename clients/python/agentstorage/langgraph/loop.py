"""One event loop in a daemon thread, on which synchronous callers of any thread run coroutines."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Thread(threading.Thread):
    """A thread that runs an event loop as long as the process lives, and does not keep it alive."""

    def __init__(self) -> None:
        super().__init__(name="agentstorage", daemon=True)
        self.loop = asyncio.new_event_loop()
        self.start()

    def run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()


_lock = threading.Lock()
_thread: _Thread | None = None


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the shared loop and return its result; whoever is interrupted while waiting cancels it.

    RuntimeError on the shared loop itself, which would wait for its own end.
    """
    global _thread
    with _lock:
        if _thread is None:
            _thread = _Thread()
        thread = _thread
    if threading.current_thread() is thread:
        coroutine.close()
        raise RuntimeError("a synchronous call on the loop that answers it would never end: await the async method")
    future = asyncio.run_coroutine_threadsafe(coroutine, thread.loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def running() -> asyncio.AbstractEventLoop | None:
    """Say in which event loop this is, or None outside of any."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _forget() -> None:
    """Leave the loop to the parent process: its thread does not run in this one."""
    global _lock, _thread
    _lock, _thread = threading.Lock(), None


os.register_at_fork(after_in_child=_forget)
