/** The portable serializer: what both languages read and write, what comes back as it was, and what is refused. */

import { readFileSync } from "node:fs";
import { Document } from "@langchain/core/documents";
import {
  AIMessage,
  AIMessageChunk,
  type BaseMessage,
  ChatMessage,
  FunctionMessage,
  HumanMessage,
  RemoveMessage,
  SystemMessage,
  ToolMessage,
} from "@langchain/core/messages";
import { Command, Overwrite, Send } from "@langchain/langgraph";
import { DeltaSnapshot, JsonPlusSerializer } from "@langchain/langgraph-checkpoint";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ExactDate, NotPortable, PORTABLE, PortableValue } from "../../src/langgraph/portable.js";
import { ReadInterrupt } from "../../src/langgraph/portable_types.js";
import { again, described, SERDE, VALUES, wire } from "./portable_values.js";

interface Vector {
  name: string;
  text: string;
  typescript_writes?: string;
}

const VECTORS = JSON.parse(readFileSync(new URL("../../../portable/vectors.json", import.meta.url), "utf8")) as {
  type: string;
  vectors: Vector[];
  refused: Vector[];
};
const CALL = { name: "f", args: {}, id: "c1", type: "tool_call" as const };

/** A message with what a constructor would change. */
function filled<T extends BaseMessage>(message: T, fields: Record<string, unknown>): T {
  Object.assign(message, fields);
  return message;
}

/** What each vector means in TypeScript. */
const MEANT: Record<string, unknown> = {
  null: null,
  true: true,
  text: 'a\0"\\é😀',
  "lone surrogate": "\ud800",
  integer: 7,
  "largest plain integer": 2 ** 53 - 1,
  "large integer": 2n ** 53n + 1n,
  "very large negative integer": -123456789012345678901234567890n,
  "small big integer": 5n,
  fraction: 0.1,
  "whole float": 1,
  "tiny float": 5e-324,
  "large whole float": 2 ** 60,
  "not a number": Number.NaN,
  infinity: Number.POSITIVE_INFINITY,
  "negative infinity": Number.NEGATIVE_INFINITY,
  "negative zero": -0,
  array: [1, [2, []], "3", null],
  object: { a: 1, b: { c: [] } },
  "odd keys": { "": 1, ["__proto__"]: { x: 2 }, constructor: 3, "a b": 4 },
  "object like a tagged one": { $: "bytes", v: "AAE=" },
  "object like a tagged one, inside": { a: { $: 1 }, $: null },
  bytes: { a: new Uint8Array([0, 1, 255]) },
  "no bytes": [new Uint8Array()],
  instant: new Date("2026-01-02T03:04:05.678Z"),
  "instant with microseconds": new ExactDate("2026-01-02T03:04:05.000006+00:00"),
  "instant with an offset": new ExactDate("2026-01-02T03:04:05.678000+02:00"),
  "instant before 1970, with an odd offset": new ExactDate("0099-12-31T23:59:59.999999-05:30:15"),
  "date and time without a zone": new PortableValue("local_datetime", "2026-01-02T03:04:05.000006"),
  date: new PortableValue("date", "2026-01-02"),
  time: new PortableValue("time", "03:04:05.000006"),
  "time with an offset": new PortableValue("time", "03:04:05.000000+02:00"),
  duration: new PortableValue("timedelta", "-86400000001"),
  uuid: new PortableValue("uuid", "12345678-1234-5678-9abc-123456789abc"),
  decimal: new PortableValue("decimal", "1.10"),
  "decimal exponent": new PortableValue("decimal", "-1E+30"),
  set: new Set<unknown>(["a", 1, new Uint8Array([0])]),
  "empty set": new Set(),
  map: new Map<unknown, unknown>([
    [1, "one"],
    ["1", "text"],
    [null, []],
  ]),
  "map of texts": new Map([["a", 1]]),
  undefined: [undefined],
  "human message": new HumanMessage("hello"),
  "human message of blocks": new HumanMessage({
    content: [
      { type: "text", text: "see" },
      { type: "image", base64: "AAE=", mime_type: "image/png" },
    ],
    name: "ann",
    id: "h1",
  }),
  "ai message": new AIMessage({
    content: "",
    id: "a1",
    additional_kwargs: { refusal: null },
    response_metadata: { model: "m", at: new Date("2026-01-02T03:04:05.678Z") },
    tool_calls: [{ name: "weather", args: { city: "Paris" }, id: "c1", type: "tool_call" }],
    invalid_tool_calls: [{ name: "x", args: "{", id: "c2", error: "no JSON", type: "invalid_tool_call" }],
    usage_metadata: { input_tokens: 1, output_tokens: 2, total_tokens: 3, input_token_details: { cache_read: 1 } },
  } as never),
  "ai message with raw tool calls": filled(new AIMessage("x"), {
    additional_kwargs: {
      tool_calls: [{ id: "c1", type: "function", function: { name: "f", arguments: "{}" } }],
    },
  }),
  "ai message of version 1": filled(new AIMessage("x"), {
    response_metadata: { output_version: "v1" },
    tool_calls: [CALL],
  }),
  "ai message chunk": filled(new AIMessageChunk({ content: "par", id: "a2" }), {
    tool_calls: [CALL],
    tool_call_chunks: [{ name: "f", args: "{", id: "c1", index: 0, type: "tool_call_chunk" }],
  }),
  "system message": new SystemMessage("be kind"),
  "tool message": new ToolMessage({
    content: "rain",
    name: "weather",
    id: "t1",
    tool_call_id: "c1",
    artifact: new Uint8Array([0, 1]),
    status: "error",
  }),
  "function message": new FunctionMessage({ content: "4", name: "add" }),
  "chat message": new ChatMessage({ content: "hm", role: "critic" }),
  "message that removes": new RemoveMessage({ id: "h1" }),
  "message with more": new HumanMessage({ content: "x", $: 1, example: true } as never),
  document: new Document({ pageContent: "text", metadata: { page: 1 }, id: "d1" }),
  send: new Send("work", { n: 1 }),
  "send with a timeout": new Send("work", null, { timeout: { runTimeout: 70 } }),
  interrupt: [new ReadInterrupt("0123456789abcdef0123456789abcdef", { question: "go?" })],
  overwrite: new Overwrite([1]),
  "snapshot of a delta channel": new DeltaSnapshot(["a"]),
};

