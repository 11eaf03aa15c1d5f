/** How the values that a caller gives become fields of a request. */

import type { DescEnum } from "@bufbuild/protobuf";
import { writeJson } from "../json.js";
import { timestampOf } from "./time.js";

/** Fields of a message by their names in the generated code. */
export type Fields = Record<string, unknown>;
/** Gives the field for a value that is neither null nor undefined. Throws TypeError, naming the argument. */
export type Writer = (name: string, value: unknown) => unknown;
/** A value that may be left out, null and undefined alike. */
export type Maybe<T> = T | null | undefined;

// How alike two keys are, from 0 to 1, when one is taken for the other misspelt.
const NEAR = 0.9;
const ID_BYTES = 255;
// biome-ignore lint/suspicious/noControlCharactersInRegex: the service takes none in an id
const CONTROL = /[\u0000-\u001f\u007f-\u009f]|\p{Surrogate}/u;

/** The name of a proto's field in the generated code. */
export function fieldName(name: string): string {
  return name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

/**
 * Make fields of the known keys of `data`. Unknown keys, and keys whose value is null or undefined, are left out.
 *
 * Throws TypeError for a key that is a known one misspelt; the others may be a whole request that a runtime hands on.
 */
export function written(data: object, writers: Readonly<Record<string, Writer>>): Fields {
  for (const name of Object.keys(checkedObject(data, "data"))) {
    const meant = Object.hasOwn(writers, name) ? undefined : meantBy(name, Object.keys(writers));
    if (meant !== undefined) {
      throw new TypeError(`data has the key "${name}"; did you mean "${meant}"?`);
    }
  }
  const fields: Fields = {};
  for (const [name, write] of Object.entries(writers)) {
    const value = (data as Fields)[name];
    if (value !== undefined && value !== null) {
      fields[fieldName(name)] = write(name, value);
    }
  }
  return fields;
}

/** The known key that this one nearly is, also but for upper case and underscores. */
export function meantBy(name: string, known: readonly string[]): string | undefined {
  const plain = (key: string) => key.replaceAll("_", "").toLowerCase();
  const wanted = plain(name);
  let best: string | undefined;
  let most = NEAR;
  for (const key of known) {
    const likeness = likenessOf(wanted, plain(key), most);
    if (likeness >= most) {
      best = key;
      most = likeness;
    }
  }
  return best;
}

/** The part of two texts that is their longest common subsequence; 0 where it can't be `least`. */
function likenessOf(one: string, other: string, least: number): number {
  const length = one.length + other.length;
  if (!length || (2 * Math.min(one.length, other.length)) / length < least) {
    return 0;
  }
  let before = new Array<number>(other.length + 1).fill(0);
  for (const letter of one) {
    const row = [0];
    for (let index = 0; index < other.length; index += 1) {
      const longer = other[index] === letter ? (before[index] ?? 0) + 1 : 0;
      row.push(Math.max(longer, row[index] ?? 0, before[index + 1] ?? 0));
    }
    before = row;
  }
  return (2 * (before[other.length] ?? 0)) / length;
}

/** What a value is, for messages. */
function kindOf(value: unknown): string {
  return value === null ? "null" : Array.isArray(value) ? "array" : typeof value;
}

/** Give an object that is no array. Throws TypeError, naming the argument, for anything else. */
export function checkedObject(value: unknown, name: string): object {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new TypeError(`${name} must be an object, not ${kindOf(value)}`);
  }
  return value;
}

/** Give a text. Throws TypeError, naming the argument, for anything else. */
export function checkedText(value: unknown, name: string): string {
  if (typeof value !== "string") {
    throw new TypeError(`${name} must be a string, not ${kindOf(value)}`);
  }
  return value;
}

/** Give an integer. Throws TypeError, naming the argument, for anything else. */
export function checkedCount(value: unknown, name: string): number {
  if (typeof value !== "number" || !Number.isInteger(value)) {
    throw new TypeError(`${name} must be an integer, not ${typeof value === "number" ? value : kindOf(value)}`);
  }
  return value;
}

/** Whether a value can be an id at all, as the service defines it. */
export function isId(value: unknown): value is string {
  return typeof value === "string" && value !== "" && !CONTROL.test(value) && Buffer.byteLength(value) <= ID_BYTES;
}

/** Writes a text. */
export const text: Writer = (name, value) => checkedText(value, name);

/** Writes a bool. */
export const flag: Writer = (name, value) => {
  if (typeof value !== "boolean") {
    throw new TypeError(`${name} must be a boolean, not ${kindOf(value)}`);
  }
  return value;
};

/** Writes any JSON value. */
export const jsonValue: Writer = (name, value) => writeJson(value, name);

/** Writes a JSON object. */
export const jsonObject: Writer = (name, value) => {
  const written = writeJson(checkedObject(value, name), name);
  if (!written.startsWith("{")) {
    throw new TypeError(`${name} must be an object, but its toJSON gives something else`);
  }
  return written;
};

/** Writes a JSON array. */
export const jsonArray: Writer = (name, value) => writeJson(checkedArray(name, value), name);

/** Writes a list of texts. */
export const texts: Writer = (name, value) => checkedArray(name, value).map((entry) => checkedText(entry, name));

/** Writes a time: a Date, or ISO-8601 text. */
export const time: Writer = timestampOf;

/** Give an array. Throws TypeError, naming the argument, for anything else. */
export function checkedArray(name: string, value: unknown): readonly unknown[] {
  if (!Array.isArray(value)) {
    throw new TypeError(`${name} must be an array, not ${kindOf(value)}`);
  }
  return value;
}

/** The numbers of an enum and the lower-case words that stand for them; `Word` is their type. */
export class Words<Word extends string> {
  private readonly byNumber = new Map<number, string>();
  private readonly byWord = new Map<string, number>();

  constructor(description: DescEnum) {
    for (const { number, localName } of description.values) {
      if (number) {
        this.byNumber.set(number, localName.toLowerCase());
        this.byWord.set(localName.toLowerCase(), number);
      }
    }
  }

  /** The word for a number: `"unknown"` for one that this client does not know, `absent` for none. */
  wordOf(number: number, absent: Word | "unknown" = "unknown"): Word | "unknown" {
    return number ? ((this.byNumber.get(number) as Word | undefined) ?? "unknown") : absent;
  }

  /** The number for a word; undefined for what is none of them. */
  numberOf(value: unknown): number | undefined {
    return typeof value === "string" ? this.byWord.get(value) : undefined;
  }

  /** Writes the number of a word. Throws TypeError, naming the argument and the words, for any other. */
  readonly write: Writer = (name, value) => {
    const number = this.numberOf(checkedText(value, name));
    if (number === undefined) {
      throw new TypeError(`${name} must be one of ${[...this.byWord.keys()].join(", ")}, not "${value}"`);
    }
    return number;
  };
}
