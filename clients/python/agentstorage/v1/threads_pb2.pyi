import datetime

from agentstorage.v1 import common_pb2 as _common_pb2
from agentstorage.v1 import options_pb2 as _options_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ThreadStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    THREAD_STATUS_UNSPECIFIED: _ClassVar[ThreadStatus]
    THREAD_STATUS_IDLE: _ClassVar[ThreadStatus]
    THREAD_STATUS_BUSY: _ClassVar[ThreadStatus]
    THREAD_STATUS_INTERRUPTED: _ClassVar[ThreadStatus]
    THREAD_STATUS_ERROR: _ClassVar[ThreadStatus]

class ThreadVisibility(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    THREAD_VISIBILITY_UNSPECIFIED: _ClassVar[ThreadVisibility]
    THREAD_VISIBILITY_PRIVATE: _ClassVar[ThreadVisibility]
    THREAD_VISIBILITY_READ_BY_ID: _ClassVar[ThreadVisibility]

class ThreadTtlStrategy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    THREAD_TTL_STRATEGY_UNSPECIFIED: _ClassVar[ThreadTtlStrategy]
    THREAD_TTL_STRATEGY_DELETE: _ClassVar[ThreadTtlStrategy]
    THREAD_TTL_STRATEGY_KEEP_LATEST: _ClassVar[ThreadTtlStrategy]

class ThreadSort(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    THREAD_SORT_UNSPECIFIED: _ClassVar[ThreadSort]
    THREAD_SORT_CREATED_AT: _ClassVar[ThreadSort]
    THREAD_SORT_UPDATED_AT: _ClassVar[ThreadSort]
    THREAD_SORT_STATE_UPDATED_AT: _ClassVar[ThreadSort]
    THREAD_SORT_STATUS: _ClassVar[ThreadSort]
    THREAD_SORT_THREAD_ID: _ClassVar[ThreadSort]

class PruneStrategy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRUNE_STRATEGY_UNSPECIFIED: _ClassVar[PruneStrategy]
    PRUNE_STRATEGY_DELETE: _ClassVar[PruneStrategy]
    PRUNE_STRATEGY_KEEP_LATEST: _ClassVar[PruneStrategy]
THREAD_STATUS_UNSPECIFIED: ThreadStatus
THREAD_STATUS_IDLE: ThreadStatus
THREAD_STATUS_BUSY: ThreadStatus
THREAD_STATUS_INTERRUPTED: ThreadStatus
THREAD_STATUS_ERROR: ThreadStatus
THREAD_VISIBILITY_UNSPECIFIED: ThreadVisibility
THREAD_VISIBILITY_PRIVATE: ThreadVisibility
THREAD_VISIBILITY_READ_BY_ID: ThreadVisibility
THREAD_TTL_STRATEGY_UNSPECIFIED: ThreadTtlStrategy
THREAD_TTL_STRATEGY_DELETE: ThreadTtlStrategy
THREAD_TTL_STRATEGY_KEEP_LATEST: ThreadTtlStrategy
THREAD_SORT_UNSPECIFIED: ThreadSort
THREAD_SORT_CREATED_AT: ThreadSort
THREAD_SORT_UPDATED_AT: ThreadSort
THREAD_SORT_STATE_UPDATED_AT: ThreadSort
THREAD_SORT_STATUS: ThreadSort
THREAD_SORT_THREAD_ID: ThreadSort
PRUNE_STRATEGY_UNSPECIFIED: PruneStrategy
PRUNE_STRATEGY_DELETE: PruneStrategy
PRUNE_STRATEGY_KEEP_LATEST: PruneStrategy

class ThreadTtl(_message.Message):
    __slots__ = ("minutes", "strategy")
    MINUTES_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    minutes: float
    strategy: ThreadTtlStrategy
    def __init__(self, minutes: _Optional[float] = ..., strategy: _Optional[_Union[ThreadTtlStrategy, str]] = ...) -> None: ...

class Thread(_message.Message):
    __slots__ = ("thread_id", "metadata", "config", "status", "values", "interrupts", "error", "visibility", "created_at", "updated_at", "state_updated_at", "ttl", "expires_at")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    INTERRUPTS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    VISIBILITY_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    UPDATED_AT_FIELD_NUMBER: _ClassVar[int]
    STATE_UPDATED_AT_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    metadata: str
    config: str
    status: ThreadStatus
    values: str
    interrupts: str
    error: str
    visibility: ThreadVisibility
    created_at: _timestamp_pb2.Timestamp
    updated_at: _timestamp_pb2.Timestamp
    state_updated_at: _timestamp_pb2.Timestamp
    ttl: ThreadTtl
    expires_at: _timestamp_pb2.Timestamp
    def __init__(self, thread_id: _Optional[str] = ..., metadata: _Optional[str] = ..., config: _Optional[str] = ..., status: _Optional[_Union[ThreadStatus, str]] = ..., values: _Optional[str] = ..., interrupts: _Optional[str] = ..., error: _Optional[str] = ..., visibility: _Optional[_Union[ThreadVisibility, str]] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., updated_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., state_updated_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ttl: _Optional[_Union[ThreadTtl, _Mapping]] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ThreadState(_message.Message):
    __slots__ = ("thread_id", "checkpoint_id", "values", "next", "tasks", "metadata", "interrupts", "parent_checkpoint", "created_at", "sequence")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    INTERRUPTS_FIELD_NUMBER: _ClassVar[int]
    PARENT_CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    checkpoint_id: str
    values: str
    next: _containers.RepeatedScalarFieldContainer[str]
    tasks: str
    metadata: str
    interrupts: str
    parent_checkpoint: str
    created_at: _timestamp_pb2.Timestamp
    sequence: int
    def __init__(self, thread_id: _Optional[str] = ..., checkpoint_id: _Optional[str] = ..., values: _Optional[str] = ..., next: _Optional[_Iterable[str]] = ..., tasks: _Optional[str] = ..., metadata: _Optional[str] = ..., interrupts: _Optional[str] = ..., parent_checkpoint: _Optional[str] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., sequence: _Optional[int] = ...) -> None: ...

class CreateThreadRequest(_message.Message):
    __slots__ = ("owner_id", "thread_id", "metadata", "config", "status", "values", "interrupts", "visibility", "if_exists", "request_id", "ttl")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    INTERRUPTS_FIELD_NUMBER: _ClassVar[int]
    VISIBILITY_FIELD_NUMBER: _ClassVar[int]
    IF_EXISTS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    thread_id: str
    metadata: str
    config: str
    status: ThreadStatus
    values: str
    interrupts: str
    visibility: ThreadVisibility
    if_exists: _common_pb2.IfExists
    request_id: str
    ttl: ThreadTtl
    def __init__(self, owner_id: _Optional[str] = ..., thread_id: _Optional[str] = ..., metadata: _Optional[str] = ..., config: _Optional[str] = ..., status: _Optional[_Union[ThreadStatus, str]] = ..., values: _Optional[str] = ..., interrupts: _Optional[str] = ..., visibility: _Optional[_Union[ThreadVisibility, str]] = ..., if_exists: _Optional[_Union[_common_pb2.IfExists, str]] = ..., request_id: _Optional[str] = ..., ttl: _Optional[_Union[ThreadTtl, _Mapping]] = ...) -> None: ...

class CreateThreadResponse(_message.Message):
    __slots__ = ("thread",)
    THREAD_FIELD_NUMBER: _ClassVar[int]
    thread: Thread
    def __init__(self, thread: _Optional[_Union[Thread, _Mapping]] = ...) -> None: ...

class GetThreadRequest(_message.Message):
    __slots__ = ("owner_id", "thread_id", "fields")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    thread_id: str
    fields: _field_mask_pb2.FieldMask
    def __init__(self, owner_id: _Optional[str] = ..., thread_id: _Optional[str] = ..., fields: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class GetThreadResponse(_message.Message):
    __slots__ = ("thread",)
    THREAD_FIELD_NUMBER: _ClassVar[int]
    thread: Thread
    def __init__(self, thread: _Optional[_Union[Thread, _Mapping]] = ...) -> None: ...

class UpdateThreadRequest(_message.Message):
    __slots__ = ("owner_id", "thread_id", "metadata", "remove_metadata_keys", "config", "status", "values", "interrupts", "error", "visibility", "expected_status", "ttl")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    REMOVE_METADATA_KEYS_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    INTERRUPTS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    VISIBILITY_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_STATUS_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    thread_id: str
    metadata: str
    remove_metadata_keys: _containers.RepeatedScalarFieldContainer[str]
    config: str
    status: ThreadStatus
    values: str
    interrupts: str
    error: str
    visibility: ThreadVisibility
    expected_status: _containers.RepeatedScalarFieldContainer[ThreadStatus]
    ttl: ThreadTtl
    def __init__(self, owner_id: _Optional[str] = ..., thread_id: _Optional[str] = ..., metadata: _Optional[str] = ..., remove_metadata_keys: _Optional[_Iterable[str]] = ..., config: _Optional[str] = ..., status: _Optional[_Union[ThreadStatus, str]] = ..., values: _Optional[str] = ..., interrupts: _Optional[str] = ..., error: _Optional[str] = ..., visibility: _Optional[_Union[ThreadVisibility, str]] = ..., expected_status: _Optional[_Iterable[_Union[ThreadStatus, str]]] = ..., ttl: _Optional[_Union[ThreadTtl, _Mapping]] = ...) -> None: ...

class UpdateThreadResponse(_message.Message):
    __slots__ = ("thread",)
    THREAD_FIELD_NUMBER: _ClassVar[int]
    thread: Thread
    def __init__(self, thread: _Optional[_Union[Thread, _Mapping]] = ...) -> None: ...

class DeleteThreadRequest(_message.Message):
    __slots__ = ("owner_id", "thread_id", "allow_missing")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    ALLOW_MISSING_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    thread_id: str
    allow_missing: bool
    def __init__(self, owner_id: _Optional[str] = ..., thread_id: _Optional[str] = ..., allow_missing: bool = ...) -> None: ...

class DeleteThreadResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SearchThreadsRequest(_message.Message):
    __slots__ = ("owner_id", "thread_ids", "statuses", "metadata", "values", "sort_by", "sort_order", "page_size", "page_token", "offset", "fields")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    THREAD_IDS_FIELD_NUMBER: _ClassVar[int]
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    SORT_BY_FIELD_NUMBER: _ClassVar[int]
    SORT_ORDER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    thread_ids: _containers.RepeatedScalarFieldContainer[str]
    statuses: _containers.RepeatedScalarFieldContainer[ThreadStatus]
    metadata: str
    values: str
    sort_by: ThreadSort
    sort_order: _common_pb2.SortOrder
    page_size: int
    page_token: str
    offset: int
    fields: _field_mask_pb2.FieldMask
    def __init__(self, owner_id: _Optional[str] = ..., thread_ids: _Optional[_Iterable[str]] = ..., statuses: _Optional[_Iterable[_Union[ThreadStatus, str]]] = ..., metadata: _Optional[str] = ..., values: _Optional[str] = ..., sort_by: _Optional[_Union[ThreadSort, str]] = ..., sort_order: _Optional[_Union[_common_pb2.SortOrder, str]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., offset: _Optional[int] = ..., fields: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class SearchThreadsResponse(_message.Message):
    __slots__ = ("threads", "next_page_token")
    THREADS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    threads: _containers.RepeatedCompositeFieldContainer[Thread]
    next_page_token: str
    def __init__(self, threads: _Optional[_Iterable[_Union[Thread, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class CountThreadsRequest(_message.Message):
    __slots__ = ("owner_id", "thread_ids", "statuses", "metadata", "values")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    THREAD_IDS_FIELD_NUMBER: _ClassVar[int]
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    thread_ids: _containers.RepeatedScalarFieldContainer[str]
    statuses: _containers.RepeatedScalarFieldContainer[ThreadStatus]
    metadata: str
    values: str
    def __init__(self, owner_id: _Optional[str] = ..., thread_ids: _Optional[_Iterable[str]] = ..., statuses: _Optional[_Iterable[_Union[ThreadStatus, str]]] = ..., metadata: _Optional[str] = ..., values: _Optional[str] = ...) -> None: ...

class CountThreadsResponse(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: int
    def __init__(self, count: _Optional[int] = ...) -> None: ...

class CopyThreadRequest(_message.Message):
    __slots__ = ("owner_id", "thread_id", "new_thread_id", "request_id")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    NEW_THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    thread_id: str
    new_thread_id: str
    request_id: str
    def __init__(self, owner_id: _Optional[str] = ..., thread_id: _Optional[str] = ..., new_thread_id: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class CopyThreadResponse(_message.Message):
    __slots__ = ("thread",)
    THREAD_FIELD_NUMBER: _ClassVar[int]
    thread: Thread
    def __init__(self, thread: _Optional[_Union[Thread, _Mapping]] = ...) -> None: ...

class SetThreadStatusRequest(_message.Message):
    __slots__ = ("owner_id", "thread_id", "values", "next", "interrupts", "error", "expected_status")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    INTERRUPTS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_STATUS_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    thread_id: str
    values: str
    next: _containers.RepeatedScalarFieldContainer[str]
    interrupts: str
    error: str
    expected_status: _containers.RepeatedScalarFieldContainer[ThreadStatus]
    def __init__(self, owner_id: _Optional[str] = ..., thread_id: _Optional[str] = ..., values: _Optional[str] = ..., next: _Optional[_Iterable[str]] = ..., interrupts: _Optional[str] = ..., error: _Optional[str] = ..., expected_status: _Optional[_Iterable[_Union[ThreadStatus, str]]] = ...) -> None: ...

class SetThreadStatusResponse(_message.Message):
    __slots__ = ("thread",)
    THREAD_FIELD_NUMBER: _ClassVar[int]
    thread: Thread
    def __init__(self, thread: _Optional[_Union[Thread, _Mapping]] = ...) -> None: ...

class GetThreadStateRequest(_message.Message):
    __slots__ = ("owner_id", "thread_id")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    thread_id: str
    def __init__(self, owner_id: _Optional[str] = ..., thread_id: _Optional[str] = ...) -> None: ...

class GetThreadStateResponse(_message.Message):
    __slots__ = ("state",)
    STATE_FIELD_NUMBER: _ClassVar[int]
    state: ThreadState
    def __init__(self, state: _Optional[_Union[ThreadState, _Mapping]] = ...) -> None: ...

class AddThreadStateRequest(_message.Message):
    __slots__ = ("owner_id", "thread_id", "checkpoint_id", "values", "next", "tasks", "metadata", "interrupts", "parent_checkpoint")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    INTERRUPTS_FIELD_NUMBER: _ClassVar[int]
    PARENT_CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    thread_id: str
    checkpoint_id: str
    values: str
    next: _containers.RepeatedScalarFieldContainer[str]
    tasks: str
    metadata: str
    interrupts: str
    parent_checkpoint: str
    def __init__(self, owner_id: _Optional[str] = ..., thread_id: _Optional[str] = ..., checkpoint_id: _Optional[str] = ..., values: _Optional[str] = ..., next: _Optional[_Iterable[str]] = ..., tasks: _Optional[str] = ..., metadata: _Optional[str] = ..., interrupts: _Optional[str] = ..., parent_checkpoint: _Optional[str] = ...) -> None: ...

class AddThreadStateResponse(_message.Message):
    __slots__ = ("state",)
    STATE_FIELD_NUMBER: _ClassVar[int]
    state: ThreadState
    def __init__(self, state: _Optional[_Union[ThreadState, _Mapping]] = ...) -> None: ...

class ListThreadStatesRequest(_message.Message):
    __slots__ = ("owner_id", "thread_id", "before", "page_size", "page_token", "offset", "metadata", "fields")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    thread_id: str
    before: str
    page_size: int
    page_token: str
    offset: int
    metadata: str
    fields: _field_mask_pb2.FieldMask
    def __init__(self, owner_id: _Optional[str] = ..., thread_id: _Optional[str] = ..., before: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., offset: _Optional[int] = ..., metadata: _Optional[str] = ..., fields: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class ListThreadStatesResponse(_message.Message):
    __slots__ = ("states", "next_page_token")
    STATES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    states: _containers.RepeatedCompositeFieldContainer[ThreadState]
    next_page_token: str
    def __init__(self, states: _Optional[_Iterable[_Union[ThreadState, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class PruneThreadsRequest(_message.Message):
    __slots__ = ("owner_id", "thread_ids", "strategy")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    THREAD_IDS_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    thread_ids: _containers.RepeatedScalarFieldContainer[str]
    strategy: PruneStrategy
    def __init__(self, owner_id: _Optional[str] = ..., thread_ids: _Optional[_Iterable[str]] = ..., strategy: _Optional[_Union[PruneStrategy, str]] = ...) -> None: ...

class PruneThreadsResponse(_message.Message):
    __slots__ = ("pruned",)
    PRUNED_FIELD_NUMBER: _ClassVar[int]
    pruned: int
    def __init__(self, pruned: _Optional[int] = ...) -> None: ...