describe("vectors", () => {
  it.each(VECTORS.vectors)("$name is read and written", async ({ name, text, typescript_writes }) => {
    const read = await SERDE.loadsTyped(VECTORS.type, new TextEncoder().encode(text));
    const meant = MEANT[name];
    expect(described(read)).toEqual(described(meant));
    // JSON.parse takes -0 and 1.0 for what they are here, so that equal means equal.
    const expected = JSON.parse(typescript_writes ?? text);
    expect(JSON.parse(await wire(read))).toEqual(expected);
    expect(JSON.parse(await wire(meant))).toEqual(expected);
  });

  it("each has a meaning", () => {
    expect(Object.keys(MEANT).sort()).toEqual(VECTORS.vectors.map(({ name }) => name).sort());
  });

  it.each(VECTORS.refused)("$name is refused", async ({ text }) => {
    await expect(SERDE.loadsTyped(VECTORS.type, text)).rejects.toThrow(NotPortable);
  });
});

describe("properties", () => {
  it("values come back as they were", async () => {
    await fc.assert(
      fc.asyncProperty(VALUES, async (value) => {
        expect(described(await again(value))).toEqual(described(value));
      }),
      { numRuns: 500 },
    );
  });

  it("any JSON is read or refused", async () => {
    const keys = fc.constantFrom("$", "v", "type", "content", "__proto__", "a");
    const { json } = fc.letrec((tie) => ({
      json: fc.oneof(
        { maxDepth: 5, withCrossShrink: true },
        fc.constantFrom<unknown>(null, 1, "x", "int", "map", "set", "message", "object"),
        fc.array(tie("json"), { maxLength: 3 }),
        fc.dictionary(keys, tie("json"), { maxKeys: 4 }),
      ),
    }));
    await fc.assert(
      fc.asyncProperty(json, async (value) => {
        const failure = await SERDE.loadsTyped(PORTABLE, JSON.stringify(value)).catch((error: unknown) => error);
        expect(failure instanceof Error && !(failure instanceof NotPortable)).toBe(false);
      }),
      { numRuns: 1000 },
    );
  });
});

