/** Runs, as the runtimes that manage runs themselves see them, and as those do that leave them to the queue. */

import { RunEnded } from "../errors.js";
import { Resource as ResourceName } from "../gen/agentstorage/v1/common_pb.js";
import { IfNotExistsSchema, type Run as RunMessage, RunService } from "../gen/agentstorage/v1/runs_pb.js";
import { newId } from "../methods.js";
import { followRun, type RunEvents, waitRun } from "../queue/following.js";
import { CANCEL_ACTION, type CancelAction, type QueuedRun, queuedRunOf } from "../queue/records.js";
import {
  checkedObject,
  checkedText,
  type Fields,
  isId,
  jsonObject,
  jsonValue,
  type Maybe,
  text,
  texts,
  time,
  Words,
  written,
} from "./fields.js";
import { IF_EXISTS, type IfExists, type Kind, Resource, statusIn } from "./resource.js";
import { MULTITASK_STRATEGY, type MultitaskStrategy, RUN_STATUS, type Run, type RunStatus, runOf } from "./rows.js";
import type { Scope } from "./scope.js";

/** What of a run may be changed. */
export interface RunUpdate {
  status?: Maybe<RunStatus>;
  metadata?: Maybe<object>;
  kwargs?: Maybe<object>;
  /** Any JSON value: how the run failed. */
  error?: unknown;
}

/** What a run is made of; by default it is pending and its multitask strategy is reject. */
export interface RunCreate {
  thread_id: string;
  assistant_id: string;
  run_id?: Maybe<string>;
  status?: Maybe<RunStatus>;
  metadata?: Maybe<object>;
  kwargs?: Maybe<object>;
  multitask_strategy?: Maybe<MultitaskStrategy>;
  if_exists?: Maybe<IfExists>;
}

/** What a submit does when there is no such thread: reject, or create it. */
export type IfNotExists = "reject" | "create";

/** What is queued; by default its multitask strategy is reject. */
export interface RunSubmit {
  /** The thread. It becomes busy. */
  thread_id: string;
  assistant_id: string;
  run_id?: Maybe<string>;
  /** What the worker needs: input, config and the like. */
  kwargs?: Maybe<object>;
  metadata?: Maybe<object>;
  /** What happens while the thread has another run in flight: reject this one, enqueue it, or also interrupt or roll back the others. */
  multitask_strategy?: Maybe<MultitaskStrategy>;
  if_not_exists?: Maybe<IfNotExists>;
  if_exists?: Maybe<IfExists>;
  /** When it may be claimed at the earliest; at once by default. A time without a zone is in UTC. */
  run_after?: Maybe<string | Date>;
  /** Makes a second call with the same content give the run of the first. */
  request_id?: Maybe<string>;
}

/** Which runs are stopped, and how. */
export interface RunCancel {
  /** The runs; all of the thread when there are none. */
  run_ids?: Maybe<readonly string[]>;
  /** The thread; any when runs are named. */
  thread_id?: Maybe<string>;
  /** By default `"interrupt"`. */
  action?: Maybe<CancelAction>;
}

/** What became of runs that were to stop: their ids. */
export interface Cancelled {
  /** Those that were stopped at once; those of a rollback are deleted. */
  stopped: string[];
  /** Those whose workers are asked to stop. */
  asked: string[];
}

const CHANGEABLE = { status: RUN_STATUS.write, metadata: jsonObject, kwargs: jsonObject };

const IF_NOT_EXISTS = new Words<IfNotExists>(IfNotExistsSchema);
const SUBMITTED = {
  run_id: text,
  thread_id: text,
  assistant_id: text,
  metadata: jsonObject,
  kwargs: jsonObject,
  multitask_strategy: MULTITASK_STRATEGY.write,
  if_exists: IF_EXISTS.write,
  if_not_exists: IF_NOT_EXISTS.write,
  run_after: time,
  request_id: text,
};
const CANCELLED = { run_ids: texts, thread_id: text, action: CANCEL_ACTION.write };

const KIND: Kind<RunMessage, Run> = {
  noun: "Run",
  service: RunService,
  resource: ResourceName.RUNS,
  rowOf: runOf,
  idFields: new Set(["run_id", "thread_id"]),
  required: ["thread_id", "assistant_id"],
  always: { recordOnly: true },
  created: {
    run_id: text,
    thread_id: text,
    assistant_id: text,
    ...CHANGEABLE,
    multitask_strategy: MULTITASK_STRATEGY.write,
  },
  updated: { ...CHANGEABLE, error: jsonValue },
  filters: {
    thread_id: (name, value) => (isId(checkedText(value, name)) ? { threadId: value } : undefined),
    status: statusIn(RUN_STATUS),
  },
};

/**
 * Runs. `create` wants `thread_id` and `assistant_id`, which need not exist, and only writes the row. `submit` queues a run for the workers;
 * see `Worker`.
 */
export class Runs extends Resource<RunMessage, Run, RunCreate> {
  /** @internal */
  constructor(scope: Scope) {
    super(scope, KIND);
  }

  /**
   * Change a run and give it; null when the owner has none with this id.
   *
   * The keys of metadata are set and the others stay; the rest is replaced. A run whose status is final keeps it, without an error. Keys
   * whose value is null or undefined, and other keys, are ignored.
   */
  async update(id: string, data: RunUpdate, ownerId?: Maybe<string>): Promise<Run | null> {
    try {
      return await this.change(id, data, ownerId);
    } catch (error) {
      if (!(error instanceof RunEnded)) {
        throw error;
      }
      const { status: _, ...rest } = data;
      return Object.keys(written(rest, KIND.updated)).length ? this.change(id, rest, ownerId) : this.get(id, ownerId);
    }
  }

