/**
 * LangGraph's checkpoints as messages of the service, in the rows that LangGraph.js's own Postgres saver keeps them in: the checkpoint
 * without its values is JSON, and each value is bytes of the saver's serializer, stored once for its channel and version.
 */

import { type MessageInitShape, protoInt64 } from "@bufbuild/protobuf";
import type { RunnableConfig } from "@langchain/core/runnables";
import {
  type ChannelVersions,
  type Checkpoint,
  type CheckpointListOptions,
  type CheckpointMetadata,
  type CheckpointPendingWrite,
  type CheckpointTuple,
  type DeltaChannelHistory,
  getCheckpointId,
  maxChannelVersion,
  type PendingWrite,
  type SerializerProtocol,
  TASKS,
  WRITES_IDX_MAP,
} from "@langchain/langgraph-checkpoint";
import { checkedOwner } from "../connection.js";
import type {
  GetDeltaChannelHistoryResponse,
  ListCheckpointsRequestSchema,
  ListCheckpointsResponse,
  Checkpoint as Message,
  PutCheckpointRequestSchema,
  PutWritesRequestSchema,
} from "../gen/agentstorage/v1/checkpoints_pb.js";
import { parseJson, writeJson } from "../json.js";
import { type Dumped, dumped, loaded, loadedMetadata, MESSAGE_BYTES, metadataText, packed, sizeOf } from "./values.js";

type ChannelVersion = number | string;
type PutRequest = MessageInitShape<typeof PutCheckpointRequestSchema>;
type WritesRequest = MessageInitShape<typeof PutWritesRequestSchema>;
type ListRequest = MessageInitShape<typeof ListCheckpointsRequestSchema>;

/** What one message has at most, as the service has it. */
const CHANNELS = 10_000;
const WRITES = 100_000;
const IDS = 1_000;
// What the service calls the bytes of a channel without a value.
const EMPTY = "empty";

/** Which checkpoint a config is about, and whose it is. */
export interface Address {
  ownerId: string;
  threadId: string;
  checkpointNs: string;
  checkpointId: string;
}

/** Give the owner that a config names; undefined for none. Throws TypeError for what is no owner. */
export function ownerOf(config: RunnableConfig | undefined): string | undefined {
  return checkedOwner(config?.configurable?.owner_id, "config.configurable.owner_id");
}

/** Give the checkpoint that a config is about; undefined when it names no thread. */
export function addressOf(config: RunnableConfig, ownerId: string): Address | undefined {
  const { thread_id: threadId, checkpoint_ns: checkpointNs } = config.configurable ?? {};
  if (threadId === undefined || threadId === null) {
    return undefined;
  }
  return {
    ownerId,
    threadId: String(threadId),
    checkpointNs: checkpointNs ?? "",
    checkpointId: getCheckpointId(config),
  };
}

/** Make a config; with the owner when it came from a config, so that what LangGraph makes of this one names it too. */
export function configOf(
  threadId: string,
  checkpointNs: string,
  checkpointId: string,
  ownerId: string | undefined,
): RunnableConfig {
  const configurable = { thread_id: threadId, checkpoint_ns: checkpointNs, checkpoint_id: checkpointId };
  return { configurable: ownerId === undefined ? configurable : { ...configurable, owner_id: ownerId } };
}

/** Make the requests that keep a checkpoint, in their order; more than one only when it is larger than a message. */
export async function putRequests(
  serde: SerializerProtocol,
  address: Address,
  checkpoint: Checkpoint,
  metadata: CheckpointMetadata,
  newVersions: ChannelVersions,
): Promise<PutRequest[]> {
  // All serializers begin before anything is awaited.
  const values = storedVersions(checkpoint, newVersions).map(async ([channel, version]) => ({
    channel,
    version: String(version),
    ...(await dumped(serde, channel, checkpoint.channel_values[channel])),
  }));
  const about = metadataText(metadata);
  const text = writeJson({ ...checkpoint, channel_values: undefined }, "the checkpoint");
  const [channels, metadataJson] = await Promise.all([Promise.all(values), about]);
  const { ownerId, threadId, checkpointNs, checkpointId: parentCheckpointId } = address;
  const place = { ownerId, threadId, checkpointNs, checkpointId: checkpoint.id };
  const last = { ...place, parentCheckpointId, checkpoint: text, metadata: metadataJson };
  const size =
    channels.reduce((sum, value) => sum + sizeOf(value), 0) + Buffer.byteLength(text) + Buffer.byteLength(metadataJson);
  if (size <= MESSAGE_BYTES && channels.length <= CHANNELS) {
    return [{ ...last, channels }];
  }
  return [...packed(channels, CHANNELS).map((part) => ({ ...place, channels: part })), last];
}

