/** LangGraph.js's checkpointer on the storage service. */

import type { Client } from "@connectrpc/connect";
import type { RunnableConfig } from "@langchain/core/runnables";
import {
  BaseCheckpointSaver,
  type ChannelVersions,
  type Checkpoint,
  type CheckpointListOptions,
  type CheckpointMetadata,
  type CheckpointTuple,
  type DeltaChannelHistory,
  type PendingWrite,
  type SerializerProtocol,
} from "@langchain/langgraph-checkpoint";
import { type Connection, checkedOwner } from "../connection.js";
import { LimitReached, NotFound } from "../errors.js";
import { CheckpointService, type Checkpoint as Message } from "../gen/agentstorage/v1/checkpoints_pb.js";
import { PruneStrategy } from "../gen/agentstorage/v1/threads_pb.js";
import {
  type Address,
  addressOf,
  configOf,
  historiesOf,
  idParts,
  listRequest,
  nextTextVersion,
  nextVersion,
  ownerOf,
  putRequests,
  tupleOf,
  wholeCheckpoints,
  writeRequests,
} from "./checkpoints.js";
import { type OpeningOptions, opened, ping } from "./opening.js";
import { PortableSerializer } from "./portable.js";

const STRATEGIES = { keep_latest: PruneStrategy.KEEP_LATEST, delete: PruneStrategy.DELETE } as const;

/** What a saver is made with: where the service is, or an open connection, and this. */
export interface GrpcSaverOptions extends OpeningOptions {
  /** The owner of all checkpoints. Default: `config.configurable.owner_id` of each call, else the connection's owner. */
  ownerId?: string | undefined;
  /** Makes bytes of values and values of bytes. Default: LangGraph's `JsonPlusSerializer`. */
  serde?: SerializerProtocol | undefined;
}

/**
 * LangGraph.js's checkpointer on the storage service.
 *
 *     await using saver = new GrpcSaver({ target: "localhost:50051", ownerId: "alice" });
 *     const graph = builder.compile({ checkpointer: saver });
 *     await graph.invoke(inputs, { configurable: { thread_id: "t1" } });
 *
 * Any number of operations run at once, on one connection. A signal in the config ends what reads; what writes is not ended by it, so that
 * an aborted run keeps what its tasks had done.
 *
 * Every method rejects with `StorageError` when the service can't do what is asked, with TypeError when no owner is named, and with
 * `UnreadableValue` for a value of another serializer.
 *
 * The constructor throws TypeError for an option that is none, and what `Connection` throws.
 */
export class GrpcSaver extends BaseCheckpointSaver implements AsyncDisposable {
  /** The connection, for the generated clients. */
  readonly connection: Connection;
  private readonly isOwn: boolean;
  private readonly ownerId: string | undefined;

  constructor(options: GrpcSaverOptions = {}) {
    const { serde, ...opening } = options;
    super(serde);
    this.ownerId = checkedOwner(options.ownerId);
    const { connection, isOwn } = opened(opening);
    this.connection = connection;
    this.isOwn = isOwn;
  }

