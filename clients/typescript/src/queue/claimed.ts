/** What a handler gets and gives. */

import type { ClaimedRun as ClaimedMessage } from "../gen/agentstorage/v1/runs_pb.js";
import { parseJson, writeJson } from "../json.js";
import { checkedText } from "../storage/fields.js";
import type { JsonObject } from "../storage/rows.js";
import type { Appender } from "./appending.js";
import type { CancelAction } from "./records.js";

const TYPE_BYTES = 255;
const LONE_SURROGATE = /\p{Surrogate}/u;

/**
 * Why a handler is to stop.
 *
 * - `"interrupt"`, `"rollback"`: somebody asked for that.
 * - `"timeout"`: it took longer than the worker's `runTimeoutMs`.
 * - `"shutdown"`: the worker stops and its grace is over; another worker gets the run.
 * - `"lease_lost"`: the run is another worker's by now, or may be; nothing that is said about it is heard any more.
 */
export type StopReason = CancelAction | "timeout" | "shutdown" | "lease_lost";

/** The reason of a run's `signal`. */
export class RunStopped extends Error {
  /** @internal */
  constructor(
    /** Why the handler is to stop. */
    readonly why: StopReason,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.name = "RunStopped";
  }
}

/** What a run leaves on its thread. */
export interface RunResult {
  /** What replaces the thread's values, a JSON object; without it they stay. */
  values?: object | null | undefined;
  /** What replaces the thread's interrupts, a JSON object; with any the run ends as interrupted. */
  interrupts?: object | null | undefined;
}

/** What a worker runs for each run. What it throws becomes the run's error. */
export type RunHandler =
  | ((run: ClaimedRun) => Promise<RunResult | null | undefined>)
  | ((run: ClaimedRun) => Promise<void>);

/** A run that a worker has leased, as its handler sees it. */
export class ClaimedRun {
  /** The run. */
  readonly runId: string;
  /** Its thread. */
  readonly threadId: string;
  /** Its assistant. */
  readonly assistantId: string;
  /** Its owner; undefined for none. Calls that a handler makes for the run should name it. */
  readonly ownerId: string | undefined;
  /** What was submitted: input, config and the like. Integers outside of ±(2^53 - 1) are bigints. */
  readonly kwargs: JsonObject;
  /** The user's labels. */
  readonly metadata: JsonObject;
  /** How often the run was claimed, this time included. Above 1 an earlier worker did not finish it. */
  readonly attempt: number;
  /** Is aborted when the handler is to stop; its reason is a `RunStopped`, whose `why` says which. */
  readonly signal: AbortSignal;

  /** @internal */
  constructor(
    { run, ownerId }: ClaimedMessage,
    signal: AbortSignal,
    private readonly appender: Appender,
  ) {
    this.runId = run?.runId ?? "";
    this.threadId = run?.threadId ?? "";
    this.assistantId = run?.assistantId ?? "";
    this.ownerId = ownerId || undefined;
    this.kwargs = parseJson(run?.kwargs || "{}") as JsonObject;
    this.metadata = parseJson(run?.metadata || "{}") as JsonObject;
    this.attempt = run?.attempt ?? 0;
    this.signal = signal;
  }

  /**
   * Add an event to the run's log.
   *
   * Events are gathered for some 50 ms and appended together, in order; those of a run that ends are appended before its end. This resolves
   * before that, and waits only where too many events wait already. See `flush`.
   *
   * @param type The kind of event, of at most 255 bytes.
   * @param data What happened: bytes as they are, a text as UTF-8, and any other value as JSON; left out, empty.
   *
   * Rejects with TypeError for a type that is none and for data without a form in JSON; with LeaseLost when the run is another worker's by
   * now; with another StorageError when earlier events were refused, such as one that is too large: the run will end with this error.
   */
  emit(type: string, data?: unknown): Promise<void> {
    const added = this.add(type, data);
    // Who does not await it hears of a failure by the signal, or from the next call.
    added.catch(() => undefined);
    return added;
  }

  /** Wait until all events that were emitted are in the run's log. Rejects as `emit` does. */
  async flush(): Promise<void> {
    await this.appender.flush();
  }

  private async add(type: string, data: unknown): Promise<void> {
    if (Buffer.byteLength(checkedText(type, "type")) > TYPE_BYTES) {
      throw new TypeError(`type must have no more than ${TYPE_BYTES} bytes`);
    }
    if (LONE_SURROGATE.test(type) || type.includes("\0")) {
      throw new TypeError("type must be text without NUL and lone surrogates");
    }
    await this.appender.add(type, bytesOf(data));
  }
}

function bytesOf(data: unknown): Uint8Array {
  if (data === undefined) {
    return new Uint8Array();
  }
  if (data instanceof Uint8Array) {
    // What is waiting must stay as it is, whatever becomes of the caller's buffer.
    return Uint8Array.from(data);
  }
  if (typeof data === "string" && LONE_SURROGATE.test(data)) {
    throw new TypeError("data holds a lone surrogate");
  }
  return new TextEncoder().encode(typeof data === "string" ? data : writeJson(data, "data"));
}
