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

class RunStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RUN_STATUS_UNSPECIFIED: _ClassVar[RunStatus]
    RUN_STATUS_PENDING: _ClassVar[RunStatus]
    RUN_STATUS_RUNNING: _ClassVar[RunStatus]
    RUN_STATUS_SUCCESS: _ClassVar[RunStatus]
    RUN_STATUS_ERROR: _ClassVar[RunStatus]
    RUN_STATUS_TIMEOUT: _ClassVar[RunStatus]
    RUN_STATUS_INTERRUPTED: _ClassVar[RunStatus]

class MultitaskStrategy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MULTITASK_STRATEGY_UNSPECIFIED: _ClassVar[MultitaskStrategy]
    MULTITASK_STRATEGY_REJECT: _ClassVar[MultitaskStrategy]
    MULTITASK_STRATEGY_ENQUEUE: _ClassVar[MultitaskStrategy]
    MULTITASK_STRATEGY_INTERRUPT: _ClassVar[MultitaskStrategy]
    MULTITASK_STRATEGY_ROLLBACK: _ClassVar[MultitaskStrategy]

class CancelAction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CANCEL_ACTION_UNSPECIFIED: _ClassVar[CancelAction]
    CANCEL_ACTION_INTERRUPT: _ClassVar[CancelAction]
    CANCEL_ACTION_ROLLBACK: _ClassVar[CancelAction]

