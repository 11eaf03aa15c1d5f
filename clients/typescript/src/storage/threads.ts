/** Threads and their states, as the runtimes see them. */

import { InvalidRequest, NotFound } from "../errors.js";
import { Resource as ResourceName } from "../gen/agentstorage/v1/common_pb.js";
import {
  type Thread as ThreadMessage,
  ThreadService,
  ThreadSortSchema,
  type ThreadState as ThreadStateMessage,
} from "../gen/agentstorage/v1/threads_pb.js";
import { newId } from "../methods.js";
import {
  checkedCount,
  checkedObject,
  checkedText,
  type Fields,
  isId,
  jsonArray,
  jsonObject,
  jsonValue,
  type Maybe,
  text,
  texts,
  Words,
  written,
} from "./fields.js";
import { anyId, containing, type IfExists, type Kind, type Page, Resource, statusIn } from "./resource.js";
import {
  THREAD_STATUS,
  THREAD_VISIBILITY,
  type Thread,
  type ThreadState,
  type ThreadStatus,
  type ThreadVisibility,
  threadOf,
  threadStateOf,
} from "./rows.js";
import { isAbsence, paged, type Scope } from "./scope.js";

interface ThreadFields {
  metadata?: Maybe<object>;
  config?: Maybe<object>;
  status?: Maybe<ThreadStatus>;
  /** Any JSON value. */
  values?: unknown;
  /** Any JSON value. */
  interrupts?: unknown;
  visibility?: Maybe<ThreadVisibility>;
}

/** What of a thread may be changed. */
export interface ThreadUpdate extends ThreadFields {
  /** Any JSON value: how the last run failed. */
  error?: unknown;
}

/** What a thread is made of. */
export interface ThreadCreate extends ThreadFields {
  thread_id?: Maybe<string>;
  if_exists?: Maybe<IfExists>;
}

/** Which threads: those that match all that is given. */
export interface ThreadFilters {
  /** One of these ids. */
  ids?: Maybe<readonly string[]>;
  /** Metadata that contains this object, however deep. */
  metadata?: Maybe<object>;
  /** Values that contain this object, however deep. */
  values?: Maybe<object>;
  status?: Maybe<ThreadStatus>;
}

/** What a search for threads may say. */
export interface ThreadSearch
  extends ThreadFilters,
    Page<"created_at" | "updated_at" | "state_updated_at" | "status" | "thread_id"> {}

/** A snapshot to add. `parent_checkpoint` is the newest snapshot by default. */
export interface ThreadStateCreate {
  /** Any JSON value. */
  values: unknown;
  next?: Maybe<readonly string[]>;
  tasks?: Maybe<readonly unknown[]>;
  metadata?: Maybe<object>;
  /** Any JSON value. */
  interrupts?: unknown;
  parent_checkpoint?: Maybe<object>;
}

/** A checkpoint id, or an object that has one, by itself or in `configurable`. */
export type Before = string | { readonly checkpoint_id?: unknown; readonly configurable?: unknown };

const CREATED = {
  metadata: jsonObject,
  config: jsonObject,
  status: THREAD_STATUS.write,
  values: jsonValue,
  interrupts: jsonValue,
  visibility: THREAD_VISIBILITY.write,
};
const STATE = {
  values: jsonValue,
  next: texts,
  tasks: jsonArray,
  metadata: jsonObject,
  interrupts: jsonValue,
  parent_checkpoint: jsonObject,
};

const SORT_BY = new Words(ThreadSortSchema);

const KIND: Kind<ThreadMessage, Thread> = {
  noun: "Thread",
  service: ThreadService,
  resource: ResourceName.THREADS,
  rowOf: threadOf,
  idFields: new Set(["thread_id"]),
  required: [],
  always: {},
  created: { thread_id: text, ...CREATED },
  updated: { ...CREATED, error: jsonValue },
  filters: {
    ids: anyId("threadIds"),
    metadata: containing,
    values: containing,
    status: statusIn(THREAD_STATUS),
  },
};

