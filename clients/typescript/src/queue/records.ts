/** What the queue gives: its runs with all that the service knows of them, and the events of their logs. */

import {
  CancelActionSchema,
  type RunEvent as EventMessage,
  type Run as RunMessage,
  RunStatus as Status,
} from "../gen/agentstorage/v1/runs_pb.js";
import { parseJson } from "../json.js";
import { Words } from "../storage/fields.js";
import { RUN_STATUS, type Run, type RunStatus, runOf } from "../storage/rows.js";
import { isoOf, isoOrNull } from "../storage/time.js";

/** How a run is stopped: it becomes interrupted, or is deleted with its events and checkpoints. */
export type CancelAction = "interrupt" | "rollback";

export const CANCEL_ACTION = new Words<CancelAction>(CancelActionSchema);

const IN_FLIGHT: ReadonlySet<Status> = new Set([Status.UNSPECIFIED, Status.PENDING, Status.RUNNING]);

/** Whether a run keeps its status. */
export function isFinal({ status }: RunMessage): boolean {
  return !IN_FLIGHT.has(status);
}

/** A run with what the queue knows of it. */
export interface QueuedRun extends Run {
  /** How it failed, a JSON value; null when it did not. */
  error: unknown;
  /** How often it was claimed. */
  attempt: number;
  /** When it may be claimed; null when it is not queued. */
  run_after: string | null;
  /** The worker that executes it; null when none does. */
  worker_id: string | null;
  /** When the lease of that worker lapses. */
  lease_expires_at: string | null;
  /** How its worker is to stop it; null while it may go on. */
  cancel: CancelAction | "unknown" | null;
  /** The sequence of its last event; 0 before there is one. */
  last_sequence: bigint;
  /** The cron that made it; null for none. */
  cron_id: string | null;
  /** The tick for which that made it. */
  cron_tick: string | null;
  /** When its status became final; null before. */
  finished_at: string | null;
}

/** Make a run from the message of the service. */
export function queuedRunOf(message: RunMessage): QueuedRun {
  return {
    ...runOf(message),
    error: message.error ? parseJson(message.error) : null,
    attempt: message.attempt,
    run_after: isoOrNull(message.runAfter),
    worker_id: message.lease?.workerId ?? null,
    lease_expires_at: isoOrNull(message.lease?.expiresAt),
    cancel: message.cancel ? CANCEL_ACTION.wordOf(message.cancel) : null,
    last_sequence: message.lastSequence,
    cron_id: message.cronId || null,
    cron_tick: isoOrNull(message.cronTick),
    finished_at: isoOrNull(message.finishedAt),
  };
}

/** An entry of a run's log. */
export class RunEvent {
  /** The run. */
  readonly runId: string;
  /** Its place in the log of the run: 1, 2, 3 and so on, without a gap. */
  readonly sequence: bigint;
  /** Its place among the events of all runs; those of a thread are in this order. */
  readonly position: bigint;
  /** The kind of event, in the worker's words. */
  readonly type: string;
  /** What happened, in the worker's form. */
  readonly data: Uint8Array;
  /** The attempt that it belongs to. */
  readonly attempt: number;
  /** When the service appended it, as ISO-8601 text in UTC. */
  readonly createdAt: string;
  /** The final status of the run: in the last event alone, the end marker, which the service appends. */
  readonly end?: RunStatus | "unknown";

  /** @internal */
  constructor(message: EventMessage) {
    this.runId = message.runId;
    this.sequence = message.sequence;
    this.position = message.position;
    this.type = message.type;
    this.data = message.data;
    this.attempt = message.attempt;
    this.createdAt = message.createdAt === undefined ? "" : isoOf(message.createdAt);
    if (message.end) {
      this.end = RUN_STATUS.wordOf(message.end);
    }
  }

  /** The data as text. Throws TypeError when it is not UTF-8. */
  text(): string {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(this.data);
  }

  /**
   * The data as a JSON value, in which integers outside of ±(2^53 - 1) are bigints; null for empty data. Throws SyntaxError or TypeError when
   * it is not JSON.
   */
  json(): unknown {
    return this.data.length ? parseJson(this.text()) : null;
  }
}
