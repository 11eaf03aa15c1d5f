/** What the drop-in storage interface returns: plain objects with the fields of the resources. Times are ISO-8601 text in UTC. */

import type { Timestamp } from "@bufbuild/protobuf/wkt";
import type { Assistant as AssistantMessage } from "../gen/agentstorage/v1/assistants_pb.js";
import {
  type Cron as CronMessage,
  MisfirePolicySchema,
  OnRunCompletedSchema,
} from "../gen/agentstorage/v1/crons_pb.js";
import { MultitaskStrategySchema, type Run as RunMessage, RunStatusSchema } from "../gen/agentstorage/v1/runs_pb.js";
import type { Item as ItemMessage } from "../gen/agentstorage/v1/store_pb.js";
import {
  type Thread as ThreadMessage,
  type ThreadState as ThreadStateMessage,
  ThreadStatusSchema,
  ThreadVisibilitySchema,
} from "../gen/agentstorage/v1/threads_pb.js";
import { parseJson } from "../json.js";
import { Words } from "./fields.js";
import { isoOf, isoOrNull } from "./time.js";

/** A JSON object; integers outside of ±(2^53 - 1) are bigints. */
export type JsonObject = Record<string, unknown>;

export type ThreadStatus = "idle" | "busy" | "interrupted" | "error";
/** Who may read a thread: its owner, or everybody that knows its id. */
export type ThreadVisibility = "private" | "read_by_id";
export type RunStatus = "pending" | "running" | "success" | "error" | "timeout" | "interrupted";
/** What happens to a run while another of its thread is in flight. */
export type MultitaskStrategy = "reject" | "enqueue" | "interrupt" | "rollback";
/** What happens to a thread that was made for a run of a cron. */
export type OnRunCompleted = "delete" | "keep";
/** Whether the missed ticks of a cron make one run, or none. */
export type MisfirePolicy = "coalesce" | "skip";

export const THREAD_STATUS = new Words<ThreadStatus>(ThreadStatusSchema);
export const THREAD_VISIBILITY = new Words<ThreadVisibility>(ThreadVisibilitySchema);
export const RUN_STATUS = new Words<RunStatus>(RunStatusSchema);
export const MULTITASK_STRATEGY = new Words<MultitaskStrategy>(MultitaskStrategySchema);
export const ON_RUN_COMPLETED = new Words<OnRunCompleted>(OnRunCompletedSchema);
export const MISFIRE_POLICY = new Words<MisfirePolicy>(MisfirePolicySchema);

/** An assistant: a graph with a configuration, which is as it was stored. `version` starts at 1 and each update adds one. */
export interface Assistant {
  assistant_id: string;
  graph_id: string;
  config: JsonObject;
  context: JsonObject;
  metadata: JsonObject;
  name: string | null;
  description: string | null;
  version: number;
  created_at: string;
  updated_at: string;
}

/** A thread: a conversation with an agent. `status` is `"unknown"` where the server is newer than this client. */
export interface Thread {
  thread_id: string;
  metadata: JsonObject;
  config: JsonObject;
  status: ThreadStatus | "unknown";
  values: unknown;
  interrupts: unknown;
  created_at: string;
  updated_at: string;
}

/** Names a snapshot; `checkpoint_id` is null for a thread without one. */
export interface Checkpoint {
  thread_id: string;
  checkpoint_ns: string;
  checkpoint_id: string | null;
}

/** A snapshot of a thread. `parent_checkpoint` is null for the first one, `created_at` for a thread without one. */
export interface ThreadState {
  values: unknown;
  next: string[];
  tasks: unknown[];
  checkpoint: Checkpoint;
  metadata: JsonObject;
  created_at: string | null;
  parent_checkpoint: JsonObject | null;
  interrupts: unknown;
}

/** A run: one execution of an assistant on a thread. */
export interface Run {
  run_id: string;
  thread_id: string;
  assistant_id: string;
  status: RunStatus | "unknown";
  metadata: JsonObject;
  kwargs: JsonObject;
  multitask_strategy: MultitaskStrategy | "unknown";
  created_at: string;
  updated_at: string;
}