/** Threads, with the snapshots of their states. */
export class Threads extends Resource<ThreadMessage, Thread, ThreadCreate> {
  /** @internal */
  constructor(scope: Scope) {
    super(scope, KIND);
  }

  /** Create a thread and give it; see `Resource.create`. */
  override async create(data: ThreadCreate = {}, ownerId?: Maybe<string>): Promise<Thread> {
    return super.create(data, ownerId);
  }

  /** Give the threads that match the filters. */
  async search(filters?: Maybe<ThreadSearch>, ownerId?: Maybe<string>): Promise<Thread[]> {
    return this.searchFor(filters, ownerId, SORT_BY);
  }

  /** Count the threads that match the filters. */
  async count(filters?: Maybe<ThreadFilters>, ownerId?: Maybe<string>): Promise<number> {
    return this.countOf(filters, ownerId);
  }

  /**
   * Change a thread and give it; null when the owner has none with this id.
   *
   * The keys of metadata are set and the others stay; the rest is replaced. Keys whose value is null or undefined, and other keys, are
   * ignored.
   */
  async update(id: string, data: ThreadUpdate, ownerId?: Maybe<string>): Promise<Thread | null> {
    return this.change(id, data, ownerId);
  }

  /** Give the newest snapshot, or the values with `checkpoint_id` null; null when there is no such thread. */
  async getState(threadId: string, ownerId?: Maybe<string>): Promise<ThreadState | null> {
    const reply = await this.orNull(this.states("getThreadState", this.one(threadId, ownerId)));
    return reply === null ? null : threadStateOf(reply.state as ThreadStateMessage);
  }

  /**
   * Add a snapshot and make its values the thread's values; false when the owner has no such thread.
   *
   * A state without `values` is itself the values. The id of the snapshot is made here.
   */
  async addStateSnapshot(
    threadId: string,
    state: ThreadStateCreate | object,
    ownerId?: Maybe<string>,
  ): Promise<boolean> {
    const whole = Object.hasOwn(checkedObject(state, "state"), "values") ? state : { values: state };
    const request = { ...written(whole, STATE), ...this.one(threadId, ownerId), checkpointId: newId() };
    return (await this.orNull(this.states("addThreadState", request))) !== null;
  }

  /**
   * Give the snapshots of a thread, newest first; null when there is no such thread.
   *
   * @param threadId The thread.
   * @param limit The most snapshots, 10 by default; a number below 1 counts as 1.
   * @param before Only snapshots that are strictly older than this one. An unknown one has none.
   * @param ownerId The owner.
   */
  async getHistory(
    threadId: string,
    limit?: Maybe<number>,
    before?: Maybe<Before>,
    ownerId?: Maybe<string>,
  ): Promise<ThreadState[] | null> {
    const most = Math.max(1, checkedCount(limit ?? 10, "limit"));
    const older = checkpointId(before);
    const request = { ...this.one(threadId, ownerId), before: older };
    if (older && !isId(older)) {
      return (await this.get(threadId, ownerId)) === null ? null : [];
    }
    const list = (page: Fields) => this.states("listThreadStates", page);
    try {
      return await paged(list, request, "states", threadStateOf, most);
    } catch (error) {
      if (error instanceof NotFound) {
        return older && error.metadata.resource !== "thread" ? [] : null;
      }
      if (error instanceof InvalidRequest && isAbsence(error, KIND.idFields)) {
        return null;
      }
      throw error;
    }
  }

  private states(method: string, request: Fields): Promise<Fields> {
    return this.scope.method(ThreadService, method)(request);
  }
}

function checkpointId(before: Maybe<Before>): string {
  let found: unknown = before;
  if (typeof before === "object" && before !== null) {
    const { configurable } = before;
    const named = typeof configurable === "object" && configurable !== null ? configurable : before;
    found = (named as Fields).checkpoint_id;
  }
  return found === undefined || found === null ? "" : checkedText(found, "before");
}