  /** Set the status and give the run; a run whose status is final comes back unchanged; null without it. */
  async updateStatus(runId: string, status: RunStatus, ownerId?: Maybe<string>): Promise<Run | null> {
    checkedText(status, "status");
    return this.update(runId, { status }, ownerId);
  }

  /**
   * Give runs of a thread, newest first.
   *
   * @param threadId The thread.
   * @param limit The most runs, 10 by default; a number below 1 counts as 1.
   * @param offset Runs to leave out first; a negative number counts as 0.
   * @param status Only runs with this status.
   * @param ownerId The owner.
   */
  async listByThread(
    threadId: string,
    limit?: Maybe<number>,
    offset?: Maybe<number>,
    status?: Maybe<RunStatus>,
    ownerId?: Maybe<string>,
  ): Promise<Run[]> {
    const filters: Fields = { thread_id: threadId, ...(status !== undefined && status !== null && { status }) };
    return this.rows(filters, ownerId, limit ?? 10, offset ?? 0);
  }

  /** Give a run of this thread; null when the thread has no such run. */
  async getByThread(threadId: string, runId: string, ownerId?: Maybe<string>): Promise<Run | null> {
    const request = this.oneOf(threadId, runId, ownerId);
    return threadId ? this.rowOrNull(this.call("get", request)) : null;
  }

  /** Delete a run of this thread; false when the thread has no such run. */
  async deleteByThread(threadId: string, runId: string, ownerId?: Maybe<string>): Promise<boolean> {
    const request = this.oneOf(threadId, runId, ownerId);
    return threadId !== "" && (await this.orNull(this.call("delete", request))) !== null;
  }

  /** Give the newest run of a thread that is pending or running; null when there is none. */
  async getActiveRun(threadId: string, ownerId?: Maybe<string>): Promise<Run | null> {
    const request = { ownerId: this.scope.owner(ownerId), threadId: checkedText(threadId, "thread_id") };
    const reply = await this.orNull(this.scope.method(RunService, "getActiveRun")(request));
    return reply?.run === undefined ? null : this.rowIn(reply);
  }

  /** Count the runs of a thread. */
  async countByThread(threadId: string, ownerId?: Maybe<string>): Promise<number> {
    return this.countOf({ thread_id: checkedText(threadId, "thread_id") }, ownerId);
  }

  /**
   * Queue a run, which a worker claims and executes, and give it.
   *
   * Rejects with NotFound when the thread or the assistant is absent; with ThreadBusy when the strategy is to reject and the thread has a
   * run in flight; with AlreadyExists when the id is taken; with TypeError, `"<key> is required"`, when a key that is needed is missing.
   */
  async submit(data: RunSubmit, ownerId?: Maybe<string>): Promise<QueuedRun> {
    checkedObject(data, "data");
    for (const name of KIND.required) {
      if (!(data as object as Fields)[name]) {
        throw new TypeError(`${name} is required`);
      }
    }
    const fields = written(data, SUBMITTED);
    if (!fields.requestId) {
      // As of every create: it tells a call that is sent again from a second one with the same id.
      fields.requestId = newId();
      fields.runId ||= newId();
    }
    const reply = await this.call("create", { ...fields, ownerId: this.scope.owner(ownerId) });
    return queuedRunOf(reply.run as RunMessage);
  }

  /**
   * Stop runs that are pending or running, and give what became of them. Absent ones are passed over.
   *
   * @param which A run, or `run_ids` or a `thread_id` or both, and an `action`: `"interrupt"`, the default, or `"rollback"`, which deletes
   *   the runs with their events and checkpoints.
   */
  async cancel(which: string | RunCancel, ownerId?: Maybe<string>): Promise<Cancelled> {
    const fields = written(typeof which === "string" ? { run_ids: [which] } : which, CANCELLED);
    const request = { ...fields, ownerId: this.scope.owner(ownerId) };
    const reply = await this.orNull(this.scope.method(RunService, "cancelRuns")(request));
    return { stopped: (reply?.stoppedRunIds ?? []) as string[], asked: (reply?.askedRunIds ?? []) as string[] };
  }

  /** Give the events of a run after a sequence, up to its end marker; see `followRun`. Without such a run the loop throws NotFound. */
  events(runId: string, after: bigint | number = 0, ownerId?: Maybe<string>): RunEvents {
    return followRun(this.scope.connection, checkedText(runId, "run_id"), {
      ownerId: this.scope.owner(ownerId),
      after,
    });
  }

  /**
   * Wait until the status of a run is final, and give it; null when it is absent, or deleted meanwhile. Rejects with DeadlineExceeded when
   * it is not after so many milliseconds.
   */
  async wait(runId: string, timeoutMs?: Maybe<number>, ownerId?: Maybe<string>): Promise<QueuedRun | null> {
    const options = { ownerId: this.scope.owner(ownerId), timeoutMs: timeoutMs ?? undefined };
    return this.orNull(waitRun(this.scope.connection, checkedText(runId, "run_id"), options));
  }

  /** The fields that name a run of a thread. An empty thread_id would mean any thread. */
  private oneOf(threadId: string, runId: string, ownerId: Maybe<string>): Fields {
    return { ...this.one(runId, ownerId), threadId: checkedText(threadId, "thread_id") };
  }
}
