/** Random values of the portable format, and a form in which all of them compare. */

import { AIMessage, BaseMessage, HumanMessage, ToolMessage } from "@langchain/core/messages";
import { DeltaSnapshot } from "@langchain/langgraph-checkpoint";
import fc from "fast-check";
import { PortableSerializer, PortableValue } from "../../src/langgraph/portable.js";
import { dateText, ReadInterrupt } from "../../src/langgraph/portable_types.js";

export const SERDE = new PortableSerializer();

/** The text that a value is written as. */
export async function wire(value: unknown): Promise<string> {
  const [type, data] = await SERDE.dumpsTyped(value);
  if (type !== "portable.v1") {
    throw new Error(`written as ${type}`);
  }
  return new TextDecoder().decode(data);
}

/** A value, written and read. */
export async function again(value: unknown): Promise<unknown> {
  return SERDE.loadsTyped(...(await SERDE.dumpsTyped(value)));
}

const MESSAGE_FIELDS = [
  "content",
  "additional_kwargs",
  "response_metadata",
  "name",
  "id",
  "tool_calls",
  "invalid_tool_calls",
  "usage_metadata",
  "tool_call_chunks",
  "tool_call_id",
  "artifact",
  "status",
  "role",
];

/** A value as arrays and texts, with all that tells it from others: its class, -0, microseconds, what is own. */
export function described(value: unknown): unknown {
  if (typeof value === "bigint") {
    return ["bigint", value.toString()];
  }
  if (typeof value === "number") {
    return ["number", Object.is(value, -0) ? "-0" : String(value)];
  }
  if (typeof value !== "object" || value === null) {
    return [typeof value, value];
  }
  if (BaseMessage.isInstance(value)) {
    const fields = value as unknown as Record<string, unknown>;
    const extra = Object.entries(value.lc_kwargs).filter(([key]) => !MESSAGE_FIELDS.includes(key));
    return [
      value.constructor.name,
      value.type,
      ...MESSAGE_FIELDS.map((field) => described(fields[field])),
      described(Object.fromEntries(extra)),
    ];
  }
  if (value instanceof Uint8Array) {
    return ["bytes", Buffer.from(value).toString("hex")];
  }
  if (value instanceof Date) {
    return [value.constructor.name, value.getTime(), dateText(value)];
  }
  if (value instanceof Map || value instanceof Set) {
    return [value.constructor.name, [...value].map(described)];
  }
  if (Array.isArray(value)) {
    return ["array", Array.from(value, described)];
  }
  const name = (value as { lg_name?: unknown }).lg_name ?? "";
  const members = Object.entries(value).filter(([key, member]) => member !== undefined && key !== "lg_name");
  const marks = value instanceof PortableValue ? value.kind : value instanceof ReadInterrupt ? "interrupt" : name;
  return ["object", marks, members.map(([key, member]) => [key, described(member)]).sort()];
}

const MICROS = fc.integer({ min: 0, max: 999_999 }).map((micros) => String(micros).padStart(6, "0"));
const DAYS = fc
  .date({ min: new Date("0001-01-02T00:00:00Z"), max: new Date("9999-12-30T00:00:00Z"), noInvalidDate: true })
  .map((date) => date.toISOString().slice(0, 19));

/** What Python takes for a key too. */
const KEYS = fc.oneof(
  fc.string({ unit: "binary" }),
  fc.bigInt({ min: 2n ** 53n, max: 2n ** 200n }),
  fc.bigInt({ min: -(2n ** 200n), max: -(2n ** 53n) }),
  fc.double({ noNaN: true, noInteger: true }),
  fc.integer({ min: 2 }),
  fc.constantFrom<unknown>(null, true, false, 2 ** 53 - 1),
);
const LEAVES = fc.oneof(
  KEYS,
  fc.double(),
  fc.constantFrom(-0, Number.NaN, 2 ** 53, -(2 ** 60), 1e300, Number.MAX_VALUE, 0, 1),
  fc.uint8Array({ maxLength: 9 }),
  fc.date({ min: new Date("0001-01-01T00:00:00Z"), max: new Date("9999-12-31T00:00:00Z"), noInvalidDate: true }),
  fc.tuple(DAYS, MICROS).map(([day, micros]) => new PortableValue("local_datetime", `${day}.${micros}`)),
  DAYS.map((day) => new PortableValue("date", day.slice(0, 10))),
  MICROS.map((micros) => new PortableValue("time", `23:59:01.${micros}`)),
  fc.integer().map((micros) => new PortableValue("timedelta", String(micros))),
  fc.uuid().map((uuid) => new PortableValue("uuid", uuid)),
  fc.integer().map((cents) => new PortableValue("decimal", `${cents}.50`)),
);
const NAMES = fc.oneof(
  fc.string({ unit: "binary" }),
  fc.constantFrom("$", "v", "__proto__", "constructor", "toString"),
);

/** Values that the format carries, and Python can hold. */
export const VALUES: fc.Arbitrary<unknown> = fc.letrec<{ value: unknown }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4, depthIdentifier: "value" },
    LEAVES,
    fc.array(tie("value"), { maxLength: 4 }),
    fc.dictionary(NAMES, tie("value"), { maxKeys: 4 }),
    fc.uniqueArray(KEYS, { maxLength: 4 }).map((keys) => new Set(keys)),
    fc
      .uniqueArray(fc.tuple(KEYS, tie("value")), { maxLength: 4, selector: ([key]) => key })
      .map((entries) => new Map(entries)),
    fc
      .tuple(
        fc.string(),
        fc.dictionary(NAMES, tie("value"), { maxKeys: 2, noNullPrototype: true }),
        fc.option(fc.string(), { nil: undefined }),
      )
      .map(
        ([content, kwargs, id]) =>
          new HumanMessage({ content, additional_kwargs: kwargs, ...(id === undefined ? {} : { id }) }),
      ),
    fc
      .dictionary(fc.string(), tie("value"), { maxKeys: 2 })
      .map((args) => new AIMessage({ content: "", tool_calls: [{ name: "f", args, id: "c", type: "tool_call" }] })),
    fc.tuple(fc.string(), tie("value")).map(
      ([text, artifact]) =>
        new ToolMessage({
          content: [{ type: "text", text }],
          tool_call_id: "c",
          artifact: artifact ?? 0,
          status: "success",
        }),
    ),
    tie("value").map((value) => new DeltaSnapshot(value)),
  ),
})).value;
