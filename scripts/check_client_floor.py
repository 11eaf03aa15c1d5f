"""Load the client on the oldest runtimes it allows and send one message of every kind through its own encoding."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from pathlib import Path

from google.protobuf.descriptor import Descriptor
from google.protobuf.message_factory import GetMessageClass

PACKAGE = Path(__file__).resolve().parent.parent / "clients" / "python" / "agentstorage"


def messages(descriptors: list[Descriptor]) -> list[Descriptor]:
    """Return the message types given and all that are declared inside them, map entries excepted."""
    found: list[Descriptor] = []
    for descriptor in descriptors:
        if not descriptor.GetOptions().map_entry:
            found.append(descriptor)
            found.extend(messages(list(descriptor.nested_types)))
    return found


def main() -> int:
    """Import every module of the client, then encode and decode a filled message of every type."""
    modules = [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.name != "__init__.py"
    ]
    checked = 0
    for name in ["agentstorage", *modules]:
        module = importlib.import_module(name)
        if not name.endswith("_pb2"):
            continue
        for descriptor in messages(list(module.DESCRIPTOR.message_types_by_name.values())):
            message = GetMessageClass(descriptor)()
            for field in descriptor.fields:
                if field.cpp_type == field.CPPTYPE_STRING and not field.is_repeated:
                    setattr(message, field.name, b"\x01" if field.type == field.TYPE_BYTES else "text \u00e9")
            copy = GetMessageClass(descriptor).FromString(message.SerializeToString())
            if copy != message:
                print(f"client floor: {descriptor.full_name} does not survive encoding", file=sys.stderr)
                return 1
            checked += 1
    if not checked:
        print("client floor: no generated message was found", file=sys.stderr)
        return 1
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("grpcio", "protobuf"))
    print(f"client floor: {len(modules)} modules and {checked} message types work on {versions}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