  /** Ask whether the service is there; it makes its tables itself. Programs that change savers may call it as before. */
  async setup(): Promise<void> {
    await ping(this.connection);
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

  /**
   * Give the version of a channel after `current`, of the same kind: a number, or a text where a thread has such. With the portable
   * serializer a thread begins with texts, as in Python: LangGraph's own savers there can't go on with numbers.
   */
  override getNextVersion(current: number | undefined): number {
    const isShared = current === undefined && this.serde instanceof PortableSerializer;
    // A checkpointer that compile() takes counts with numbers, by its type; LangGraph goes on with texts where a thread has them.
    return (isShared ? nextTextVersion(current) : nextVersion(current)) as number;
  }

  /** Give the checkpoint with the config's id, or the newest of its thread and namespace; undefined when there is none. */
  override async getTuple(config: RunnableConfig): Promise<CheckpointTuple | undefined> {
    const address = addressOf(config, this.owner(config));
    if (address === undefined) {
      return undefined;
    }
    const message = await this.found(address, config);
    return message === undefined ? undefined : tupleOf(this.serde, message, ownerOf(config));
  }

  /**
   * Give checkpoints one after another as they come from the service, greatest id first.
   *
   * @param config Whose thread, namespace and checkpoint id, each where it has one, must be the checkpoint's; without them all of the
   *   owner's.
   * @param options `filter`, what the metadata must contain; `before`, the config of a checkpoint whose id is greater; `limit`, how many
   *   at most.
   */
  override async *list(
    config: RunnableConfig | undefined,
    options: CheckpointListOptions = {},
  ): AsyncGenerator<CheckpointTuple> {
    const request = listRequest(this.owner(config), config, options);
    if (request === undefined) {
      return;
    }
    for await (const message of wholeCheckpoints(this.client().listCheckpoints(request, reading(config)))) {
      yield await tupleOf(this.serde, message, ownerOf(config));
    }
  }

  /** Keep a checkpoint after the one whose config is given, with the values of the channels that have new versions. */
  override async put(
    config: RunnableConfig,
    checkpoint: Checkpoint,
    metadata: CheckpointMetadata,
    newVersions: ChannelVersions,
  ): Promise<RunnableConfig> {
    const address = this.address(config, "put");
    for (const request of await putRequests(this.serde, address, checkpoint, metadata, newVersions)) {
      await written(this.client().putCheckpoint(request), address);
    }
    return configOf(address.threadId, address.checkpointNs, checkpoint.id, ownerOf(config));
  }

  /** Keep what a task wrote for the checkpoint of the config. */
  override async putWrites(
    config: RunnableConfig,
    writes: PendingWrite[],
    taskId: string,
    taskPath = "",
  ): Promise<void> {
    const address = this.address(config, "putWrites");
    if (!address.checkpointId) {
      throw new TypeError("putWrites needs config.configurable.checkpoint_id, the checkpoint that the task ran on");
    }
    for (const request of await writeRequests(this.serde, address, writes, taskId, taskPath)) {
      await written(this.client().putWrites(request), address);
    }
  }

  /** Delete the checkpoints of a thread in all namespaces. */
  override async deleteThread(threadId: string): Promise<void> {
    await this.client().deleteThreadCheckpoints({ ownerId: this.owner(), threadId: String(threadId) });
  }

  /** Delete the checkpoints whose metadata names one of the runs as "run_id", in all of the owner's threads. */
  async deleteForRuns(runIds: readonly string[]): Promise<void> {
    const ownerId = this.owner();
    for (const part of idParts(runIds, "runIds")) {
      await this.client().deleteRunCheckpoints({ ownerId, runIds: part });
    }
  }

  /** Copy the checkpoints of a thread, in all namespaces and with the same ids, to another thread. */
  async copyThread(sourceThreadId: string, targetThreadId: string): Promise<void> {
    await this.client().copyThreadCheckpoints({
      ownerId: this.owner(),
      threadId: String(sourceThreadId),
      newThreadId: String(targetThreadId),
    });
  }

  /**
   * Delete checkpoints of threads.
   *
   * @param threadIds The threads.
   * @param options `strategy`: "keep_latest", the default, leaves the newest of each namespace, and those from which its delta channels
   *   are built; "delete" leaves none.
   */
  async prune(threadIds: readonly string[], options: { strategy?: keyof typeof STRATEGIES } = {}): Promise<void> {
    const { strategy = "keep_latest" } = options;
    if (!Object.hasOwn(STRATEGIES, strategy)) {
      throw new TypeError(`strategy must be one of ${Object.keys(STRATEGIES).join(", ")}, not "${strategy}"`);
    }
    const ownerId = this.owner();
    for (const part of idParts(threadIds, "threadIds")) {
      await this.client().pruneCheckpoints({ ownerId, threadIds: part, strategy: STRATEGIES[strategy] });
    }
  }

  /** Give what the values of delta channels are built from: the writes of the checkpoint's ancestors, and what they follow. */
  override async getDeltaChannelHistory(options: {
    config: RunnableConfig;
    channels: string[];
  }): Promise<Record<string, DeltaChannelHistory>> {
    const { config, channels } = options;
    const address = addressOf(config, this.owner(config));
    const nothing = Object.fromEntries(channels.map((channel) => [channel, { writes: [] }]));
    if (address === undefined || channels.length === 0) {
      return nothing;
    }
    try {
      const message = await this.client().getDeltaChannelHistory({ ...address, channels }, reading(config));
      return await historiesOf(this.serde, message, address.threadId);
    } catch (error) {
      if (error instanceof NotFound) {
        return nothing;
      }
      if (error instanceof LimitReached) {
        // Larger than a message: ancestor by ancestor, as the base class does it.
        return await super.getDeltaChannelHistory(options);
      }
      throw error;
    }
  }

  private async found(address: Address, config: RunnableConfig): Promise<Message | undefined> {
    try {
      return (await this.client().getCheckpoint(address, reading(config))).checkpoint;
    } catch (error) {
      if (error instanceof NotFound) {
        return undefined;
      }
      if (!(error instanceof LimitReached)) {
        throw error;
      }
    }
    // Larger than a message; a list gives it in parts.
    const listed = this.client().listCheckpoints({ ...address, limit: 1n }, reading(config));
    for await (const message of wholeCheckpoints(listed)) {
      return message;
    }
    return undefined;
  }

  private client(): Client<typeof CheckpointService> {
    return this.connection.client(CheckpointService);
  }

  /** The owner whose checkpoints a call is about. Throws TypeError. */
  private owner(config?: RunnableConfig): string {
    const named = ownerOf(config);
    if (this.ownerId !== undefined && named !== undefined && named !== this.ownerId) {
      throw new TypeError("config.configurable.owner_id is not the ownerId that this saver was made with");
    }
    const owner = named ?? this.ownerId ?? this.connection.ownerId;
    if (owner === undefined) {
      throw new TypeError(
        "no ownerId: give the saver one, set config.configurable.owner_id for calls that have a config, or set AGENTSTORAGE_OWNER",
      );
    }
    return owner;
  }

  private address(config: RunnableConfig, name: string): Address {
    const address = addressOf(config, this.owner(config));
    if (address === undefined) {
      throw new TypeError(`${name} needs config.configurable.thread_id, the thread whose state is kept`);
    }
    return address;
  }
}

function reading(config: RunnableConfig | undefined): { signal?: AbortSignal } {
  return config?.signal === undefined ? {} : { signal: config.signal };
}

async function written(call: Promise<unknown>, address: Address): Promise<void> {
  try {
    await call;
  } catch (error) {
    if (error instanceof NotFound) {
      const hint = `the thread id "${address.threadId}" is not this owner's to write, or was deleted just now: use another thread_id`;
      throw new NotFound(`${error.message}; ${hint}`, error);
    }
    throw error;
  }
}
