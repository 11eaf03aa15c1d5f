"""The command ``storage-service top``: a running server as it is now, drawn again and again, through the Python client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from storage_service.commandline import read_settings, run
from storage_service.terminal import print_anything
from storage_service.validate import check_id

if TYPE_CHECKING:
    from agentstorage import Connection, StorageError
    from storage_service.settings import Settings
    from storage_service.top_view import Figures, Look

# The time for an answer, in seconds, and that for finding out why there is none.
_ANSWER_SECONDS, _HEALTH_SECONDS = 5.0, 2.0
# What is shown takes so many columns, also of a wider terminal.
_COLUMNS: Final = 80
# The terminal's other screen and back, without and with its cursor; to its first place; to clear the rest of the line, of the screen.
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


@click.command()
@click.option("--target", help="The server, as HOST:PORT; by default the one that serve's settings name.")
@click.option(
    "--interval",
    metavar="SECONDS",
    type=click.FloatRange(min=0.2, max=3600),
    default=2.0,
    show_default=True,
    help="Time between two looks.",
)
@click.option("--owner", help="Only the runs and crons of this owner.")
@click.option("--once", is_flag=True, help="Look once; exit status 1 when the server did not tell everything.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, an object on a line for each look.")
@click.option("--tls", is_flag=True, help="Use TLS with the system's authorities.")
@click.option("--tls-ca", metavar="FILE", help="Use TLS with these authorities (PEM).")
def top(
    target: str | None, interval: float, owner: str | None, once: bool, as_json: bool, tls: bool, tls_ca: str | None
) -> None:
    """Watch a running server: runs, queue, connections, the slowest methods. Ctrl-C ends it.

    The token and the like are those of the Python client: AGENTSTORAGE_TOKEN, AGENTSTORAGE_TOKEN_FILE, AGENTSTORAGE_TLS_CA and so on.
    """
    if math.isnan(interval):
        raise click.BadParameter("a number of seconds", param_hint="--interval")
    if owner is not None and (wrong := check_id(owner)):
        raise click.ClickException(f"--owner {wrong}")
    print_anything()
    run(_top(target, interval, owner, once, as_json, tls, tls_ca, read_settings()))


async def _top(
    target: str | None,
    interval: float,
    owner: str | None,
    once: bool,
    as_json: bool,
    tls: bool,
    tls_ca: str | None,
    settings: Settings,
) -> int:
    from storage_service import logs

    # What else there is to say, the command says in its own words.
    logs.set_up("ERROR")
    server = _Server(target, owner, tls, tls_ca, settings)
    async with server.connection:
        if once:
            look = await server.look()
            shown = _figures(look, None)
            if look.problem and not as_json:
                raise click.ClickException(look.problem)
            _print(shown, server, as_json)
            return 1 if look.problem or look.refused else 0
        if sys.stdout.isatty() and not as_json:
            return await _Screen(server).run(interval)
        await _follow(server, interval, lambda shown: _print(shown, server, as_json))
    return 0


def _in_options(text: str) -> str:
    """What the client says of its arguments, in words of this command."""
    for argument, option in (
        ("tls=True", "--tls"),
        ("tls_ca=...", "--tls-ca FILE"),
        ("plaintext_token=True", "AGENTSTORAGE_PLAINTEXT_TOKEN=true"),
    ):
        text = text.replace(argument, option)
    return text


class _Server:
    """The server that is watched, and for whom. Raises ClickException for a target, a token or a file that can't be used."""

    def __init__(
        self, target: str | None, owner: str | None, tls: bool, tls_ca: str | None, settings: Settings
    ) -> None:
        from agentstorage import Connection

        self.target = target or settings.target()
        if not (tls or tls_ca or os.environ.get("AGENTSTORAGE_TLS_CA")) and settings.tls_cert_file:
            # The server's own certificate is the one to trust here.
            tls_ca = settings.tls_cert_file
        self._tls = tls
        self._tls_ca = tls_ca or os.environ.get("AGENTSTORAGE_TLS_CA")
        self._proxy = target is not None
        try:
            # One connection, so that all answers come from one process of the service, whose figures can be compared.
            self.connection: Connection = Connection(
                self.target, tls=True if tls else None, tls_ca=tls_ca, read_timeout=_ANSWER_SECONDS, exchange=False
            )
        except (ValueError, OSError) as error:
            raise click.ClickException(_in_options(str(error))) from error
        self.owner = owner or self.connection.owner_id

    async def look(self) -> Look:
        """Ask the server for all that there is to show."""
        from agentstorage.v1 import runs_pb2, runs_pb2_grpc, server_pb2, server_pb2_grpc
        from storage_service.top_view import Look

        server = self.connection.stub(server_pb2_grpc.ServerServiceStub)
        runs = self.connection.stub(runs_pb2_grpc.RunServiceStub)
        (info, problem), (stats, refused) = await asyncio.gather(
            self._answer(server.GetServerInfo(server_pb2.GetServerInfoRequest())),
            self._answer(runs.GetRunStats(runs_pb2.GetRunStatsRequest(owner_id=self.owner))),
        )
        seconds, now = time.monotonic(), datetime.now(UTC)
        if info is None:
            return Look(seconds, now, problem=await self._why(problem))
        return Look(seconds, now, info, stats, "", "" if refused is None else await self._why(refused))

    async def _answer(self, call: Awaitable[Any]) -> tuple[Any, StorageError | None]:
        from agentstorage import StorageError

        try:
            return await call, None
        except StorageError as error:
            return None, error

    async def _why(self, error: StorageError | None) -> str:
        """Why a call failed, in a line that says what to do."""
        from agentstorage import errors

        match error:
            case errors.OwnerRequired():
                return (
                    'refused for all owners: name one with --owner, or give the token the right "unscoped"'
                    " (without tokens: STORAGE_ANONYMOUS_RIGHTS)"
                )
            case errors.PermissionDenied():
                return f"refused: the token may not act for the owner {self.owner}; name another with --owner"
            case errors.Unauthenticated():
                return (
                    "refused: the server wants a token that it knows, in AGENTSTORAGE_TOKEN or AGENTSTORAGE_TOKEN_FILE"
                )
            case errors.Unreachable():
                return await self._why_unreachable()
            case errors.DeadlineExceeded():
                return f"{self.target}: DEADLINE_EXCEEDED: no answer within {_ANSWER_SECONDS:g} s"
            case errors.Unimplemented():
                return f"{self.target} is no storage service, or older than this command: it does not know {error.method[1:]}"
            case errors.StorageError():
                return f"{self.target}: {error.code.name}: {error.message}"
        return ""

    async def _why_unreachable(self) -> str:
        """What ``storage-service health`` says."""
        from storage_service import probe
        from storage_service.settings import SettingsError

        try:
            authorities = probe.trusted(self._tls_ca, "the file of the authorities") if self._tls_ca else None
            answer = await probe.ask(
                self.target,
                "",
                _HEALTH_SECONDS,
                tls=self._tls or authorities is not None,
                authorities=authorities,
                proxy=self._proxy,
            )
        except SettingsError as error:
            return str(error)
        line = f"{self.target}: UNAVAILABLE: the connection broke" if answer.serves else answer.line
        return line if self._proxy else f"{line}; --target HOST:PORT names another server"