/** The channels whose values go with a put, with their versions. */
function storedVersions(checkpoint: Checkpoint, newVersions: ChannelVersions): [string, ChannelVersion][] {
  return Object.entries(checkpoint.channel_values).flatMap(([channel, value]): [string, ChannelVersion][] => {
    const isNew = Object.hasOwn(newVersions, channel);
    const versions = isNew ? newVersions : checkpoint.channel_versions;
    const version = Object.hasOwn(versions, channel) ? versions[channel] : undefined;
    // Python kept this version of a text or number in the JSON of the checkpoint before, where the next one can't find it.
    const isInline = typeof version === "string" && (typeof value !== "object" || value === null);
    return version !== undefined && (isNew || isInline) ? [[channel, version]] : [];
  });
}

/** Make the requests that keep what a task wrote; more than one only when it is larger than a message. */
export async function writeRequests(
  serde: SerializerProtocol,
  address: Address,
  writes: PendingWrite[],
  taskId: string,
  taskPath: string,
): Promise<WritesRequest[]> {
  // Of two writes to one special channel the later counts.
  const places = new Map(writes.map(([channel, value], place) => [indexOf(channel, place), { channel, value }]));
  const made = await Promise.all(
    Array.from(places, async ([index, { channel, value }]) => ({
      taskId,
      taskPath,
      index,
      channel,
      ...(await dumped(serde, channel, value)),
    })),
  );
  return packed(made, WRITES).map((part) => ({ ...address, writes: part }));
}

/** The place of a write among those of its task; each special channel has one of its own. */
function indexOf(channel: string, place: number): number {
  return Object.hasOwn(WRITES_IDX_MAP, channel) ? (WRITES_IDX_MAP[channel] ?? place) : place;
}

/** Make the request of a list; undefined for an empty one. Throws TypeError for a limit that is none. */
export function listRequest(
  ownerId: string,
  config: RunnableConfig | undefined,
  options: CheckpointListOptions,
): ListRequest | undefined {
  const { filter, before, limit } = options;
  const { thread_id: threadId, checkpoint_ns: checkpointNs } = config?.configurable ?? {};
  if (limit !== undefined && limit !== null && !Number.isSafeInteger(limit)) {
    throw new TypeError("limit must be an integer");
  }
  // No thread is named by an empty text; whoever names none means all of them.
  if (threadId === "" || limit === 0) {
    return undefined;
  }
  return {
    ownerId,
    threadId: threadId === undefined || threadId === null ? "" : String(threadId),
    checkpointNs: checkpointNs ?? undefined,
    checkpointId: config === undefined ? "" : getCheckpointId(config),
    metadata: filter && Object.keys(filter).length > 0 ? writeJson(filter, "filter") : "",
    before: before === undefined ? "" : getCheckpointId(before),
    limit: protoInt64.parse(limit ?? 0),
  };
}

/** Divide ids into as many as the service takes at once. Throws TypeError for what is no array. */
export function idParts(ids: readonly string[], name: string): string[][] {
  if (!Array.isArray(ids)) {
    throw new TypeError(`${name} must be an array of ids, not one id`);
  }
  const parts: string[][] = [];
  for (let start = 0; start < ids.length; start += IDS) {
    parts.push(ids.slice(start, start + IDS).map(String));
  }
  return parts;
}

/** Put the checkpoints of a list together from their parts. */
export async function* wholeCheckpoints(messages: AsyncIterable<ListCheckpointsResponse>): AsyncGenerator<Message> {
  let whole: Message | undefined;
  for await (const { checkpoint, more } of messages) {
    if (whole === undefined) {
      whole = checkpoint;
    } else if (checkpoint !== undefined) {
      // One by one: a spread of many thousands is too many arguments.
      for (const value of checkpoint.channels) {
        whole.channels.push(value);
      }
      for (const write of checkpoint.writes) {
        whole.writes.push(write);
      }
      for (const send of checkpoint.parentSends) {
        whole.parentSends.push(send);
      }
    }
    if (whole !== undefined && !more) {
      yield whole;
      whole = undefined;
    }
  }
}