class RunSort(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RUN_SORT_UNSPECIFIED: _ClassVar[RunSort]
    RUN_SORT_CREATED_AT: _ClassVar[RunSort]
    RUN_SORT_UPDATED_AT: _ClassVar[RunSort]
    RUN_SORT_STATUS: _ClassVar[RunSort]
    RUN_SORT_RUN_ID: _ClassVar[RunSort]

class IfNotExists(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    IF_NOT_EXISTS_UNSPECIFIED: _ClassVar[IfNotExists]
    IF_NOT_EXISTS_REJECT: _ClassVar[IfNotExists]
    IF_NOT_EXISTS_CREATE: _ClassVar[IfNotExists]
RUN_STATUS_UNSPECIFIED: RunStatus
RUN_STATUS_PENDING: RunStatus
RUN_STATUS_RUNNING: RunStatus
RUN_STATUS_SUCCESS: RunStatus
RUN_STATUS_ERROR: RunStatus
RUN_STATUS_TIMEOUT: RunStatus
RUN_STATUS_INTERRUPTED: RunStatus
MULTITASK_STRATEGY_UNSPECIFIED: MultitaskStrategy
MULTITASK_STRATEGY_REJECT: MultitaskStrategy
MULTITASK_STRATEGY_ENQUEUE: MultitaskStrategy
MULTITASK_STRATEGY_INTERRUPT: MultitaskStrategy
MULTITASK_STRATEGY_ROLLBACK: MultitaskStrategy
CANCEL_ACTION_UNSPECIFIED: CancelAction
CANCEL_ACTION_INTERRUPT: CancelAction
CANCEL_ACTION_ROLLBACK: CancelAction
RUN_SORT_UNSPECIFIED: RunSort
RUN_SORT_CREATED_AT: RunSort
RUN_SORT_UPDATED_AT: RunSort
RUN_SORT_STATUS: RunSort
RUN_SORT_RUN_ID: RunSort
IF_NOT_EXISTS_UNSPECIFIED: IfNotExists
IF_NOT_EXISTS_REJECT: IfNotExists
IF_NOT_EXISTS_CREATE: IfNotExists

class RunLease(_message.Message):
    __slots__ = ("worker_id", "expires_at")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    expires_at: _timestamp_pb2.Timestamp
    def __init__(self, worker_id: _Optional[str] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Run(_message.Message):
    __slots__ = ("run_id", "thread_id", "assistant_id", "status", "metadata", "kwargs", "multitask_strategy", "error", "created_at", "updated_at", "finished_at", "attempt", "run_after", "lease", "cancel", "last_sequence", "cron_id", "cron_tick")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    ASSISTANT_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    KWARGS_FIELD_NUMBER: _ClassVar[int]
    MULTITASK_STRATEGY_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    UPDATED_AT_FIELD_NUMBER: _ClassVar[int]
    FINISHED_AT_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    RUN_AFTER_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CRON_ID_FIELD_NUMBER: _ClassVar[int]
    CRON_TICK_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    thread_id: str
    assistant_id: str
    status: RunStatus
    metadata: str
    kwargs: str
    multitask_strategy: MultitaskStrategy
    error: str
    created_at: _timestamp_pb2.Timestamp
    updated_at: _timestamp_pb2.Timestamp
    finished_at: _timestamp_pb2.Timestamp
    attempt: int
    run_after: _timestamp_pb2.Timestamp
    lease: RunLease
    cancel: CancelAction
    last_sequence: int
    cron_id: str
    cron_tick: _timestamp_pb2.Timestamp
    def __init__(self, run_id: _Optional[str] = ..., thread_id: _Optional[str] = ..., assistant_id: _Optional[str] = ..., status: _Optional[_Union[RunStatus, str]] = ..., metadata: _Optional[str] = ..., kwargs: _Optional[str] = ..., multitask_strategy: _Optional[_Union[MultitaskStrategy, str]] = ..., error: _Optional[str] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., updated_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., finished_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., attempt: _Optional[int] = ..., run_after: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., lease: _Optional[_Union[RunLease, _Mapping]] = ..., cancel: _Optional[_Union[CancelAction, str]] = ..., last_sequence: _Optional[int] = ..., cron_id: _Optional[str] = ..., cron_tick: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class CreateRunRequest(_message.Message):
    __slots__ = ("owner_id", "run_id", "thread_id", "assistant_id", "status", "metadata", "kwargs", "multitask_strategy", "record_only", "if_exists", "request_id", "run_after", "if_not_exists")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    ASSISTANT_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    KWARGS_FIELD_NUMBER: _ClassVar[int]
    MULTITASK_STRATEGY_FIELD_NUMBER: _ClassVar[int]
    RECORD_ONLY_FIELD_NUMBER: _ClassVar[int]
    IF_EXISTS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_AFTER_FIELD_NUMBER: _ClassVar[int]
    IF_NOT_EXISTS_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    run_id: str
    thread_id: str
    assistant_id: str
    status: RunStatus
    metadata: str
    kwargs: str
    multitask_strategy: MultitaskStrategy
    record_only: bool
    if_exists: _common_pb2.IfExists
    request_id: str
    run_after: _timestamp_pb2.Timestamp
    if_not_exists: IfNotExists
    def __init__(self, owner_id: _Optional[str] = ..., run_id: _Optional[str] = ..., thread_id: _Optional[str] = ..., assistant_id: _Optional[str] = ..., status: _Optional[_Union[RunStatus, str]] = ..., metadata: _Optional[str] = ..., kwargs: _Optional[str] = ..., multitask_strategy: _Optional[_Union[MultitaskStrategy, str]] = ..., record_only: bool = ..., if_exists: _Optional[_Union[_common_pb2.IfExists, str]] = ..., request_id: _Optional[str] = ..., run_after: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., if_not_exists: _Optional[_Union[IfNotExists, str]] = ...) -> None: ...

class CreateRunResponse(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: Run
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ...) -> None: ...

class GetRunRequest(_message.Message):
    __slots__ = ("owner_id", "run_id", "thread_id")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    run_id: str
    thread_id: str
    def __init__(self, owner_id: _Optional[str] = ..., run_id: _Optional[str] = ..., thread_id: _Optional[str] = ...) -> None: ...

class GetRunResponse(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: Run
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ...) -> None: ...

class SearchRunsRequest(_message.Message):
    __slots__ = ("owner_id", "run_ids", "thread_id", "assistant_id", "statuses", "metadata", "sort_by", "sort_order", "page_size", "page_token", "offset", "fields")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_IDS_FIELD_NUMBER: _ClassVar[int]
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    ASSISTANT_ID_FIELD_NUMBER: _ClassVar[int]
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    SORT_BY_FIELD_NUMBER: _ClassVar[int]
    SORT_ORDER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    run_ids: _containers.RepeatedScalarFieldContainer[str]
    thread_id: str
    assistant_id: str
    statuses: _containers.RepeatedScalarFieldContainer[RunStatus]
    metadata: str
    sort_by: RunSort
    sort_order: _common_pb2.SortOrder
    page_size: int
    page_token: str
    offset: int
    fields: _field_mask_pb2.FieldMask
    def __init__(self, owner_id: _Optional[str] = ..., run_ids: _Optional[_Iterable[str]] = ..., thread_id: _Optional[str] = ..., assistant_id: _Optional[str] = ..., statuses: _Optional[_Iterable[_Union[RunStatus, str]]] = ..., metadata: _Optional[str] = ..., sort_by: _Optional[_Union[RunSort, str]] = ..., sort_order: _Optional[_Union[_common_pb2.SortOrder, str]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., offset: _Optional[int] = ..., fields: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class SearchRunsResponse(_message.Message):
    __slots__ = ("runs", "next_page_token")
    RUNS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedCompositeFieldContainer[Run]
    next_page_token: str
    def __init__(self, runs: _Optional[_Iterable[_Union[Run, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class CountRunsRequest(_message.Message):
    __slots__ = ("owner_id", "run_ids", "thread_id", "assistant_id", "statuses", "metadata")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_IDS_FIELD_NUMBER: _ClassVar[int]
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    ASSISTANT_ID_FIELD_NUMBER: _ClassVar[int]
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    run_ids: _containers.RepeatedScalarFieldContainer[str]
    thread_id: str
    assistant_id: str
    statuses: _containers.RepeatedScalarFieldContainer[RunStatus]
    metadata: str
    def __init__(self, owner_id: _Optional[str] = ..., run_ids: _Optional[_Iterable[str]] = ..., thread_id: _Optional[str] = ..., assistant_id: _Optional[str] = ..., statuses: _Optional[_Iterable[_Union[RunStatus, str]]] = ..., metadata: _Optional[str] = ...) -> None: ...

class CountRunsResponse(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: int
    def __init__(self, count: _Optional[int] = ...) -> None: ...

class UpdateRunRequest(_message.Message):
    __slots__ = ("owner_id", "run_id", "status", "metadata", "remove_metadata_keys", "kwargs", "error", "expected_status", "force")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    REMOVE_METADATA_KEYS_FIELD_NUMBER: _ClassVar[int]
    KWARGS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_STATUS_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    run_id: str
    status: RunStatus
    metadata: str
    remove_metadata_keys: _containers.RepeatedScalarFieldContainer[str]
    kwargs: str
    error: str
    expected_status: _containers.RepeatedScalarFieldContainer[RunStatus]
    force: bool
    def __init__(self, owner_id: _Optional[str] = ..., run_id: _Optional[str] = ..., status: _Optional[_Union[RunStatus, str]] = ..., metadata: _Optional[str] = ..., remove_metadata_keys: _Optional[_Iterable[str]] = ..., kwargs: _Optional[str] = ..., error: _Optional[str] = ..., expected_status: _Optional[_Iterable[_Union[RunStatus, str]]] = ..., force: bool = ...) -> None: ...

class UpdateRunResponse(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: Run
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ...) -> None: ...

class DeleteRunRequest(_message.Message):
    __slots__ = ("owner_id", "run_id", "thread_id", "allow_missing")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    ALLOW_MISSING_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    run_id: str
    thread_id: str
    allow_missing: bool
    def __init__(self, owner_id: _Optional[str] = ..., run_id: _Optional[str] = ..., thread_id: _Optional[str] = ..., allow_missing: bool = ...) -> None: ...

class DeleteRunResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetActiveRunRequest(_message.Message):
    __slots__ = ("owner_id", "thread_id")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    thread_id: str
    def __init__(self, owner_id: _Optional[str] = ..., thread_id: _Optional[str] = ...) -> None: ...

class GetActiveRunResponse(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: Run
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ...) -> None: ...

class CancelRunsRequest(_message.Message):
    __slots__ = ("owner_id", "run_ids", "thread_id", "action")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_IDS_FIELD_NUMBER: _ClassVar[int]
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    run_ids: _containers.RepeatedScalarFieldContainer[str]
    thread_id: str
    action: CancelAction
    def __init__(self, owner_id: _Optional[str] = ..., run_ids: _Optional[_Iterable[str]] = ..., thread_id: _Optional[str] = ..., action: _Optional[_Union[CancelAction, str]] = ...) -> None: ...

class CancelRunsResponse(_message.Message):
    __slots__ = ("stopped_run_ids", "asked_run_ids")
    STOPPED_RUN_IDS_FIELD_NUMBER: _ClassVar[int]
    ASKED_RUN_IDS_FIELD_NUMBER: _ClassVar[int]
    stopped_run_ids: _containers.RepeatedScalarFieldContainer[str]
    asked_run_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, stopped_run_ids: _Optional[_Iterable[str]] = ..., asked_run_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class ClaimRunsRequest(_message.Message):
    __slots__ = ("owner_id", "worker_id", "limit", "wait_seconds", "lease_seconds")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    WAIT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    LEASE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    worker_id: str
    limit: int
    wait_seconds: float
    lease_seconds: float
    def __init__(self, owner_id: _Optional[str] = ..., worker_id: _Optional[str] = ..., limit: _Optional[int] = ..., wait_seconds: _Optional[float] = ..., lease_seconds: _Optional[float] = ...) -> None: ...

class ClaimedRun(_message.Message):
    __slots__ = ("run", "owner_id", "lease_token")
    RUN_FIELD_NUMBER: _ClassVar[int]
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    run: Run
    owner_id: str
    lease_token: int
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ..., owner_id: _Optional[str] = ..., lease_token: _Optional[int] = ...) -> None: ...

class ClaimRunsResponse(_message.Message):
    __slots__ = ("runs",)
    RUNS_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedCompositeFieldContainer[ClaimedRun]
    def __init__(self, runs: _Optional[_Iterable[_Union[ClaimedRun, _Mapping]]] = ...) -> None: ...

class HeartbeatRunRequest(_message.Message):
    __slots__ = ("owner_id", "run_id", "lease_token", "lease_seconds")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    LEASE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    run_id: str
    lease_token: int
    lease_seconds: float
    def __init__(self, owner_id: _Optional[str] = ..., run_id: _Optional[str] = ..., lease_token: _Optional[int] = ..., lease_seconds: _Optional[float] = ...) -> None: ...

class HeartbeatRunResponse(_message.Message):
    __slots__ = ("expires_at", "cancel")
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    expires_at: _timestamp_pb2.Timestamp
    cancel: CancelAction
    def __init__(self, expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., cancel: _Optional[_Union[CancelAction, str]] = ...) -> None: ...

class FinishRunRequest(_message.Message):
    __slots__ = ("owner_id", "run_id", "lease_token", "status", "values", "interrupts", "error")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    INTERRUPTS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    run_id: str
    lease_token: int
    status: RunStatus
    values: str
    interrupts: str
    error: str
    def __init__(self, owner_id: _Optional[str] = ..., run_id: _Optional[str] = ..., lease_token: _Optional[int] = ..., status: _Optional[_Union[RunStatus, str]] = ..., values: _Optional[str] = ..., interrupts: _Optional[str] = ..., error: _Optional[str] = ...) -> None: ...

class FinishRunResponse(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: Run
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ...) -> None: ...

class ReleaseRunRequest(_message.Message):
    __slots__ = ("owner_id", "run_id", "lease_token", "delay_seconds")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    DELAY_SECONDS_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    run_id: str
    lease_token: int
    delay_seconds: float
    def __init__(self, owner_id: _Optional[str] = ..., run_id: _Optional[str] = ..., lease_token: _Optional[int] = ..., delay_seconds: _Optional[float] = ...) -> None: ...

class ReleaseRunResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RunEvent(_message.Message):
    __slots__ = ("run_id", "sequence", "position", "type", "data", "attempt", "created_at", "end")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    sequence: int
    position: int
    type: str
    data: bytes
    attempt: int
    created_at: _timestamp_pb2.Timestamp
    end: RunStatus
    def __init__(self, run_id: _Optional[str] = ..., sequence: _Optional[int] = ..., position: _Optional[int] = ..., type: _Optional[str] = ..., data: _Optional[bytes] = ..., attempt: _Optional[int] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end: _Optional[_Union[RunStatus, str]] = ...) -> None: ...

class NewRunEvent(_message.Message):
    __slots__ = ("type", "data")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    type: str
    data: bytes
    def __init__(self, type: _Optional[str] = ..., data: _Optional[bytes] = ...) -> None: ...

class AppendRunEventsRequest(_message.Message):
    __slots__ = ("owner_id", "run_id", "lease_token", "first_sequence", "events")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    run_id: str
    lease_token: int
    first_sequence: int
    events: _containers.RepeatedCompositeFieldContainer[NewRunEvent]
    def __init__(self, owner_id: _Optional[str] = ..., run_id: _Optional[str] = ..., lease_token: _Optional[int] = ..., first_sequence: _Optional[int] = ..., events: _Optional[_Iterable[_Union[NewRunEvent, _Mapping]]] = ...) -> None: ...

class AppendRunEventsResponse(_message.Message):
    __slots__ = ("last_sequence",)
    LAST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    last_sequence: int
    def __init__(self, last_sequence: _Optional[int] = ...) -> None: ...

class StreamRunEventsRequest(_message.Message):
    __slots__ = ("owner_id", "run_id", "thread_id", "after")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    run_id: str
    thread_id: str
    after: int
    def __init__(self, owner_id: _Optional[str] = ..., run_id: _Optional[str] = ..., thread_id: _Optional[str] = ..., after: _Optional[int] = ...) -> None: ...

class StreamRunEventsResponse(_message.Message):
    __slots__ = ("events", "cancel", "run")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[RunEvent]
    cancel: CancelAction
    run: Run
    def __init__(self, events: _Optional[_Iterable[_Union[RunEvent, _Mapping]]] = ..., cancel: _Optional[_Union[CancelAction, str]] = ..., run: _Optional[_Union[Run, _Mapping]] = ...) -> None: ...

class WaitRunRequest(_message.Message):
    __slots__ = ("owner_id", "run_id", "wait_seconds")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    WAIT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    run_id: str
    wait_seconds: float
    def __init__(self, owner_id: _Optional[str] = ..., run_id: _Optional[str] = ..., wait_seconds: _Optional[float] = ...) -> None: ...

class WaitRunResponse(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: Run
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ...) -> None: ...

class GetRunStatsRequest(_message.Message):
    __slots__ = ("owner_id",)
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    def __init__(self, owner_id: _Optional[str] = ...) -> None: ...

class RunsOfStatus(_message.Message):
    __slots__ = ("status", "count")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    status: RunStatus
    count: int
    def __init__(self, status: _Optional[_Union[RunStatus, str]] = ..., count: _Optional[int] = ...) -> None: ...

class GetRunStatsResponse(_message.Message):
    __slots__ = ("runs", "due", "delayed", "leased", "oldest_wait_seconds", "crons_due", "claims")
    RUNS_FIELD_NUMBER: _ClassVar[int]
    DUE_FIELD_NUMBER: _ClassVar[int]
    DELAYED_FIELD_NUMBER: _ClassVar[int]
    LEASED_FIELD_NUMBER: _ClassVar[int]
    OLDEST_WAIT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    CRONS_DUE_FIELD_NUMBER: _ClassVar[int]
    CLAIMS_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedCompositeFieldContainer[RunsOfStatus]
    due: int
    delayed: int
    leased: int
    oldest_wait_seconds: float
    crons_due: int
    claims: int
    def __init__(self, runs: _Optional[_Iterable[_Union[RunsOfStatus, _Mapping]]] = ..., due: _Optional[int] = ..., delayed: _Optional[int] = ..., leased: _Optional[int] = ..., oldest_wait_seconds: _Optional[float] = ..., crons_due: _Optional[int] = ..., claims: _Optional[int] = ...) -> None: ...

class SweepRunsRequest(_message.Message):
    __slots__ = ("owner_id", "limit")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    limit: int
    def __init__(self, owner_id: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class SweepRunsResponse(_message.Message):
    __slots__ = ("requeued", "failed", "stopped")
    REQUEUED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    STOPPED_FIELD_NUMBER: _ClassVar[int]
    requeued: int
    failed: int
    stopped: int
    def __init__(self, requeued: _Optional[int] = ..., failed: _Optional[int] = ..., stopped: _Optional[int] = ...) -> None: ...
