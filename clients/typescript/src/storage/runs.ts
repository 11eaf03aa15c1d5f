/** Runs, as the runtimes that manage runs themselves see them. */

import { RunEnded } from "../errors.js";
import { Resource as ResourceName } from "../gen/agentstorage/v1/common_pb.js";
import { type Run as RunMessage, RunService } from "../gen/agentstorage/v1/runs_pb.js";
import { checkedText, type Fields, isId, jsonObject, jsonValue, type Maybe, text, written } from "./fields.js";
import { type IfExists, type Kind, Resource, statusIn } from "./resource.js";
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

const CHANGEABLE = { status: RUN_STATUS.write, metadata: jsonObject, kwargs: jsonObject };

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

/** Runs. `create` wants `thread_id` and `assistant_id`, which need not exist, and only writes the row. */
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

  /** The fields that name a run of a thread. An empty thread_id would mean any thread. */
  private oneOf(threadId: string, runId: string, ownerId: Maybe<string>): Fields {
    return { ...this.one(runId, ownerId), threadId: checkedText(threadId, "thread_id") };
  }
}
