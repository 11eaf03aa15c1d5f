"""How items live on when they are read, as SQL: what a search found is refreshed in the same statement."""

from __future__ import annotations

from typing import Final

from storage_service.store.tables import ITEMS

#: When an item ends, from its minutes to live.
ENDS: Final = "now() + make_interval(secs => {} * 60)"
#: What "found" must have beside the items' columns, to be refreshed.
PLACE: Final = '"namespace" AS place, "owner_id" AS owner'
#: The WITH queries that refresh the items of "found". An item that another call has at work just now is passed over, since that call
#: puts, deletes or refreshes it: to wait for it, in whatever order, might be to wait for each other.
REFRESHED: Final = (
    f"held AS (SELECT i.namespace, i.key, i.owner_id FROM found AS f JOIN {ITEMS.name} AS i"
    " ON i.namespace = f.place AND i.key = f.key AND i.owner_id = f.owner WHERE f.ttl_minutes IS NOT NULL"
    " FOR UPDATE OF i SKIP LOCKED),"
    f" refreshed AS (UPDATE {ITEMS.name} AS i SET expires_at = {ENDS.format('i.ttl_minutes')} FROM held AS h"
    " WHERE i.namespace = h.namespace AND i.key = h.key AND i.owner_id = h.owner_id)"
)
#: The columns of "found" as they are then.
REFRESHED_ITEM: Final = ", ".join(
    f"coalesce({ENDS.format('ttl_minutes')}, expires_at)" if name == "expires_at" else f'"{name}"'
    for name in ITEMS.fields
)
