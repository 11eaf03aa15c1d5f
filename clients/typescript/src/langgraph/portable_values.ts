/**
 * JavaScript's values as JSON values of the portable format, and back.
 *
 * What JSON has not is an object with the key "$", which names what it is: `{"$": "bytes", "v": "AAE="}`.
 */

import { Document } from "@langchain/core/documents";
import { BaseMessage } from "@langchain/core/messages";
import { DeltaSnapshot, isDeltaSnapshot } from "@langchain/langgraph-checkpoint";
import { readMessage, writeMessage } from "./portable_messages.js";
import {
  dateOf,
  dateText,
  isPortableKind,
  NotPortable,
  PortableValue,
  ReadInterrupt,
  ReadOverwrite,
  ReadSend,
  type SendTimeout,
} from "./portable_types.js";

/** An object of JSON. */
export type JsonObject = Record<string, unknown>;

const TAG = "$";
/** How many containers may be in each other. */
const DEPTH = 200;
/** How deep the JSON of a value may be, which has up to four levels for one container. */
const JSON_DEPTH = 4 * DEPTH;
/** As many digits as Python turns into an integer by default. */
const DIGITS = 4300;
const INTEGER = /^(0|-?[1-9]\d*)$/;
const BASE64 = /^[A-Za-z0-9+/]*={0,2}$/;
const SPECIAL = new Map([
  ["NaN", Number.NaN],
  ["Infinity", Number.POSITIVE_INFINITY],
  ["-Infinity", Number.NEGATIVE_INFINITY],
  ["-0", -0],
]);

function tagged(tag: string, value: unknown): JsonObject {
  return { [TAG]: tag, v: value };
}

/** Whether a value is an object with properties and no class. */
export function isPlain(value: unknown): value is JsonObject {
  if (typeof value !== "object" || value === null) {
    return false;
  }
  const prototype = Object.getPrototypeOf(value);
  // That of an object of another realm is not this one's Object.prototype.
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}

/** Make a JSON value of a value. Throws NotPortable for what has no form in it. */
export function writeValue(value: unknown, depth = 0): unknown {
  switch (typeof value) {
    case "string":
    case "boolean":
      return value;
    case "number":
      return writeNumber(value);
    case "bigint":
      return writeBigint(value);
    case "undefined":
      return tagged("undefined", null);
    case "object":
      if (value === null) {
        return null;
      }
      if (depth >= DEPTH) {
        throw new NotPortable(`is nested more than ${DEPTH} levels deep, or in itself`);
      }
      return writeObject(value, depth + 1);
    default:
      throw new NotPortable(`is a ${typeof value}, which is code, not a value`);
  }
}

/** Make a JSON value of what is under a key, with the key in the error's path. */
export function writeMember(key: string | number, value: unknown, depth: number): unknown {
  try {
    return writeValue(value, depth);
  } catch (error) {
    throw error instanceof NotPortable ? error.within(key) : error;
  }
}

/** Make JSON values of the members that are not undefined. */
export function writeMembers(value: object, depth: number): JsonObject {
  const entries: [string, unknown][] = [];
  for (const [key, member] of Object.entries(value)) {
    if (member !== undefined) {
      entries.push([key, writeMember(key, member, depth)]);
    }
  }
  // Not assigned one by one: "__proto__" is a key as any other.
  return Object.fromEntries(entries);
}

function writeArray(values: readonly unknown[], depth: number): unknown[] {
  // Array.from gives holes too.
  return Array.from(values, (value, index) => writeMember(index, value, depth));
}

function writeNumber(value: number): unknown {
  if (!Number.isFinite(value) || Object.is(value, -0)) {
    return tagged("float", Object.is(value, -0) ? "-0" : String(value));
  }
  if (Number.isInteger(value) && !Number.isSafeInteger(value)) {
    // As plain digits it would be read as an integer.
    return tagged("float", BigInt(value).toString());
  }
  return value;
}

