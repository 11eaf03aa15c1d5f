"""The command ``storage-service sweep``: one pass of what ``serve`` does in the background, at once, and as far as it is told."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

from storage_service.commandline import read_settings, require_database, run

if TYPE_CHECKING:
    from storage_service.retention import Sweep
    from storage_service.settings import Settings
    from storage_service.store.postgres import PostgresStore
    from storage_service.store.retention import Swept

# What the command says of each kind, and of what it would do.
_LINES: Final = {
    "threads": ("threads: {} deleted", "threads: {} would be deleted"),
    "pruned": ("threads: {} left with their newest alone", "threads: {} would be left with their newest alone"),
    "renewed": ("threads: {} still in use", "threads: {} still in use"),
    "items": ("items: {} deleted", "items: {} would be deleted"),
    "checkpoints": ("checkpoints: {} deleted for their age", "checkpoints: {} would be deleted for their age"),
    "blobs": ("values that no checkpoint uses: {} deleted", "values that no checkpoint uses: {} would be deleted"),
}
# The same of checkpoints where none is too old.
_WITHOUT_AGE: Final = tuple(
    f"checkpoints: {what}: no age is set (--older-than, STORAGE_CHECKPOINT_DAYS)"
    for what in ("{} deleted", "{} would be deleted")
)


@click.command()
@click.option("--owner", help="Only what this owner has.")
@click.option("--thread", default="", help="Only this thread.")
@click.option(
    "--older-than",
    metavar="DAYS",
    type=click.FloatRange(min=0),
    help="Delete checkpoints that are older and not needed any more (STORAGE_CHECKPOINT_DAYS).",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done and do nothing.")
def sweep(owner: str | None, thread: str, older_than: float | None, dry_run: bool) -> None:
    """Delete what has outlived its time: threads, items, old checkpoints, and values that no checkpoint uses."""
    if older_than is not None and not math.isfinite(older_than):
        raise click.BadParameter("a number of days", param_hint="--older-than")
    settings = read_settings(migrate=False)
    require_database(settings)
    if owner == "":
        raise click.ClickException("--owner must not be empty")
    days = (settings.checkpoint_days or None) if older_than is None else older_than
    run(_sweep(settings, owner, thread, days, dry_run))


async def _sweep(settings: Settings, owner: str | None, thread: str, days: float | None, dry_run: bool) -> int:
    from storage_service import logs
    from storage_service.caller import AllOwners, Owner
    from storage_service.errors import Failure
    from storage_service.retention import Sweep, before_days
    from storage_service.server import open_store
    from storage_service.store.postgres import PostgresStore

    # What else there is to say, the command says in its own words.
    logs.set_up("ERROR")
    async with open_store(settings) as store:
        if trouble := store.trouble():
            raise click.ClickException(trouble)
        assert isinstance(store, PostgresStore)  # noqa: S101 - there is a URL
        what = Sweep(store, AllOwners() if owner is None else Owner(owner), thread)
        before = "" if days is None else before_days(days)
        try:
            if thread and not (await what.through_threads(_count)).total():
                whose = "" if owner is None else " of this owner"
                raise click.ClickException(f"not swept: {thread} (no thread{whose} has this id)")
            if dry_run:
                swept = await _would_sweep(store, what, before)
            else:
                swept = await what.threads() + await what.items() + await what.checkpoints(before)
        except Failure as failure:
            raise click.ClickException(f"{failure.message}; what was done until then stays done") from failure
    for kind, texts in (_LINES if days is not None else _LINES | {"checkpoints": _WITHOUT_AGE}).items():
        click.echo(texts[dry_run].format(swept[kind]))
    return 0


async def _count(thread_ids: Sequence[str]) -> Swept:
    return Counter(threads=len(thread_ids))


async def _would_sweep(store: PostgresStore, what: Sweep, before: str) -> Swept:
    """What a pass would do now."""

    async def look(thread_ids: Sequence[str]) -> Swept:
        expired = await store.seen_by(what.scope).expired_threads(thread_ids)
        left = [id for id in thread_ids if expired.get(id, "renewed") == "renewed"]
        old = await store.seen_by(what.scope).sweep_checkpoints(left, before, dry_run=True)
        return Counter(expired.values()) + old

    swept = await what.through_threads(look)
    if not what.thread_id:
        swept["items"] = await store.seen_by(what.scope).expired_items()
    return swept