describe("what is kept", () => {
  it("bytes as they are", async () => {
    expect(await SERDE.dumpsTyped(new Uint8Array([0, 255]))).toEqual(["bytes", new Uint8Array([0, 255])]);
    expect(await SERDE.loadsTyped("bytes", new Uint8Array([0, 255]))).toEqual(new Uint8Array([0, 255]));
    // A Buffer may be a window on a larger one.
    expect(await again([Buffer.from("abcdef").subarray(2, 4)])).toEqual([new Uint8Array([99, 100])]);
  });

  it("an exact date, until it is changed", async () => {
    const date = new ExactDate("2026-01-02T03:04:05.678901+02:00");
    expect(date.toISOString()).toBe("2026-01-02T01:04:05.678Z");
    expect(date).toBeInstanceOf(Date);
    expect(await wire(date)).toContain("2026-01-02T03:04:05.678901+02:00");
    date.setTime(0);
    expect(await wire(date)).toContain("1970-01-01T00:00:00.000000+00:00");
    expect(new ExactDate("1969-12-31T23:59:59.999999+00:00").getTime()).toBe(-1);
  });

  it("members that are undefined, not at all", async () => {
    expect(await wire({ a: undefined, b: [undefined] })).toBe('{"b":[{"$":"undefined","v":null}]}');
    expect(await wire(undefined)).toBe('{"$":"undefined","v":null}');
  });

  it("a failure, as its text", async () => {
    expect(await again(new RangeError("no"))).toBe("RangeError: no");
  });

  it("a message's way of becoming JSON", async () => {
    const message = new AIMessage({ content: "x", id: "1", tool_calls: [CALL] });
    expect(JSON.parse(JSON.stringify(await again(message)))).toEqual(JSON.parse(JSON.stringify(message)));
  });
});

class Thing {}
class OwnMessage extends HumanMessage {}

describe("what is refused", () => {
  it.each<[string, unknown, string]>([
    ["function", () => 1, "is a function, which is code"],
    ["symbol", Symbol("x"), "is a symbol"],
    ["class", Thing, "is a function"],
    ["object of a class", new Thing(), "of the class Thing, which other languages do not have: keep a plain object"],
    ["regular expression", /x/, "of the class RegExp"],
    ["error inside", new Error("x"), "of the class Error"],
    ["other array of numbers", new Float64Array(1), "keep a Uint8Array"],
    ["invalid date", new Date(Number.NaN), "is an invalid Date"],
    ["date of a year that Python has not", new Date(-1e14), "is a Date in the year -1199"],
    ["command", new Command({ goto: "a" }), "of the class Command"],
    ["message of another class", new OwnMessage("x"), "OwnMessage: keep a message of LangChain's own classes"],
    ["long integer", 10n ** 4300n, "more than 4300 digits"],
  ])("%s, with its place", async (_, value, told) => {
    const message = new HumanMessage({ content: "x", additional_kwargs: { found: new Map([["k", value]]) } });
    const refused = await SERDE.dumpsTyped({ steps: [0, message] }).catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(NotPortable);
    expect((refused as NotPortable).message).toContain(told);
    expect((refused as NotPortable).path).toEqual(["steps", 1, "additional_kwargs", "found", 1]);
    expect((refused as NotPortable).message).toMatch(
      /^value\["steps"\]\[1\]\["additional_kwargs"\]\["found"\]\[1\] is /,
    );
  });

  it("what is nested in itself, or too deeply", async () => {
    const itself: unknown[] = [];
    itself.push(itself);
    await expect(SERDE.dumpsTyped(itself)).rejects.toThrow("more than 200 levels deep, or in itself");
    for (const wrap of [
      (inner: unknown) => [inner],
      (inner: unknown) => new Map([[1, inner]]),
      (inner: unknown) => ({ $: inner }),
    ]) {
      let value: unknown = 1;
      for (let level = 0; level < 200; level += 1) {
        value = wrap(value);
      }
      expect(described(await again(value))).toEqual(described(value));
      await expect(SERDE.dumpsTyped(wrap(value))).rejects.toThrow("more than 200 levels");
    }
    const deep = "[".repeat(100_000) + "]".repeat(100_000);
    await expect(SERDE.loadsTyped(PORTABLE, deep)).rejects.toThrow(NotPortable);
  });

  it("rows of serializers that it does not read", async () => {
    const bytes = new Uint8Array([1]);
    await expect(SERDE.loadsTyped("msgpack", bytes)).rejects.toThrow(
      'value of the type "msgpack" is of LangGraph\'s default serializer for Python, which only Python reads: continue this thread in',
    );
    await expect(SERDE.loadsTyped("portable.v1+aes", bytes)).rejects.toThrow("is encrypted");
    await expect(SERDE.loadsTyped("portable.v2", bytes)).rejects.toThrow("needs a newer @agentstorage/client");
  });

  it("but not those of the default serializer", async () => {
    const own = new JsonPlusSerializer();
    for (const value of [null, { a: new Set([1]), b: new Date(0).toISOString() }, [new Uint8Array([1])]]) {
      expect(await SERDE.loadsTyped(...(await own.dumpsTyped(value)))).toEqual(value);
    }
    const [type, data] = await own.dumpsTyped(new HumanMessage("x"));
    expect(((await SERDE.loadsTyped(type, data)) as HumanMessage).content).toBe("x");
    expect(await SERDE.loadsTyped("null", new Uint8Array())).toBe(null);
  });
});
