"""Who calls, for whom, and by which right.

Two identities: the *caller* is the service behind the credential, the *owner* the tenant it acts for. A request names an owner; the
credential decides whether that is allowed.
"""

from __future__ import annotations

import hashlib
import hmac
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from storage_service.errors import OwnerRequired, PermissionDenied, Unauthenticated

SYSTEM_OWNER: Final = "system"
RIGHTS: Final = frozenset({"unscoped", "admin"})


@dataclass(frozen=True, slots=True)
class Owner:
    """One tenant: the only rows that a handle of it reads and writes are its own."""

    id: str


@dataclass(frozen=True, slots=True)
class AllOwners:
    """The right to act without an owner. A type of its own, so that no empty text or None can ever mean it."""


Scope: TypeAlias = Owner | AllOwners


@dataclass(frozen=True, slots=True)
class Caller:
    """A credential's bearer. ``owners`` is None when it may act for every owner."""

    name: str
    owners: frozenset[str] | None = None
    rights: frozenset[str] = frozenset()

    def scope(self, owner: Owner | None) -> Scope:
        """The scope of a call for an owner, or for none. Raises OwnerRequired and PermissionDenied."""
        if owner is None:
            if "unscoped" not in self.rights:
                raise OwnerRequired(violations={"owner_id": OwnerRequired.default_message.partition(": ")[2]})
            return AllOwners()
        if self.owners is not None and owner.id not in self.owners:
            raise PermissionDenied("the credential may not act for this owner")
        return owner


class TokenFileError(ValueError):
    """The token file cannot be used; the message says what to mend."""


@dataclass(slots=True)
class Callers:
    """Finds the caller of a call by its metadata."""

    anonymous: Caller | None
    by_digest: dict[bytes, Caller] = field(default_factory=dict)

    @classmethod
    def open_to_all(cls, rights: Iterable[str] = ()) -> Callers:
        """Every call is by one anonymous caller that may act for every owner; for loopback."""
        return cls(Caller("anonymous", rights=frozenset(rights)))

    @classmethod
    def from_file(cls, path: Path) -> Callers:
        """Read a token file: TOML with one ``[[token]]`` each: ``name``, ``token`` or ``sha256``, ``owners``, ``rights``.

        ``owners`` is a list of ids, or ``"all"``; ``rights`` a list of "unscoped" and "admin". Raises TokenFileError.
        """
        try:
            entries = tomllib.loads(path.read_text()).get("token", [])
        except OSError as error:
            raise TokenFileError(f"the token file {path} can't be read: {error.strerror}") from error
        except ValueError as error:
            raise TokenFileError(f"the token file {path} is not TOML") from error
        found: dict[bytes, Caller] = {}
        if not isinstance(entries, list) or not entries:
            raise TokenFileError(f"the token file {path} holds no [[token]]")
        for index, entry in enumerate(entries, 1):
            digest, caller = _read_token(entry, f"the token file {path}, token {index}")
            if digest in found:
                raise TokenFileError(f"the token file {path} holds token {index} twice")
            found[digest] = caller
        return cls(None, found)

    def identify(self, metadata: Sequence[tuple[str, str | bytes]]) -> Caller:
        """The caller behind the metadata of a call. Raises Unauthenticated."""
        if self.anonymous is not None:
            return self.anonymous
        given = [value for key, value in metadata if key == "authorization"]
        if len(given) != 1:
            raise Unauthenticated()
        value = given[0] if isinstance(given[0], str) else given[0].decode("latin-1")
        scheme, _, token = value.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated()
        digest = hashlib.sha256(token.strip().encode()).digest()
        for known, caller in self.by_digest.items():
            if hmac.compare_digest(known, digest):
                return caller
        raise Unauthenticated()


def _read_token(entry: object, where: str) -> tuple[bytes, Caller]:
    if not isinstance(entry, dict):
        raise TokenFileError(f"{where}: must be a table")
    unknown = entry.keys() - {"name", "token", "sha256", "owners", "rights"}
    if unknown:
        raise TokenFileError(f"{where}: unknown key {sorted(unknown)[0]!r}")
    token, sha256 = entry.get("token"), entry.get("sha256")
    if isinstance(token, str) and len(token) >= 16 and sha256 is None:
        digest = hashlib.sha256(token.encode()).digest()
    elif isinstance(sha256, str) and len(sha256) == 64 and token is None:
        try:
            digest = bytes.fromhex(sha256)
        except ValueError as error:
            raise TokenFileError(f"{where}: sha256 is not hexadecimal") from error
    else:
        raise TokenFileError(
            f"{where}: needs either token, of 16 characters or more, or sha256, of 64 hexadecimal digits"
        )
    owners, rights = entry.get("owners"), entry.get("rights", [])
    if owners != "all" and not (isinstance(owners, list) and all(isinstance(owner, str) and owner for owner in owners)):
        raise TokenFileError(f'{where}: owners must be a list of ids, or "all"')
    if not isinstance(rights, list) or not RIGHTS.issuperset(rights):
        raise TokenFileError(f"{where}: rights must be a list of {' and '.join(sorted(RIGHTS))}")
    name = entry.get("name", "")
    if not isinstance(name, str):
        raise TokenFileError(f"{where}: name must be a text")
    return digest, Caller(
        name or where.rpartition(", ")[2], None if owners == "all" else frozenset(owners), frozenset(rights)
    )
