/** Values as bytes of a serializer, and back. */

import { JsonPlusSerializer, type SerializerProtocol } from "@langchain/langgraph-checkpoint";
import { LimitReached } from "../errors.js";
import { parseJson, writeJson } from "../json.js";

/** Bytes of values that one message carries: the service's 64 MiB, less room for ids and names. */
export const MESSAGE_BYTES = 64 * 1024 * 1024 - 64 * 1024;
// The names and ids beside a value, as long as they may be.
const NAMES_BYTES = 2048;
// What JsonPlusSerializer writes in place of a whole value when something in it has no JSON, such as a bigint.
const LOST = '"[unable to serialize, circular reference is too complex to analyze]"';
const JSON_PLUS = new JsonPlusSerializer();
const DECODER = new TextDecoder();

/**
 * A stored value can't be read: it was written with another serializer, or its bytes are damaged. `cause` is what the serializer threw.
 */
export class UnreadableValue extends Error {
  /** The channel whose value it is. */
  readonly channel: string;
  /** How its bytes were made, as the serializer that made them calls it, such as `"msgpack"`. */
  readonly type: string;
  /** The thread. */
  readonly threadId: string;

  constructor(channel: string, type: string, threadId: string, cause: unknown) {
    const why = cause instanceof Error ? cause.message : String(cause);
    super(
      `the value of channel "${channel}" of thread "${threadId}" has the serialization type "${type}", which this saver's serializer ` +
        `can't read (${why}): give the saver the serializer that wrote it; for threads that Python and TypeScript share, the portable ` +
        "serializer on both sides, from the first checkpoint on",
      { cause },
    );
    this.name = "UnreadableValue";
    this.channel = channel;
    this.type = type;
    this.threadId = threadId;
  }
}

/** A value as it is stored. */
export interface Dumped {
  /** How its bytes were made. */
  type: string;
  value: Uint8Array;
}

/**
 * Make bytes of a channel's value. The serializer begins before this returns, so that what changes the value later is not stored.
 *
 * Rejects with TypeError for a value of which nothing would be stored, and with LimitReached for one that no message carries.
 */
export async function dumped(serde: SerializerProtocol, channel: string, data: unknown): Promise<Dumped> {
  const [type, value] = await serde.dumpsTyped(data);
  if (type === "json" && value.length === LOST.length && typeof data !== "string" && DECODER.decode(value) === LOST) {
    throw new TypeError(
      `the value of channel "${channel}" is not JSON for the serializer: it holds a bigint, or what throws when it is read`,
    );
  }
  if (value.length + NAMES_BYTES > MESSAGE_BYTES) {
    throw new LimitReached(
      `the value of channel "${channel}" has ${value.length} bytes, more than the ${MESSAGE_BYTES - NAMES_BYTES} that one message ` +
        "carries: keep large data elsewhere and store where it is",
      { reason: "" },
    );
  }
  return { type, value };
}

/** Make a value of stored bytes. Rejects with UnreadableValue. */
export async function loaded(
  serde: SerializerProtocol,
  channel: string,
  stored: Dumped,
  threadId: string,
): Promise<unknown> {
  let read: unknown;
  try {
    read = await serde.loadsTyped(stored.type, stored.value);
  } catch (error) {
    throw new UnreadableValue(channel, stored.type, threadId, error);
  }
  // A part of the message would keep all of it in memory, and may be a Buffer, whose slice() is no copy.
  return read instanceof Uint8Array && read.buffer === stored.value.buffer ? new Uint8Array(read) : read;
}

/** Divide what is sent into messages, by its bytes and by how much of it one message may have. */
export function packed<T extends { value: Uint8Array }>(items: Iterable<T>, most: number): T[][] {
  const parts: T[][] = [];
  let part: T[] = [];
  let room = 0;
  for (const item of items) {
    const size = sizeOf(item);
    if (part.length === 0 || size > room || part.length === most) {
      part = [];
      parts.push(part);
      room = MESSAGE_BYTES;
    }
    part.push(item);
    room -= size;
  }
  return parts;
}

/** The bytes of a value in a message, at most. */
export function sizeOf(item: { value: Uint8Array }): number {
  return item.value.length + NAMES_BYTES;
}

/**
 * The metadata of a checkpoint as JSON text, without NUL, which Postgres has not. What JSON has not, such as a Set, is written as
 * LangGraph.js's own Postgres saver does.
 *
 * Rejects with TypeError for what has no form there either.
 */
export async function metadataText(metadata: object): Promise<string> {
  const name = "the metadata of the checkpoint";
  let text: string;
  try {
    text = writeJson(metadata, name);
  } catch (error) {
    const [, data] = await JSON_PLUS.dumpsTyped(metadata);
    text = DECODER.decode(data);
    if (text === LOST) {
      throw error;
    }
  }
  return text.includes("\\u0000") ? writeJson(withoutNul(parseJson(text)), name) : text;
}

function withoutNul(value: unknown): unknown {
  if (typeof value === "string") {
    return value.replaceAll("\0", "");
  }
  if (Array.isArray(value)) {
    return value.map(withoutNul);
  }
  if (typeof value === "object" && value !== null) {
    return Object.fromEntries(Object.entries(value).map(([key, entry]) => [withoutNul(key), withoutNul(entry)]));
  }
  return value;
}

/** Read the metadata of a checkpoint; what was no JSON comes back as what it was. */
export async function loadedMetadata(text: string): Promise<unknown> {
  const metadata = text ? parseJson(text) : {};
  return text.includes('"lc"') ? revived(metadata) : metadata;
}

async function revived(value: unknown): Promise<unknown> {
  if (typeof value !== "object" || value === null) {
    return value;
  }
  if (Array.isArray(value)) {
    return Promise.all(value.map(revived));
  }
  if ("lc" in value && (value.lc === 1 || value.lc === 2)) {
    return JSON_PLUS.loadsTyped("json", writeJson(value));
  }
  const entries = Object.entries(value).map(async ([key, entry]) => [key, await revived(entry)] as const);
  return Object.fromEntries(await Promise.all(entries));
}
