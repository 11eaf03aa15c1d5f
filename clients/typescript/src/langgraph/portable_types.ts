/** What JavaScript has no values for, and what the portable format refuses. */

/** A value that the portable format does not carry, or bytes that are not of it. */
export class NotPortable extends TypeError {
  override readonly name = "NotPortable";
  /** Where the value is, from the outermost: keys, fields of messages, and indexes. */
  readonly path: (string | number)[] = [];

  constructor(private readonly why: string) {
    super(`value ${why}`);
  }

  /** Put a step before the path. */
  within(step: string | number): this {
    this.path.unshift(step);
    this.message = `value${this.path.map((each) => `[${JSON.stringify(each)}]`).join("")} ${this.why}`;
    return this;
  }
}

const PATTERNS = {
  local_datetime: /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}$/,
  date: /^\d{4}-\d\d-\d\d$/,
  time: /^\d\d:\d\d:\d\d\.\d{6}([+-]\d\d:\d\d(:\d\d(\.\d{6})?)?)?$/,
  timedelta: /^(0|-?[1-9]\d*)$/,
  uuid: /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/,
  decimal: /^[+-]?(\d+(\.\d*)?|\.\d+)(E[+-]?\d+)?$|^-?s?NaN\d*$|^-?Infinity$/i,
};

/** What a {@link PortableValue} is: a class of Python that JavaScript has no counterpart of. */
export type PortableKind = keyof typeof PATTERNS;

/** Whether a tag is one of {@link PortableKind}. */
export function isPortableKind(tag: string): tag is PortableKind {
  return Object.hasOwn(PATTERNS, tag);
}

/**
 * A value that Python has a class for and JavaScript has not: it comes as its text, and goes back to Python as what it was.
 *
 * - `local_datetime`: a date and time without a zone, `2026-01-02T03:04:05.000006`; it names no instant, so it is no Date.
 * - `date`: `2026-01-02`. `time`: `03:04:05.000006`, with `+02:00` after it where it has an offset.
 * - `timedelta`: whole microseconds, `-86400000000`.
 * - `uuid`: in lower case, with hyphens. `decimal`: `1.10`.
 *
 * Throws {@link NotPortable} for a text that is not of the kind.
 */
export class PortableValue {
  constructor(
    readonly kind: PortableKind,
    readonly text: string,
  ) {
    if (typeof text !== "string" || !PATTERNS[kind].test(text)) {
      throw new NotPortable(`holds a "${kind}" that cannot be read: ${JSON.stringify(text)}`);
    }
  }

  toString(): string {
    return this.text;
  }

  toJSON(): string {
    return this.text;
  }
}

const DATETIME = /^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)\.(\d{6})([+-])(\d\d):(\d\d)(?::(\d\d)(?:\.(\d{6}))?)?$/;

/**
 * A Date with what a Date cannot hold: microseconds, and the offset that it was written with. It is the instant, in whole milliseconds,
 * as every Date; its text goes back to Python unless the Date was changed.
 */
export class ExactDate extends Date {
  private readonly read: number;

  /** @param text Date, time with microseconds, and offset: `2026-01-02T03:04:05.000006+02:00`. */
  constructor(readonly text: string) {
    super(milliseconds(text));
    this.read = this.getTime();
  }

  /** The text while it is this Date's, else undefined. */
  get exact(): string | undefined {
    return this.getTime() === this.read ? this.text : undefined;
  }
}

/** The instant that a text names, in milliseconds, rounded down. */
function milliseconds(text: string): number {
  const parts = DATETIME.exec(text);
  if (parts === null) {
    throw new NotPortable(`holds a "datetime" that cannot be read: ${JSON.stringify(text)}`);
  }
  const [year, month, day, hour, minute, second, micro] = parts.slice(1, 8).map(Number) as [number, ...number[]];
  const [hours, minutes, seconds, micros] = parts.slice(9, 13).map((part) => Number(part ?? 0)) as [
    number,
    ...number[],
  ];
  const date = new Date(0);
  // Date.UTC takes years below 100 for those of the last century.
  date.setUTCFullYear(year, (month ?? 1) - 1, day);
  date.setUTCHours(hour ?? 0, minute, second, 0);
  const back = `${date.toISOString().slice(0, 19)}`;
  if (back !== text.slice(0, 19)) {
    throw new NotPortable(`holds a "datetime" that cannot be read: ${JSON.stringify(text)}`);
  }
  const offset = ((hours * 60 + (minutes ?? 0)) * 60 + (seconds ?? 0)) * 1e6 + (micros ?? 0);
  const sign = parts[8] === "-" ? -1 : 1;
  return date.getTime() + Math.floor(((micro ?? 0) - sign * offset) / 1000);
}

/** The text of a Date. Throws {@link NotPortable} for an invalid one, and for years that Python does not have. */
export function dateText(date: Date): string {
  const exact = date instanceof ExactDate ? date.exact : undefined;
  if (exact !== undefined) {
    return exact;
  }
  const time = date.getTime();
  if (Number.isNaN(time)) {
    throw new NotPortable("is an invalid Date");
  }
  const year = date.getUTCFullYear();
  if (year < 1 || year > 9999) {
    throw new NotPortable(`is a Date in the year ${year}: the format has the years 1 to 9999`);
  }
  return `${date.toISOString().slice(0, -1)}000+00:00`;
}

/** The Date that a text names: a plain one where that loses nothing. */
export function dateOf(text: string): Date {
  const exact = new ExactDate(text);
  const year = exact.getUTCFullYear();
  const plain = new Date(exact.getTime());
  return year >= 1 && year <= 9999 && dateText(plain) === text ? plain : exact;
}

/** How long a sent task may take, in milliseconds. */
export interface SendTimeout {
  readonly runTimeout?: number;
  readonly idleTimeout?: number;
  readonly refreshOn?: string;
}

/** A `Send` as it is read: what LangGraph takes for one, without its class. */
export class ReadSend {
  readonly lg_name = "Send";
  declare readonly timeout?: SendTimeout;

  constructor(
    readonly node: string,
    readonly args: unknown,
    timeout?: SendTimeout,
  ) {
    if (timeout !== undefined) {
      this.timeout = timeout;
    }
  }
}

/** An `Overwrite` as it is read: what LangGraph takes for one, without its class. */
export class ReadOverwrite {
  readonly lg_name = "Overwrite";

  constructor(readonly __overwrite__: unknown) {}
}

/** An interrupt of a graph in Python. Those of LangGraph.js are plain objects with the same properties. */
export class ReadInterrupt {
  declare readonly response_schema?: unknown;

  constructor(
    readonly id: string,
    readonly value: unknown,
    schema?: unknown,
  ) {
    if (schema !== undefined) {
      this.response_schema = schema;
    }
  }
}
