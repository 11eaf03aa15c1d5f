/** Following the events of runs, and waiting for the end of one, for as long as it takes and whatever happens to the service. */

import { Code } from "@connectrpc/connect";
import { type Connection, checkedOwner } from "../connection.js";
import { DeadlineExceeded, StorageError } from "../errors.js";
import { RunService, RunStatus } from "../gen/agentstorage/v1/runs_pb.js";
import { checkedText } from "../storage/fields.js";
import { isFinal, type QueuedRun, queuedRunOf, RunEvent } from "./records.js";
import { mayPassOver, Pauses, pause } from "./retrying.js";

// Milliseconds: how long one call of waitRun waits, what it may take beyond that when there is a timeout, after how long a stream that ended
// had been there, and after how long it had surely reached the service, though it said nothing: no try to connect takes so long.
const WAIT = 20_000;
const MARGIN = 2_000;
const LIVED = 10_000;
const REACHED = 60_000;

/** Which events are given. */
export interface FollowOptions {
  /** The owner. Default: that of the connection, else none. */
  ownerId?: string | null | undefined;
  /**
   * The place after which events are given, a sequence of the run or a position of the thread: 0, the default, for all, -1 for those to come
   * alone. Of a thread these come from when the service has the call; should it be away before the first of them, from when it is back.
   */
  after?: bigint | number | undefined;
  /** Ends the wait: the loop ends with a StorageError whose code is `Canceled`. */
  signal?: AbortSignal | undefined;
  /** Is told why the service is away, once until it is there again; the loop goes on, unless this throws. Default: nobody is told. */
  onError?: ((error: unknown) => void) | undefined;
}

/** How long to wait for a run. */
export interface WaitOptions {
  /** The owner. Default: that of the connection, else none. */
  ownerId?: string | null | undefined;
  /** The most milliseconds, 0 for one look; up to 2,000 more pass when the service does not answer. Default: as long as it takes. */
  timeoutMs?: number | undefined;
  /** Ends the wait: it rejects with a StorageError whose code is `Canceled`. */
  signal?: AbortSignal | undefined;
  /** Is told why the service is away, once until it is there again; the wait goes on, unless this throws. Default: nobody is told. */
  onError?: ((error: unknown) => void) | undefined;
}

/** Events as they come, for a `for await` loop; leaving it ends the stream. */
export type RunEvents = AsyncIterableIterator<RunEvent, undefined, undefined> & AsyncDisposable;

/**
 * Give the events of a run, those that are there and then those that come, up to its end marker.
 *
 * Each comes once and in order. While the service is away this waits for it, however long, and goes on after the last event seen.
 * A run that has ended and was started again, as by a status that is set with force, has several end markers: the last one ends the loop.
 *
 *     for await (const event of followRun(connection, runId)) {
 *       console.log(event.type, event.text());
 *     }
 *
 * The loop throws NotFound when there is no such run or it is deleted, as one that is rolled back is; EventsDeleted when events after the
 * place are deleted by now.
 */
export function followRun(connection: Connection, runId: string, options: FollowOptions = {}): RunEvents {
  return new Following(connection, { runId: checkedText(runId, "runId") }, options);
}

/** Give the events of all runs of a thread, those that are there and then those that come, without an end. Otherwise as `followRun`. */
export function followThread(connection: Connection, threadId: string, options: FollowOptions = {}): RunEvents {
  return new Following(connection, { threadId: checkedText(threadId, "threadId") }, options);
}

/**
 * Wait until the status of a run is final, and give it.
 *
 * While the service is away this waits for it. Rejects with NotFound when there is no such run or it is deleted, as one that is rolled back
 * is; with DeadlineExceeded when `timeoutMs` is over and the run is not, as far as is known: its `cause` is the failure of the last look.
 */
