"""Servers for the tests of clients in other languages, told what to do line by line.

Started as ``python -m tests.clients.serving``, it reads commands from its input and answers each with a line of JSON: its result, or
``{"error": ...}``. It ends with its input, and so do the servers.

    start {"backend": "postgres", "database": NAME, "port": 0, "environment": {}, "arguments": []}
        a server: {"id", "target", "port", "database_url"}
    stop {"id": ID}, kill {"id": ID}      end it as an operator does, as a crash does
    freeze {"id": ID}, thaw {"id": ID}    hold it where it is, let it go on
    database {}                           a new database: {"name", "url"}
"""

from __future__ import annotations

import json
import signal
import sys
from typing import Any

from tests.postgres_server import PostgresServer, end, start
from tests.service import ServerProcess


class Servers:
    """The servers that were asked for."""

    def __init__(self) -> None:
        self._postgres: PostgresServer | None = None
        self._running: dict[int, ServerProcess] = {}
        self._last = 0

    def database(self) -> dict[str, Any]:
        """Make a database."""
        if self._postgres is None:
            self._postgres = start()
        name = self._postgres.create_database()
        return {"name": name, "url": self._postgres.url(name, tcp=True)}

    def start(
        self,
        backend: str,
        database: str = "",
        port: int = 0,
        environment: dict[str, str] | None = None,
        arguments: tuple[str, ...] = (),
    ) -> dict[str, Any]:
        """Start a server, on a database of its own unless one is named."""
        url = ""
        if backend == "postgres":
            name = database or self.database()["name"]
            assert self._postgres is not None
            url = self._postgres.url(name, tcp=True)
        server = ServerProcess(backend, url, environment=environment or {}, arguments=tuple(arguments), port=port)
        server.start()
        self._last += 1
        self._running[self._last] = server
        return {"id": self._last, "target": server.target, "port": server.port, "database_url": url}

    def stop(self, id: int) -> dict[str, Any]:
        """Stop a server."""
        return {"status": self._running.pop(id).stop()}

    def kill(self, id: int) -> dict[str, Any]:
        """Kill a server."""
        self._running.pop(id).kill()
        return {}

    def freeze(self, id: int) -> dict[str, Any]:
        """Hold a server where it is."""
        self._running[id].process.send_signal(signal.SIGSTOP)
        return {}

    def thaw(self, id: int) -> dict[str, Any]:
        """Let a server go on."""
        self._running[id].process.send_signal(signal.SIGCONT)
        return {}

    def end(self) -> None:
        """End everything."""
        for server in self._running.values():
            server.process.send_signal(signal.SIGCONT)
            server.kill()
        if self._postgres is not None:
            end(self._postgres)


def main() -> None:
    """Do what the input says until it ends."""
    servers = Servers()
    commands = {name: getattr(servers, name) for name in ("database", "start", "stop", "kill", "freeze", "thaw")}
    try:
        for line in sys.stdin:
            name, _, rest = line.partition(" ")
            try:
                answer = commands[name.strip()](**json.loads(rest or "{}"))
            # Whatever it is, the one who asked has to hear of it.
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), flush=True)
    finally:
        servers.end()


if __name__ == "__main__":
    main()
