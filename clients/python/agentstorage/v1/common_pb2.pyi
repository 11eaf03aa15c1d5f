from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from typing import ClassVar as _ClassVar

DESCRIPTOR: _descriptor.FileDescriptor

class IfExists(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    IF_EXISTS_UNSPECIFIED: _ClassVar[IfExists]
    IF_EXISTS_RAISE: _ClassVar[IfExists]
    IF_EXISTS_DO_NOTHING: _ClassVar[IfExists]

class SortOrder(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SORT_ORDER_UNSPECIFIED: _ClassVar[SortOrder]
    SORT_ORDER_ASC: _ClassVar[SortOrder]
    SORT_ORDER_DESC: _ClassVar[SortOrder]

class Resource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RESOURCE_UNSPECIFIED: _ClassVar[Resource]
    RESOURCE_ASSISTANTS: _ClassVar[Resource]
    RESOURCE_THREADS: _ClassVar[Resource]
    RESOURCE_RUNS: _ClassVar[Resource]
    RESOURCE_ITEMS: _ClassVar[Resource]
    RESOURCE_CRONS: _ClassVar[Resource]

class ErrorReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERROR_REASON_UNSPECIFIED: _ClassVar[ErrorReason]
    ERROR_REASON_INVALID_REQUEST: _ClassVar[ErrorReason]
    ERROR_REASON_INVALID_PAGE_TOKEN: _ClassVar[ErrorReason]
    ERROR_REASON_OWNER_REQUIRED: _ClassVar[ErrorReason]
    ERROR_REASON_UNAUTHENTICATED: _ClassVar[ErrorReason]
    ERROR_REASON_PERMISSION_DENIED: _ClassVar[ErrorReason]
    ERROR_REASON_NOT_FOUND: _ClassVar[ErrorReason]
    ERROR_REASON_ALREADY_EXISTS: _ClassVar[ErrorReason]
    ERROR_REASON_VERSION_MISMATCH: _ClassVar[ErrorReason]
    ERROR_REASON_STATUS_MISMATCH: _ClassVar[ErrorReason]
    ERROR_REASON_RUN_ENDED: _ClassVar[ErrorReason]
    ERROR_REASON_THREAD_BUSY: _ClassVar[ErrorReason]
    ERROR_REASON_DISABLED: _ClassVar[ErrorReason]
    ERROR_REASON_LIMIT_REACHED: _ClassVar[ErrorReason]
    ERROR_REASON_DATABASE_UNAVAILABLE: _ClassVar[ErrorReason]
    ERROR_REASON_SHUTTING_DOWN: _ClassVar[ErrorReason]
    ERROR_REASON_DEADLINE_EXCEEDED: _ClassVar[ErrorReason]
    ERROR_REASON_CONFLICT: _ClassVar[ErrorReason]
    ERROR_REASON_INTERNAL: _ClassVar[ErrorReason]
    ERROR_REASON_DATA_LOSS: _ClassVar[ErrorReason]
    ERROR_REASON_PARENT_MISMATCH: _ClassVar[ErrorReason]
    ERROR_REASON_LEASE_LOST: _ClassVar[ErrorReason]
    ERROR_REASON_SEQUENCE_MISMATCH: _ClassVar[ErrorReason]
    ERROR_REASON_EVENTS_DELETED: _ClassVar[ErrorReason]
IF_EXISTS_UNSPECIFIED: IfExists
IF_EXISTS_RAISE: IfExists
IF_EXISTS_DO_NOTHING: IfExists
SORT_ORDER_UNSPECIFIED: SortOrder
SORT_ORDER_ASC: SortOrder
SORT_ORDER_DESC: SortOrder
RESOURCE_UNSPECIFIED: Resource
RESOURCE_ASSISTANTS: Resource
RESOURCE_THREADS: Resource
RESOURCE_RUNS: Resource
RESOURCE_ITEMS: Resource
RESOURCE_CRONS: Resource
ERROR_REASON_UNSPECIFIED: ErrorReason
ERROR_REASON_INVALID_REQUEST: ErrorReason
ERROR_REASON_INVALID_PAGE_TOKEN: ErrorReason
ERROR_REASON_OWNER_REQUIRED: ErrorReason
ERROR_REASON_UNAUTHENTICATED: ErrorReason
ERROR_REASON_PERMISSION_DENIED: ErrorReason
ERROR_REASON_NOT_FOUND: ErrorReason
ERROR_REASON_ALREADY_EXISTS: ErrorReason
ERROR_REASON_VERSION_MISMATCH: ErrorReason
ERROR_REASON_STATUS_MISMATCH: ErrorReason
ERROR_REASON_RUN_ENDED: ErrorReason
ERROR_REASON_THREAD_BUSY: ErrorReason
ERROR_REASON_DISABLED: ErrorReason
ERROR_REASON_LIMIT_REACHED: ErrorReason
ERROR_REASON_DATABASE_UNAVAILABLE: ErrorReason
ERROR_REASON_SHUTTING_DOWN: ErrorReason
ERROR_REASON_DEADLINE_EXCEEDED: ErrorReason
ERROR_REASON_CONFLICT: ErrorReason
ERROR_REASON_INTERNAL: ErrorReason
ERROR_REASON_DATA_LOSS: ErrorReason
ERROR_REASON_PARENT_MISMATCH: ErrorReason
ERROR_REASON_LEASE_LOST: ErrorReason
ERROR_REASON_SEQUENCE_MISMATCH: ErrorReason
ERROR_REASON_EVENTS_DELETED: ErrorReason
