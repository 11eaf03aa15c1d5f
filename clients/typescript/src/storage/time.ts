/** Times: protobuf's timestamps, and ISO-8601 text with microseconds. */

import { fromJson } from "@bufbuild/protobuf";
import { type Timestamp, TimestampSchema } from "@bufbuild/protobuf/wkt";

const ISO = /^(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(:\d\d)?(?:[.,](\d{1,9}))?)?(?:Z|z|([+-]\d\d)(?::?(\d\d))?)?$/;

/** Write a timestamp as ISO-8601 text in UTC, such as `2026-01-02T03:04:05.123456Z`. */
export function isoOf({ seconds, nanos }: Timestamp): string {
  const toSecond = new Date(Number(seconds) * 1000).toISOString().slice(0, "2026-01-02T03:04:05".length);
  const microseconds = Math.floor(nanos / 1000);
  return `${toSecond}.${String(microseconds).padStart(6, "0")}Z`;
}

/** Write a timestamp, or null for none. */
export function isoOrNull(timestamp: Timestamp | undefined): string | null {
  return timestamp === undefined ? null : isoOf(timestamp);
}

/** Read a Date or ISO-8601 text, which is in UTC where it names no zone. Throws TypeError, naming the argument, for anything else. */
export function timestampOf(name: string, value: unknown): Timestamp {
  if (!(typeof value === "string" || value instanceof Date)) {
    throw new TypeError(`${name} must be a Date or ISO-8601 text, not ${typeof value}`);
  }
  const text = value instanceof Date ? (Number.isNaN(value.valueOf()) ? "" : value.toISOString()) : value;
  const found = ISO.exec(text);
  const [, day = "", minute = "00:00", second = ":00", fraction = "0", zoneHour, zoneMinute = "00"] = found ?? [];
  try {
    // A day that its month does not have becomes one of the next month without this.
    if (!found || new Date(`${day}T00:00:00Z`).toISOString().slice(0, day.length) !== day) {
      throw new RangeError(text);
    }
    const zone = zoneHour === undefined ? "Z" : `${zoneHour}:${zoneMinute}`;
    return fromJson(TimestampSchema, `${day}T${minute}${second}.${fraction}${zone}`);
  } catch {
    throw new TypeError(`${name} is not an ISO-8601 time`);
  }
}