export async function waitRun(connection: Connection, runId: string, options: WaitOptions = {}): Promise<QueuedRun> {
  const { timeoutMs = Number.POSITIVE_INFINITY } = options;
  if (typeof timeoutMs !== "number" || !(timeoutMs >= 0)) {
    throw new TypeError("timeoutMs must be 0 or more");
  }
  const ownerId = checkedOwner(options.ownerId) ?? connection.ownerId;
  const signal = options.signal ?? new AbortController().signal;
  const deadline = performance.now() + timeoutMs;
  const pauses = new Pauses();
  let hint = "";
  let failure: unknown;
  for (;;) {
    const wait = Math.min(Math.max(0, deadline - performance.now()), WAIT);
    // Without a timeout the call gets the wait and what any call gets.
    const limit = deadline === Number.POSITIVE_INFINITY ? {} : { timeoutMs: wait + MARGIN };
    const began = performance.now();
    try {
      const request = { ownerId, runId, waitSeconds: wait / 1000 };
      const { run } = await connection.client(RunService).waitRun(request, { ...limit, signal });
      failure = undefined;
      if (run !== undefined && isFinal(run)) {
        return queuedRunOf(run);
      }
      const isRecorded = run?.status === RunStatus.PENDING && run.runAfter === undefined;
      hint = isRecorded ? ": it was recorded and not queued, so that no worker claims it" : "";
      if (performance.now() - began > wait / 2) {
        pauses.reset();
      }
    } catch (error) {
      if (!mayPassOver(error)) {
        throw error;
      }
      if (failure === undefined) {
        options.onError?.(error);
      }
      failure = error;
      hint = `, as far as is known; the last look failed: ${(error as StorageError).message}`;
    }
    // One whose wait was over has waited; one that came back at once would come back at once again.
    const rest = performance.now() - began > wait / 2 && pauses.isFirst ? 0 : pauses.next();
    if (performance.now() + rest >= deadline) {
      const over = new DeadlineExceeded(`run ${runId} has not ended after ${timeoutMs} ms${hint}`, { reason: "" });
      throw failure === undefined ? over : Object.assign(over, { cause: failure });
    }
    if (rest && !(await pause(rest, signal))) {
      throw cancelled();
    }
  }
}

class Following implements RunEvents {
  private readonly left = new AbortController();
  private readonly events: AsyncGenerator<RunEvent, undefined, undefined>;

  constructor(connection: Connection, which: { runId: string } | { threadId: string }, options: FollowOptions) {
    const ownerId = checkedOwner(options.ownerId) ?? connection.ownerId;
    const after = BigInt(options.after ?? 0);
    this.events = followed(connection, { ...which, ownerId, after }, options, this.left.signal);
  }

  next(): Promise<IteratorResult<RunEvent, undefined>> {
    return this.events.next();
  }

  /** End the stream, also while an event is waited for. */
  async return(): Promise<IteratorResult<RunEvent, undefined>> {
    this.left.abort();
    return await this.events.return(undefined);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.return();
  }
}

interface Place {
  ownerId: string | undefined;
  runId?: string;
  threadId?: string;
  after: bigint;
}

/** Give the events of a stream, and of those that follow it. */
async function* followed(
  connection: Connection,
  place: Place,
  { signal: given, onError }: FollowOptions,
  left: AbortSignal,
): AsyncGenerator<RunEvent, undefined, undefined> {
  const client = connection.client(RunService);
  const signal = given === undefined ? left : AbortSignal.any([given, left]);
  const pauses = new Pauses();
  const { runId } = place;
  let { after } = place;
  let isAway = false;
  for (;;) {
    const began = performance.now();
    try {
      if (after < 0n && runId !== undefined) {
        // A place to come back to, should the stream break before its first event.
        const { run } = await client.getRun({ ownerId: place.ownerId, runId }, { signal });
        after = run?.lastSequence ?? after;
        isAway = false;
      }
      for await (const { events, run } of client.streamRunEvents({ ...place, after }, { signal })) {
        pauses.reset();
        isAway = false;
        for (const event of events) {
          const at = runId === undefined ? event.position : event.sequence;
          if (at <= after) {
            continue;
          }
          after = at;
          yield new RunEvent(event);
        }
        // The end marker alone does not tell: a run may have been started again, and its last word counts.
        if (run !== undefined && isFinal(run)) {
          return;
        }
      }
    } catch (error) {
      if (left.aborted) {
        return;
      }
      if (!mayPassOver(error)) {
        throw error;
      }
      const lasted = performance.now() - began;
      isAway &&= lasted <= REACHED;
      // The server ends a stream so when its longest time is over.
      if (!isAway && !(lasted > LIVED && error instanceof DeadlineExceeded)) {
        isAway = true;
        onError?.(error);
      }
    }
    if (performance.now() - began > LIVED) {
      pauses.reset();
    }
    if (!(await pause(pauses.next(), signal))) {
      if (left.aborted) {
        return;
      }
      throw cancelled();
    }
  }
}

function cancelled(): StorageError {
  return new StorageError("the wait was cancelled", { code: Code.Canceled });
}