function writeBigint(value: bigint): JsonObject {
  const text = value.toString();
  if (text.replace("-", "").length > DIGITS) {
    throw new NotPortable(`is an integer of more than ${DIGITS} digits`);
  }
  return tagged("int", text);
}

function writeObject(value: object, depth: number): unknown {
  if (Array.isArray(value)) {
    return writeArray(value, depth);
  }
  if (isPlain(value)) {
    const made = writeMembers(value, depth);
    // An object that looks like a tagged one is told apart by its form.
    return Object.hasOwn(made, TAG) ? tagged("object", Object.entries(made)) : made;
  }
  if (BaseMessage.isInstance(value)) {
    return tagged("message", writeMessage(value, depth));
  }
  if (value instanceof Uint8Array) {
    return tagged("bytes", Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString("base64"));
  }
  if (value instanceof Date) {
    return tagged("datetime", dateText(value));
  }
  if (value instanceof Map) {
    return tagged(
      "map",
      Array.from(value, (entry) => writeArray(entry, depth)),
    );
  }
  if (value instanceof Set) {
    return tagged("set", writeArray([...value], depth));
  }
  if (value instanceof PortableValue) {
    return tagged(value.kind, value.text);
  }
  return writeClass(value as { lg_name?: unknown }, depth);
}

/** Write what LangChain and LangGraph have classes for. */
function writeClass(value: { lg_name?: unknown }, depth: number): unknown {
  if (value instanceof Document) {
    const { pageContent, metadata, id } = value;
    return tagged("document", writeMembers({ page_content: pageContent, metadata, id }, depth));
  }
  if (value instanceof ReadInterrupt) {
    return tagged("interrupt", writeMembers(value, depth));
  }
  if (isDeltaSnapshot(value)) {
    return tagged("delta", writeMember("value", value.value, depth));
  }
  if (value.lg_name === "Send") {
    const { node, args, timeout } = value as ReadSend;
    return tagged("send", {
      ...writeMembers({ node, arg: args ?? null }, depth),
      ...(timeout === undefined ? {} : { timeout: writeTimeout(timeout) }),
    });
  }
  if (value.lg_name === "Overwrite") {
    return tagged("overwrite", writeMember("value", (value as ReadOverwrite).__overwrite__, depth));
  }
  const name = value.constructor?.name || "unknown";
  throw new NotPortable(
    `is of the class ${name}, which other languages do not have: keep ${
      ArrayBuffer.isView(value) || value instanceof ArrayBuffer ? "a Uint8Array" : "a plain object, an array or a text"
    }`,
  );
}

// The format has seconds, as Python.

function writeTimeout({ runTimeout, idleTimeout, refreshOn }: SendTimeout): JsonObject {
  return {
    run_timeout: runTimeout === undefined ? null : runTimeout / 1000,
    idle_timeout: idleTimeout === undefined ? null : idleTimeout / 1000,
    refresh_on: refreshOn ?? "auto",
  };
}

function readTimeout(value: JsonObject): SendTimeout {
  const { run_timeout, idle_timeout, refresh_on } = value;
  return {
    ...(typeof run_timeout === "number" ? { runTimeout: inMilliseconds(run_timeout) } : {}),
    ...(typeof idle_timeout === "number" ? { idleTimeout: inMilliseconds(idle_timeout) } : {}),
    refreshOn: text(refresh_on),
  };
}

function inMilliseconds(seconds: number): number {
  // 0.07 seconds are 70 milliseconds, not 70.00000000000001.
  return Math.round(seconds * 1e9) / 1e6;
}

