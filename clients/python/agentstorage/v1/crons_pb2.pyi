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

class OnRunCompleted(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ON_RUN_COMPLETED_UNSPECIFIED: _ClassVar[OnRunCompleted]
    ON_RUN_COMPLETED_DELETE: _ClassVar[OnRunCompleted]
    ON_RUN_COMPLETED_KEEP: _ClassVar[OnRunCompleted]

class MisfirePolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MISFIRE_POLICY_UNSPECIFIED: _ClassVar[MisfirePolicy]
    MISFIRE_POLICY_COALESCE: _ClassVar[MisfirePolicy]
    MISFIRE_POLICY_SKIP: _ClassVar[MisfirePolicy]

class CronSort(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CRON_SORT_UNSPECIFIED: _ClassVar[CronSort]
    CRON_SORT_CREATED_AT: _ClassVar[CronSort]
    CRON_SORT_UPDATED_AT: _ClassVar[CronSort]
    CRON_SORT_NEXT_RUN_DATE: _ClassVar[CronSort]
    CRON_SORT_END_TIME: _ClassVar[CronSort]
    CRON_SORT_ASSISTANT_ID: _ClassVar[CronSort]
    CRON_SORT_THREAD_ID: _ClassVar[CronSort]
    CRON_SORT_CRON_ID: _ClassVar[CronSort]

class TickOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TICK_OUTCOME_UNSPECIFIED: _ClassVar[TickOutcome]
    TICK_OUTCOME_FIRED: _ClassVar[TickOutcome]
    TICK_OUTCOME_SKIPPED: _ClassVar[TickOutcome]
    TICK_OUTCOME_REJECTED: _ClassVar[TickOutcome]
    TICK_OUTCOME_DISABLED: _ClassVar[TickOutcome]
ON_RUN_COMPLETED_UNSPECIFIED: OnRunCompleted
ON_RUN_COMPLETED_DELETE: OnRunCompleted
ON_RUN_COMPLETED_KEEP: OnRunCompleted
MISFIRE_POLICY_UNSPECIFIED: MisfirePolicy
MISFIRE_POLICY_COALESCE: MisfirePolicy
MISFIRE_POLICY_SKIP: MisfirePolicy
CRON_SORT_UNSPECIFIED: CronSort
CRON_SORT_CREATED_AT: CronSort
CRON_SORT_UPDATED_AT: CronSort
CRON_SORT_NEXT_RUN_DATE: CronSort
CRON_SORT_END_TIME: CronSort
CRON_SORT_ASSISTANT_ID: CronSort
CRON_SORT_THREAD_ID: CronSort
CRON_SORT_CRON_ID: CronSort
TICK_OUTCOME_UNSPECIFIED: TickOutcome
TICK_OUTCOME_FIRED: TickOutcome
TICK_OUTCOME_SKIPPED: TickOutcome
TICK_OUTCOME_REJECTED: TickOutcome
TICK_OUTCOME_DISABLED: TickOutcome

class Cron(_message.Message):
    __slots__ = ("cron_id", "assistant_id", "thread_id", "schedule", "timezone", "enabled", "end_time", "user_id", "payload", "metadata", "next_run_date", "on_run_completed", "misfire_policy", "created_at", "updated_at")
    CRON_ID_FIELD_NUMBER: _ClassVar[int]
    ASSISTANT_ID_FIELD_NUMBER: _ClassVar[int]
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    TIMEZONE_FIELD_NUMBER: _ClassVar[int]
    ENABLED_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    NEXT_RUN_DATE_FIELD_NUMBER: _ClassVar[int]
    ON_RUN_COMPLETED_FIELD_NUMBER: _ClassVar[int]
    MISFIRE_POLICY_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    UPDATED_AT_FIELD_NUMBER: _ClassVar[int]
    cron_id: str
    assistant_id: str
    thread_id: str
    schedule: str
    timezone: str
    enabled: bool
    end_time: _timestamp_pb2.Timestamp
    user_id: str
    payload: str
    metadata: str
    next_run_date: _timestamp_pb2.Timestamp
    on_run_completed: OnRunCompleted
    misfire_policy: MisfirePolicy
    created_at: _timestamp_pb2.Timestamp
    updated_at: _timestamp_pb2.Timestamp
    def __init__(self, cron_id: _Optional[str] = ..., assistant_id: _Optional[str] = ..., thread_id: _Optional[str] = ..., schedule: _Optional[str] = ..., timezone: _Optional[str] = ..., enabled: bool = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., user_id: _Optional[str] = ..., payload: _Optional[str] = ..., metadata: _Optional[str] = ..., next_run_date: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., on_run_completed: _Optional[_Union[OnRunCompleted, str]] = ..., misfire_policy: _Optional[_Union[MisfirePolicy, str]] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., updated_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class CreateCronRequest(_message.Message):
    __slots__ = ("owner_id", "cron_id", "assistant_id", "thread_id", "schedule", "timezone", "enabled", "end_time", "user_id", "payload", "metadata", "on_run_completed", "misfire_policy", "record_only", "if_exists", "request_id")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    CRON_ID_FIELD_NUMBER: _ClassVar[int]
    ASSISTANT_ID_FIELD_NUMBER: _ClassVar[int]
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    TIMEZONE_FIELD_NUMBER: _ClassVar[int]
    ENABLED_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    ON_RUN_COMPLETED_FIELD_NUMBER: _ClassVar[int]
    MISFIRE_POLICY_FIELD_NUMBER: _ClassVar[int]
    RECORD_ONLY_FIELD_NUMBER: _ClassVar[int]
    IF_EXISTS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    cron_id: str
    assistant_id: str
    thread_id: str
    schedule: str
    timezone: str
    enabled: bool
    end_time: _timestamp_pb2.Timestamp
    user_id: str
    payload: str
    metadata: str
    on_run_completed: OnRunCompleted
    misfire_policy: MisfirePolicy
    record_only: bool
    if_exists: _common_pb2.IfExists
    request_id: str
    def __init__(self, owner_id: _Optional[str] = ..., cron_id: _Optional[str] = ..., assistant_id: _Optional[str] = ..., thread_id: _Optional[str] = ..., schedule: _Optional[str] = ..., timezone: _Optional[str] = ..., enabled: bool = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., user_id: _Optional[str] = ..., payload: _Optional[str] = ..., metadata: _Optional[str] = ..., on_run_completed: _Optional[_Union[OnRunCompleted, str]] = ..., misfire_policy: _Optional[_Union[MisfirePolicy, str]] = ..., record_only: bool = ..., if_exists: _Optional[_Union[_common_pb2.IfExists, str]] = ..., request_id: _Optional[str] = ...) -> None: ...

class CreateCronResponse(_message.Message):
    __slots__ = ("cron",)
    CRON_FIELD_NUMBER: _ClassVar[int]
    cron: Cron
    def __init__(self, cron: _Optional[_Union[Cron, _Mapping]] = ...) -> None: ...

class GetCronRequest(_message.Message):
    __slots__ = ("owner_id", "cron_id")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    CRON_ID_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    cron_id: str
    def __init__(self, owner_id: _Optional[str] = ..., cron_id: _Optional[str] = ...) -> None: ...

class GetCronResponse(_message.Message):
    __slots__ = ("cron",)
    CRON_FIELD_NUMBER: _ClassVar[int]
    cron: Cron
    def __init__(self, cron: _Optional[_Union[Cron, _Mapping]] = ...) -> None: ...

class UpdateCronRequest(_message.Message):
    __slots__ = ("owner_id", "cron_id", "schedule", "timezone", "enabled", "end_time", "clear_end_time", "user_id", "payload", "metadata", "remove_metadata_keys", "on_run_completed", "misfire_policy")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    CRON_ID_FIELD_NUMBER: _ClassVar[int]
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    TIMEZONE_FIELD_NUMBER: _ClassVar[int]
    ENABLED_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    CLEAR_END_TIME_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    REMOVE_METADATA_KEYS_FIELD_NUMBER: _ClassVar[int]
    ON_RUN_COMPLETED_FIELD_NUMBER: _ClassVar[int]
    MISFIRE_POLICY_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    cron_id: str
    schedule: str
    timezone: str
    enabled: bool
    end_time: _timestamp_pb2.Timestamp
    clear_end_time: bool
    user_id: str
    payload: str
    metadata: str
    remove_metadata_keys: _containers.RepeatedScalarFieldContainer[str]
    on_run_completed: OnRunCompleted
    misfire_policy: MisfirePolicy
    def __init__(self, owner_id: _Optional[str] = ..., cron_id: _Optional[str] = ..., schedule: _Optional[str] = ..., timezone: _Optional[str] = ..., enabled: bool = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., clear_end_time: bool = ..., user_id: _Optional[str] = ..., payload: _Optional[str] = ..., metadata: _Optional[str] = ..., remove_metadata_keys: _Optional[_Iterable[str]] = ..., on_run_completed: _Optional[_Union[OnRunCompleted, str]] = ..., misfire_policy: _Optional[_Union[MisfirePolicy, str]] = ...) -> None: ...

class UpdateCronResponse(_message.Message):
    __slots__ = ("cron",)
    CRON_FIELD_NUMBER: _ClassVar[int]
    cron: Cron
    def __init__(self, cron: _Optional[_Union[Cron, _Mapping]] = ...) -> None: ...

class DeleteCronRequest(_message.Message):
    __slots__ = ("owner_id", "cron_id", "allow_missing")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    CRON_ID_FIELD_NUMBER: _ClassVar[int]
    ALLOW_MISSING_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    cron_id: str
    allow_missing: bool
    def __init__(self, owner_id: _Optional[str] = ..., cron_id: _Optional[str] = ..., allow_missing: bool = ...) -> None: ...

class DeleteCronResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SearchCronsRequest(_message.Message):
    __slots__ = ("owner_id", "cron_ids", "assistant_id", "thread_id", "enabled", "metadata", "sort_by", "sort_order", "page_size", "page_token", "offset", "fields")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    CRON_IDS_FIELD_NUMBER: _ClassVar[int]
    ASSISTANT_ID_FIELD_NUMBER: _ClassVar[int]
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    ENABLED_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    SORT_BY_FIELD_NUMBER: _ClassVar[int]
    SORT_ORDER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    cron_ids: _containers.RepeatedScalarFieldContainer[str]
    assistant_id: str
    thread_id: str
    enabled: bool
    metadata: str
    sort_by: CronSort
    sort_order: _common_pb2.SortOrder
    page_size: int
    page_token: str
    offset: int
    fields: _field_mask_pb2.FieldMask
    def __init__(self, owner_id: _Optional[str] = ..., cron_ids: _Optional[_Iterable[str]] = ..., assistant_id: _Optional[str] = ..., thread_id: _Optional[str] = ..., enabled: bool = ..., metadata: _Optional[str] = ..., sort_by: _Optional[_Union[CronSort, str]] = ..., sort_order: _Optional[_Union[_common_pb2.SortOrder, str]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., offset: _Optional[int] = ..., fields: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class SearchCronsResponse(_message.Message):
    __slots__ = ("crons", "next_page_token")
    CRONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    crons: _containers.RepeatedCompositeFieldContainer[Cron]
    next_page_token: str
    def __init__(self, crons: _Optional[_Iterable[_Union[Cron, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class CountCronsRequest(_message.Message):
    __slots__ = ("owner_id", "cron_ids", "assistant_id", "thread_id", "enabled", "metadata")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    CRON_IDS_FIELD_NUMBER: _ClassVar[int]
    ASSISTANT_ID_FIELD_NUMBER: _ClassVar[int]
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    ENABLED_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    cron_ids: _containers.RepeatedScalarFieldContainer[str]
    assistant_id: str
    thread_id: str
    enabled: bool
    metadata: str
    def __init__(self, owner_id: _Optional[str] = ..., cron_ids: _Optional[_Iterable[str]] = ..., assistant_id: _Optional[str] = ..., thread_id: _Optional[str] = ..., enabled: bool = ..., metadata: _Optional[str] = ...) -> None: ...

class CountCronsResponse(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: int
    def __init__(self, count: _Optional[int] = ...) -> None: ...

class FireDueCronsRequest(_message.Message):
    __slots__ = ("owner_id", "limit")
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    owner_id: str
    limit: int
    def __init__(self, owner_id: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class FiredCron(_message.Message):
    __slots__ = ("cron_id", "tick", "outcome", "run_id", "thread_id")
    CRON_ID_FIELD_NUMBER: _ClassVar[int]
    TICK_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    cron_id: str
    tick: _timestamp_pb2.Timestamp
    outcome: TickOutcome
    run_id: str
    thread_id: str
    def __init__(self, cron_id: _Optional[str] = ..., tick: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., outcome: _Optional[_Union[TickOutcome, str]] = ..., run_id: _Optional[str] = ..., thread_id: _Optional[str] = ...) -> None: ...

class FireDueCronsResponse(_message.Message):
    __slots__ = ("crons",)
    CRONS_FIELD_NUMBER: _ClassVar[int]
    crons: _containers.RepeatedCompositeFieldContainer[FiredCron]
    def __init__(self, crons: _Optional[_Iterable[_Union[FiredCron, _Mapping]]] = ...) -> None: ...
