from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from storage_service.caller import AllOwners, Caller, Callers, Owner, TokenFileError
from storage_service.errors import OwnerRequired, PermissionDenied, Unauthenticated

TOKEN, SECOND = "token-of-sixteen-or-more", "another-token-of-many"
FILE = f"""
[[token]]
name = "runtime"
token = "{TOKEN}"
owners = ["a", "b"]

[[token]]
sha256 = "{hashlib.sha256(SECOND.encode()).hexdigest()}"
owners = "all"
rights = ["unscoped", "admin"]
"""


def read(tmp_path: Path, text: str) -> Callers:
    file = tmp_path / "tokens.toml"
    file.write_text(text)
    return Callers.from_file(file)


def test_callers_of_a_file(tmp_path: Path) -> None:
    callers = read(tmp_path, FILE)
    first = callers.identify([("x", "y"), ("authorization", f"Bearer {TOKEN}")])
    assert first == Caller("runtime", frozenset({"a", "b"}))
    second = callers.identify([("authorization", f"bearer {SECOND}")])
    assert second == Caller("token 2", None, frozenset({"unscoped", "admin"}))
    assert callers.identify([("authorization", f"Bearer  {TOKEN} ".encode())]) == first


@pytest.mark.parametrize(
    "values",
    [[], ["Bearer"], ["Bearer "], [TOKEN], [f"Basic {TOKEN}"], ["Bearer wrong"], [f"Bearer {TOKEN}x"], [f"Bearer {TOKEN}"] * 2,
     [b"Bearer \xff\xfe"], [f"Bearer {hashlib.sha256(SECOND.encode()).hexdigest()}"]],
)  # fmt: skip
def test_who_is_unknown(tmp_path: Path, values: list[str | bytes]) -> None:
    with pytest.raises(Unauthenticated):
        read(tmp_path, FILE).identify([("authorization", value) for value in values])


def test_scopes() -> None:
    some = Caller("x", frozenset({"a"}))
    assert some.scope(Owner("a")) == Owner("a")
    for foreign in ("b", "A", "system", "a "):
        with pytest.raises(PermissionDenied):
            some.scope(Owner(foreign))
    with pytest.raises(OwnerRequired):
        some.scope(None)
    every = Caller("y", None, frozenset({"unscoped"}))
    assert every.scope(Owner("anybody")) == Owner("anybody")
    assert every.scope(None) == AllOwners()
    with pytest.raises(PermissionDenied):
        Caller("z", frozenset()).scope(Owner("a"))
    with pytest.raises(OwnerRequired):
        Caller("z", None, frozenset({"admin"})).scope(None)


def test_anonymous() -> None:
    callers = Callers.open_to_all(["admin"])
    assert callers.identify([("authorization", "Bearer whatever")]) == Caller("anonymous", None, frozenset({"admin"}))


ENTRY = f'[[token]]\ntoken = "{TOKEN}"\nowners = "all"\n'


@pytest.mark.parametrize(
    "text",
    [
        "", "not toml", "token = 1", "[token]\na = 1", "token = [1]", '[[token]]\ntoken = "short"\nowners = "all"',
        f'[[token]]\ntoken = "{TOKEN}"', f'[[token]]\ntoken = "{TOKEN}"\nowners = "some"', f'[[token]]\ntoken = "{TOKEN}"\nowners = [1]',
        f'[[token]]\ntoken = "{TOKEN}"\nowners = [""]', f'{ENTRY}rights = ["root"]', f"{ENTRY}name = 1", f"{ENTRY}right = []",
        ENTRY + ENTRY, f'{ENTRY}sha256 = "{"0" * 64}"', f'[[token]]\nsha256 = "{"z" * 64}"\nowners = "all"', '[[token]]\nowners = "all"',
        f"{ENTRY}rights = 1",
    ],
)  # fmt: skip
def test_bad_files(tmp_path: Path, text: str) -> None:
    with pytest.raises(TokenFileError) as caught:
        read(tmp_path, text)
    assert TOKEN not in str(caught.value)
    assert "tokens.toml" in str(caught.value)


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TokenFileError, match="can't be read"):
        Callers.from_file(tmp_path / "absent")