/** An item of the long-term store. `namespace` is its labels joined by `"."`; `value` is any JSON value. */
export interface Item {
  namespace: string;
  key: string;
  value: unknown;
  metadata: JsonObject;
  created_at: string;
  updated_at: string;
}

/** A cron: a schedule by which runs are made. `next_run_date` is null when it will not fire again. */
export interface Cron {
  cron_id: string;
  assistant_id: string | null;
  thread_id: string | null;
  end_time: string | null;
  schedule: string;
  user_id: string | null;
  payload: JsonObject;
  next_run_date: string | null;
  metadata: JsonObject;
  created_at: string;
  updated_at: string;
  timezone: string;
  enabled: boolean;
  on_run_completed: OnRunCompleted | "unknown";
  misfire_policy: MisfirePolicy | "unknown";
}

/** Read JSON text; the empty text, which stands for absent, gives `absent`. The service stores no other kind in the field. */
function json<T>(text: string, absent: T): T {
  return text ? (parseJson(text) as T) : absent;
}

interface Stamped {
  createdAt?: Timestamp | undefined;
  updatedAt?: Timestamp | undefined;
}

function times(message: Stamped): { created_at: string; updated_at: string } {
  return { created_at: isoOrNull(message.createdAt) ?? "", updated_at: isoOrNull(message.updatedAt) ?? "" };
}

/** Make an assistant from the message of the service. */
export function assistantOf(message: AssistantMessage): Assistant {
  return {
    assistant_id: message.assistantId,
    graph_id: message.graphId,
    config: json(message.config, {}),
    context: json(message.context, {}),
    metadata: json(message.metadata, {}),
    name: message.name || null,
    description: message.description || null,
    version: message.version,
    ...times(message),
  };
}

/** Make a thread from the message of the service. */
export function threadOf(message: ThreadMessage): Thread {
  return {
    thread_id: message.threadId,
    metadata: json(message.metadata, {}),
    config: json(message.config, {}),
    status: THREAD_STATUS.wordOf(message.status),
    values: json<unknown>(message.values, {}),
    interrupts: json<unknown>(message.interrupts, {}),
    ...times(message),
  };
}

/** Make a snapshot from the message of the service. */
export function threadStateOf(message: ThreadStateMessage): ThreadState {
  return {
    values: json<unknown>(message.values, {}),
    next: [...message.next],
    tasks: json<unknown[]>(message.tasks, []),
    checkpoint: { thread_id: message.threadId, checkpoint_ns: "", checkpoint_id: message.checkpointId || null },
    metadata: json(message.metadata, {}),
    created_at: message.createdAt === undefined ? null : isoOf(message.createdAt),
    parent_checkpoint: json<JsonObject | null>(message.parentCheckpoint, null),
    interrupts: json<unknown>(message.interrupts, []),
  };
}

/** Make a run from the message of the service. */
export function runOf(message: RunMessage): Run {
  return {
    run_id: message.runId,
    thread_id: message.threadId,
    assistant_id: message.assistantId,
    status: RUN_STATUS.wordOf(message.status),
    metadata: json(message.metadata, {}),
    kwargs: json(message.kwargs, {}),
    multitask_strategy: MULTITASK_STRATEGY.wordOf(message.multitaskStrategy, "reject"),
    ...times(message),
  };
}

/** Make an item from the message of the service. */
export function itemOf(message: ItemMessage): Item {
  return {
    namespace: message.namespace.join("."),
    key: message.key,
    value: json<unknown>(message.value, null),
    metadata: json(message.metadata, {}),
    ...times(message),
  };
}

/** Make a cron from the message of the service. */
export function cronOf(message: CronMessage): Cron {
  return {
    cron_id: message.cronId,
    assistant_id: message.assistantId || null,
    thread_id: message.threadId || null,
    end_time: isoOrNull(message.endTime),
    schedule: message.schedule,
    user_id: message.userId || null,
    payload: json(message.payload, {}),
    next_run_date: isoOrNull(message.nextRunDate),
    metadata: json(message.metadata, {}),
    ...times(message),
    timezone: message.timezone || "UTC",
    enabled: message.enabled,
    on_run_completed: ON_RUN_COMPLETED.wordOf(message.onRunCompleted, "delete"),
    misfire_policy: MISFIRE_POLICY.wordOf(message.misfirePolicy, "coalesce"),
  };
}
