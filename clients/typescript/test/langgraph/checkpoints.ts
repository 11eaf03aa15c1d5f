/** Checkpoints for tests. */

import { randomUUID } from "node:crypto";
import type { RunnableConfig } from "@langchain/core/runnables";
import {
  type BaseCheckpointSaver,
  type ChannelVersions,
  type Checkpoint,
  type CheckpointMetadata,
  type CheckpointTuple,
  uuid6,
} from "@langchain/langgraph-checkpoint";
import { OwnerService } from "../../src/gen/agentstorage/v1/owner_pb.js";
import type { Connection } from "../../src/index.js";

let version = 0;

/** A thread that nothing belongs to yet. */
export function newThread(): string {
  return `thread-${randomUUID()}`;
}

/** The config of a thread, or of a checkpoint in it. */
export function config(thread: string, checkpointId?: string, more: Record<string, unknown> = {}): RunnableConfig {
  const configurable: Record<string, unknown> = { thread_id: thread, checkpoint_ns: "", ...more };
  if (checkpointId !== undefined) {
    configurable.checkpoint_id = checkpointId;
  }
  return { configurable };
}

/** A checkpoint with values, each in a version of its own unless told otherwise. */
export function checkpoint(
  values: Record<string, unknown>,
  versions: ChannelVersions = Object.fromEntries(Object.keys(values).map((channel) => [channel, ++version])),
  id = uuid6(0),
): Checkpoint {
  return {
    v: 4,
    id,
    ts: new Date().toISOString(),
    channel_values: values,
    channel_versions: versions,
    versions_seen: { node: { a: 1 } },
  };
}

/** Metadata of a step. */
export function metadata(step = 0, more: Record<string, unknown> = {}): CheckpointMetadata {
  return { source: "loop", step, parents: {}, ...more };
}

/** Keep a checkpoint whose channels are all new, after another; give its config. */
export async function put(
  saver: BaseCheckpointSaver,
  parent: RunnableConfig | string,
  values: Record<string, unknown>,
  more: Record<string, unknown> = {},
): Promise<RunnableConfig> {
  const made = checkpoint(values);
  const before = typeof parent === "string" ? config(parent) : parent;
  return saver.put(before, made, metadata(0, more), made.channel_versions);
}

/** The checkpoint id of a config. */
export function idOf(where: RunnableConfig): string {
  return where.configurable?.checkpoint_id;
}

/** All that a generator gives. */
export async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const item of items) {
    found.push(item);
  }
  return found;
}

/** The checkpoint of a config, which is there. */
export async function tupleAt(saver: BaseCheckpointSaver, where: RunnableConfig): Promise<CheckpointTuple> {
  const found = await saver.getTuple(where);
  if (found === undefined) {
    throw new Error(`no checkpoint for ${JSON.stringify(where)}`);
  }
  return found;
}

/** Delete all that an owner has. */
export async function erase(connection: Connection, ownerId: string): Promise<void> {
  while (!(await connection.client(OwnerService).eraseOwner({ ownerId })).done) {
    // Some at a time.
  }
}