def _figures(look: Look, before: Look | None) -> Figures:
    from storage_service.top_view import figures

    return figures(look, before)


async def _follow(server: _Server, interval: float, show: Callable[[Figures], None]) -> None:
    """Look at a server and show it, for ever."""
    before: Look | None = None
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        look = await server.look()
        show(_figures(look, before))
        before = look
        # After an answer that took long the next look is due at once, and no more than one.
        due = max(due + interval, loop.time())
        await asyncio.sleep(due - loop.time())


def _print(shown: Figures, server: _Server, as_json: bool) -> None:
    """Print a look below the one before."""
    from storage_service import top_view

    if as_json:
        click.echo(json.dumps(top_view.as_json(shown, server.target, server.owner)))
    else:
        text = top_view.lines(shown, server.target, server.owner, _COLUMNS, None)
        click.echo("\n".join(text) + "\n")
    sys.stdout.flush()


class _Screen:
    """A terminal that shows a server in place, on its other screen; in the end it is as it was."""

    def __init__(self, server: _Server) -> None:
        self._server = server
        self._shown: Figures | None = None

    async def run(self, interval: float) -> int:
        """Show the server until Ctrl-C or SIGTERM; gives the exit status of the latter."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - this runs in one
        ended: list[int] = []

        def end() -> None:
            ended.append(128 + signal.SIGTERM)
            task.cancel()

        with self._entered(end):
            try:
                await _follow(self._server, interval, self._show)
            except asyncio.CancelledError:
                if not ended:
                    raise
                task.uncancel()
        return ended[0]

    @contextlib.contextmanager
    def _entered(self, end: Callable[[], None]) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        handlers: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGTERM: end,
            signal.SIGWINCH: self._draw,
            signal.SIGTSTP: self._suspend,
        }
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        self._write(_ENTER)
        try:
            yield
        finally:
            for number in handlers:
                loop.remove_signal_handler(number)
            self._write(_LEAVE)

    def _suspend(self) -> None:
        """Ctrl-Z: give the terminal back, and take it again when the command goes on."""
        self._write(_LEAVE)
        os.kill(os.getpid(), signal.SIGSTOP)
        self._write(_ENTER)
        self._draw()

    def _show(self, shown: Figures) -> None:
        self._shown = shown
        self._draw()

    def _draw(self) -> None:
        from storage_service import top_view

        if self._shown is None:
            return
        columns, rows = self._size()
        # A full last column would make some terminals begin a line.
        text = top_view.lines(self._shown, self._server.target, self._server.owner, min(columns, _COLUMNS) - 1, rows)
        self._write(_HOME + f"{_CLEAR_LINE}\n".join(text) + _CLEAR_LINE + _CLEAR_BELOW)

    @staticmethod
    def _size() -> tuple[int, int]:
        """Columns and rows; a terminal may not say."""
        columns, rows = 0, 0
        with contextlib.suppress(OSError):
            columns, rows = os.get_terminal_size(sys.stdout.fileno())
        return columns or _COLUMNS, rows or 24

    @staticmethod
    def _write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