/** Make LangGraph's tuple of a checkpoint, whose configs name the owner when one is given. Rejects with UnreadableValue. */
export async function tupleOf(
  serde: SerializerProtocol,
  message: Message,
  ownerId: string | undefined,
): Promise<CheckpointTuple> {
  const { threadId, checkpointNs, checkpointId, parentCheckpointId } = message;
  const load = (channel: string, stored: Dumped) => loaded(serde, channel, stored, threadId);
  const stored = parseJson(message.checkpoint) as Checkpoint;
  const [values, sends, pendingWrites, metadata] = await Promise.all([
    Promise.all(
      message.channels
        .filter((value) => value.type !== EMPTY)
        .map(async (value) => [value.channel, await load(value.channel, value)] as const),
    ),
    Promise.all(message.parentSends.map((send) => load(send.channel, send))),
    Promise.all(message.writes.map((write) => pendingWrite(write, load))),
    loadedMetadata(message.metadata),
  ]);
  const checkpoint: Checkpoint = {
    ...stored,
    channel_versions: stored.channel_versions ?? {},
    versions_seen: stored.versions_seen ?? {},
    // Python keeps texts, numbers and the like there.
    channel_values: { ...stored.channel_values, ...Object.fromEntries(values) },
  };
  if (sends.length > 0) {
    // Up to format 3 what a step sent was kept with the parent's writes; now it is the value of a channel.
    const versions = Object.values(checkpoint.channel_versions);
    checkpoint.channel_values[TASKS] = sends;
    checkpoint.channel_versions[TASKS] = versions.length > 0 ? maxChannelVersion(...versions) : nextVersion(undefined);
  }
  const tuple: CheckpointTuple = {
    config: configOf(threadId, checkpointNs, checkpointId, ownerId),
    checkpoint,
    metadata: metadata as CheckpointMetadata,
    pendingWrites,
  };
  if (parentCheckpointId) {
    tuple.parentConfig = configOf(threadId, checkpointNs, parentCheckpointId, ownerId);
  }
  return tuple;
}

/** Make LangGraph's histories of delta channels, by channel. Rejects with UnreadableValue. */
export async function historiesOf(
  serde: SerializerProtocol,
  message: GetDeltaChannelHistoryResponse,
  threadId: string,
): Promise<Record<string, DeltaChannelHistory>> {
  const load = (channel: string, stored: Dumped) => loaded(serde, channel, stored, threadId);
  const made = message.channels.map(async ({ channel, seed, writes }) => {
    const history: DeltaChannelHistory = {
      writes: await Promise.all(writes.map((write) => pendingWrite(write, load))),
    };
    if (seed.case === "value") {
      history.seed = await load(channel, seed.value);
    } else if (seed.case === "json") {
      history.seed = parseJson(seed.value);
    }
    return [channel, history] as const;
  });
  return Object.fromEntries(await Promise.all(made));
}

async function pendingWrite(
  write: Dumped & { taskId: string; channel: string },
  load: (channel: string, stored: Dumped) => Promise<unknown>,
): Promise<CheckpointPendingWrite> {
  return [write.taskId, write.channel, await load(write.channel, write)];
}

/**
 * Give the version after another, of the same kind: LangGraph.js counts with numbers, Python with texts that sort.
 *
 * Two that go on from one checkpoint must not give one version to two values, of which the first alone would be kept; so what follows the
 * count, a fraction or the end of the text, is random. Throws TypeError for a text that begins with no count.
 */
export function nextVersion(current: ChannelVersion | undefined): ChannelVersion {
  if (typeof current !== "string") {
    return Math.floor(current ?? 0) + 1 + Math.random();
  }
  return nextTextVersion(current);
}

/** Give the version after another, as Python's Postgres savers count; after undefined the first. */
export function nextTextVersion(current: ChannelVersion | undefined): string {
  const count = Number.parseInt(String(current ?? 0), 10);
  if (!Number.isSafeInteger(count)) {
    throw new TypeError(`no version of a channel follows "${current}"`);
  }
  return `${String(count + 1).padStart(32, "0")}.${Math.random().toFixed(16)}`;
}