/** Make the value of a parsed JSON value, which it may change. Throws NotPortable for what is not in the format. */
export function readValue(value: unknown, depth = 0): unknown {
  if (typeof value !== "object" || value === null) {
    return value;
  }
  if (depth > JSON_DEPTH) {
    throw new NotPortable("is nested too deeply to be read");
  }
  if (Array.isArray(value)) {
    for (let index = 0; index < value.length; index += 1) {
      value[index] = readValue(value[index], depth + 1);
    }
    return value;
  }
  const object = value as JsonObject;
  // Every key is an own property already, even "__proto__", so that this sets no prototype.
  for (const key of Object.keys(object)) {
    object[key] = readValue(object[key], depth + 1);
  }
  return Object.hasOwn(object, TAG) ? readTagged(object[TAG], object.v) : object;
}

function readTagged(tag: unknown, value: unknown): unknown {
  if (typeof tag === "string" && isPortableKind(tag)) {
    return new PortableValue(tag, text(value));
  }
  switch (tag) {
    case "bytes":
      return readBytes(text(value));
    case "int":
      return readInteger(text(value));
    case "float":
      return readFloat(text(value));
    case "datetime":
      return dateOf(text(value));
    case "set": {
      const set = new Set(array(value));
      return same(set, array(value));
    }
    case "map": {
      const map = new Map(array(value).map(pair));
      return same(map, array(value));
    }
    case "object":
      return Object.fromEntries(array(value).map((entry) => [text(pair(entry)[0]), pair(entry)[1]]));
    case "undefined":
      return undefined;
    case "message":
      return readMessage(object(value));
    case "document": {
      const { page_content, metadata, id } = object(value);
      return new Document({
        pageContent: text(page_content),
        metadata: object(metadata),
        ...(id === undefined ? {} : { id: text(id) }),
      });
    }
    case "send": {
      const { node, arg, timeout } = object(value);
      return new ReadSend(text(node), arg, isPlain(timeout) ? readTimeout(timeout) : undefined);
    }
    case "interrupt": {
      const { id, value: asked, response_schema } = object(value);
      return new ReadInterrupt(text(id), asked, response_schema);
    }
    case "overwrite":
      return new ReadOverwrite(value);
    case "delta":
      return new DeltaSnapshot(value);
    default:
      throw new NotPortable(
        `holds the tag ${JSON.stringify(tag)}, which this @agentstorage/client does not know: update it`,
      );
  }
}

function readBytes(base64: string): Uint8Array {
  if (!BASE64.test(base64) || base64.length % 4 !== 0) {
    throw unreadable("bytes", base64);
  }
  return new Uint8Array(Buffer.from(base64, "base64"));
}

function readInteger(digits: string): number | bigint {
  if (!INTEGER.test(digits) || digits.replace("-", "").length > DIGITS) {
    throw unreadable("int", digits);
  }
  return BigInt(digits);
}

function readFloat(digits: string): number {
  const special = SPECIAL.get(digits);
  if (special === undefined && !INTEGER.test(digits)) {
    throw unreadable("float", digits);
  }
  return special ?? Number(digits);
}

function unreadable(tag: string, value: unknown): NotPortable {
  return new NotPortable(`holds a "${tag}" that cannot be read: ${String(JSON.stringify(value)).slice(0, 80)}`);
}

/** Give a set or map unless some of its members became one. */
function same<T extends { size: number }>(made: T, values: unknown[]): T {
  if (made.size !== values.length) {
    throw new NotPortable("holds a set or a map with members that other languages tell apart and JavaScript does not");
  }
  return made;
}

function text(value: unknown): string {
  if (typeof value !== "string") {
    throw unreadable("text", value);
  }
  return value;
}

function array(value: unknown): unknown[] {
  if (!Array.isArray(value)) {
    throw unreadable("array", value);
  }
  return value;
}

function object(value: unknown): JsonObject {
  if (!isPlain(value)) {
    throw unreadable("object", value);
  }
  return value;
}

function pair(value: unknown): [unknown, unknown] {
  const entry = array(value);
  if (entry.length !== 2) {
    throw unreadable("pair", value);
  }
  return [entry[0], entry[1]];
}
