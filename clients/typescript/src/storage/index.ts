/** The drop-in storage interface: the calls that agent runtimes make, answered by the storage service. */

import { Connection, type ConnectionOptions, checkedOwner } from "../connection.js";
import { Assistants } from "./assistants.js";
import { Crons } from "./crons.js";
import { Runs } from "./runs.js";
import { Scope } from "./scope.js";
import { Store } from "./store.js";
import { Threads } from "./threads.js";

export type {
  AssistantCreate,
  AssistantFilters,
  AssistantSearch,
  Assistants,
  AssistantUpdate,
} from "./assistants.js";
export type { CronCreate, CronFilters, Crons, CronUpdate } from "./crons.js";
export type { Maybe } from "./fields.js";
export type { IfExists, Page, SortOrder } from "./resource.js";
export type {
  Assistant,
  Checkpoint,
  Cron,
  Item,
  JsonObject,
  MisfirePolicy,
  MultitaskStrategy,
  OnRunCompleted,
  Run,
  RunStatus,
  Thread,
  ThreadState,
  ThreadStatus,
  ThreadVisibility,
} from "./rows.js";
export type { RunCreate, Runs, RunUpdate } from "./runs.js";
export type { Namespace, Store } from "./store.js";
export type {
  Before,
  ThreadCreate,
  ThreadFilters,
  ThreadSearch,
  ThreadStateCreate,
  Threads,
  ThreadUpdate,
} from "./threads.js";

/** An open connection to use, and the owner of the storage's calls that name none. */
export interface OpenConnection {
  /** The connection, which stays open when the storage is closed. */
  connection: Connection;
  /** Default: the connection's own. */
  ownerId?: string | undefined;
}

/**
 * Everything that a runtime stores, behind the interface that it already calls. Made by `createStorage`.
 *
 * Rows that are absent, or another owner's, are null or false, never an exception; what the service refuses or cannot do is a
 * `StorageError`, and an argument that is wrong is a TypeError. Both come as rejections.
 */
export class Storage implements AsyncDisposable {
  readonly assistants: Assistants;
  readonly threads: Threads;
  readonly runs: Runs;
  readonly store: Store;
  readonly crons: Crons;
  /** The connection, for the generated clients. */
  readonly connection: Connection;
  private readonly isOwn: boolean;

  /** @internal */
  constructor(options: ConnectionOptions | OpenConnection) {
    let ownerId: string | undefined;
    if (typeof options !== "object" || options === null) {
      throw new TypeError('the options must be an object, such as { target: "localhost:50051" }');
    }
    if ("connection" in options) {
      this.connection = checkedConnection(options);
      ownerId = checkedOwner(options.ownerId) ?? this.connection.ownerId;
      this.isOwn = false;
    } else {
      this.connection = new Connection(options);
      ownerId = this.connection.ownerId;
      this.isOwn = true;
    }
    const scope = new Scope(this.connection, ownerId);
    this.assistants = new Assistants(scope);
    this.threads = new Threads(scope);
    this.runs = new Runs(scope);
    this.store = new Store(scope);
    this.crons = new Crons(scope);
  }

  /** Delete every row of all resources, of all owners. For tests: the server must allow it, and the token too. */
  async clearAll(): Promise<void> {
    for (const resource of [this.runs, this.crons, this.threads, this.assistants, this.store]) {
      await resource.clear();
    }
  }

  /** Close the connection, unless it was given. */
  async close(): Promise<void> {
    if (this.isOwn) {
      await this.connection.close();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

function checkedConnection({ connection, ownerId: _, ...others }: OpenConnection): Connection {
  const names = Object.keys(others);
  if (names.length) {
    throw new TypeError(`${names.join(", ")} belong to the Connection that is given`);
  }
  if (!(connection instanceof Connection)) {
    throw new TypeError("connection must be a Connection");
  }
  return connection;
}

/**
 * Make a storage.
 *
 *     const storage = createStorage({ target: "localhost:50051" });
 *     const thread = await storage.threads.create({ metadata: { topic: "tea" } }, "alice");
 *
 * @param options What `Connection` takes, or an open connection. Default: what the `AGENTSTORAGE_*` variables say.
 * @throws TypeError for an option that is none or is wrong.
 */
export function createStorage(options: ConnectionOptions | OpenConnection = {}): Storage {
  return new Storage(options);
}
