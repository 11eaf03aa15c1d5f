from google.protobuf import descriptor_pb2 as _descriptor_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Format(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FORMAT_UNSPECIFIED: _ClassVar[Format]
    FORMAT_ID: _ClassVar[Format]
    FORMAT_JSON: _ClassVar[Format]
    FORMAT_JSON_OBJECT: _ClassVar[Format]
    FORMAT_LABEL: _ClassVar[Format]
    FORMAT_LABEL_PATTERN: _ClassVar[Format]
    FORMAT_JSON_ARRAY: _ClassVar[Format]

class OwnerUse(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OWNER_USE_UNSPECIFIED: _ClassVar[OwnerUse]
    OWNER_USE_REQUIRED: _ClassVar[OwnerUse]
    OWNER_USE_NONE: _ClassVar[OwnerUse]
FORMAT_UNSPECIFIED: Format
FORMAT_ID: Format
FORMAT_JSON: Format
FORMAT_JSON_OBJECT: Format
FORMAT_LABEL: Format
FORMAT_LABEL_PATTERN: Format
FORMAT_JSON_ARRAY: Format
OWNER_USE_UNSPECIFIED: OwnerUse
OWNER_USE_REQUIRED: OwnerUse
OWNER_USE_NONE: OwnerUse
RULE_FIELD_NUMBER: _ClassVar[int]
rule: _descriptor.FieldDescriptor
ADMISSION_FIELD_NUMBER: _ClassVar[int]
admission: _descriptor.FieldDescriptor

class FieldRule(_message.Message):
    __slots__ = ("required", "format", "max_bytes", "max_items", "at_least", "at_most")
    REQUIRED_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_ITEMS_FIELD_NUMBER: _ClassVar[int]
    AT_LEAST_FIELD_NUMBER: _ClassVar[int]
    AT_MOST_FIELD_NUMBER: _ClassVar[int]
    required: bool
    format: Format
    max_bytes: int
    max_items: int
    at_least: float
    at_most: float
    def __init__(self, required: bool = ..., format: _Optional[_Union[Format, str]] = ..., max_bytes: _Optional[int] = ..., max_items: _Optional[int] = ..., at_least: _Optional[float] = ..., at_most: _Optional[float] = ...) -> None: ...

class MethodRule(_message.Message):
    __slots__ = ("owner", "admin", "waits")
    OWNER_FIELD_NUMBER: _ClassVar[int]
    ADMIN_FIELD_NUMBER: _ClassVar[int]
    WAITS_FIELD_NUMBER: _ClassVar[int]
    owner: OwnerUse
    admin: bool
    waits: bool
    def __init__(self, owner: _Optional[_Union[OwnerUse, str]] = ..., admin: bool = ..., waits: bool = ...) -> None: ...
