/** What is put comes back as it was; and what another serializer or another language wrote, or nothing can carry. */

import { isDeepStrictEqual } from "node:util";
import { AIMessage, HumanMessage } from "@langchain/core/messages";
import { DeltaSnapshot, JsonPlusSerializer, type SerializerProtocol } from "@langchain/langgraph-checkpoint";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { CheckpointService } from "../../src/gen/agentstorage/v1/checkpoints_pb.js";
import { LimitReached } from "../../src/index.js";
import { GrpcSaver, UnreadableValue } from "../../src/langgraph/index.js";
import { MESSAGE_BYTES } from "../../src/langgraph/values.js";
import { BACKENDS, connect, newOwner } from "../support.js";
import { all, checkpoint, config, idOf, metadata, newThread, put, tupleAt } from "./checkpoints.js";

const VALUES: Record<string, unknown> = {
  null: null,
  text: "ünïcode \u{1f600}",
  empty: "",
  number: -(2 ** 53),
  float: 0.1,
  tiny: 5e-324,
  large: 1.5e300,
  bool: true,
  nul: "a\0b",
  bytes: new Uint8Array([0, 255]),
  list: [1, "a", null, { k: [2.5] }],
  object: { a: { b: 1 }, 7: "number", __proto__key: 1 },
  set: new Set([1, 2]),
  map: new Map<unknown, unknown>([
    ["a", 1],
    [2, [3]],
  ]),
  regexp: /a+/gi,
  error: new Error("why"),
  messages: [
    new HumanMessage({ content: "hi", id: "1" }),
    new AIMessage({ content: "ho", id: "2", tool_calls: [{ name: "t", args: {}, id: "c", type: "tool_call" }] }),
  ],
  send: [{ node: "node", args: { x: 1 } }],
  snapshot: new DeltaSnapshot([1, 2]),
  "back\\slash": ["\\"],
  "quote\"'": ["'\""],
  // Names that every object has something under.
  constructor: 1,
  toString: "text",
};

/** Bytes that say nothing to who has not the key. */
class Mask implements SerializerProtocol {
  private readonly plain = new JsonPlusSerializer();

  async dumpsTyped(data: unknown): Promise<[string, Uint8Array]> {
    const [type, bytes] = await this.plain.dumpsTyped(data);
    return [`${type}+mask`, bytes.map((byte) => byte ^ 0x5a)];
  }

  async loadsTyped(type: string, data: Uint8Array): Promise<unknown> {
    return type.endsWith("+mask")
      ? this.plain.loadsTyped(
          type.slice(0, -5),
          data.map((byte) => byte ^ 0x5a),
        )
      : this.plain.loadsTyped(type, data);
  }
}

describe.each(BACKENDS)("%s", { timeout: 120_000 }, (backend) => {
  let saver: GrpcSaver;
  let thread: string;
  const ownerId = newOwner();

  beforeEach(() => {
    // So much data takes seconds on a machine that does other work too.
    const times = { readTimeoutMs: 60_000, writeTimeoutMs: 60_000 };
    saver = new GrpcSaver({ connection: connect(backend, "exchange", times), ownerId });
    thread = newThread();
  });

  afterEach(() => saver.connection.close());

  test("values keep value and type", async () => {
    const where = await put(saver, thread, VALUES);
    await saver.putWrites(where, Object.entries(VALUES), "task");
    const found = await tupleAt(saver, where);
    expect(found.checkpoint.channel_values).toStrictEqual(VALUES);
    const written = Object.entries(VALUES).map(([name, value]) => ["task", name, value]);
    expect(found.pendingWrites).toStrictEqual(written);
    // A value of bytes keeps no message alive.
    expect((found.checkpoint.channel_values.bytes as Uint8Array).buffer.byteLength).toBe(2);
  });

  test("the checkpoint and its metadata are kept", async () => {
    const made = { ...checkpoint({ a: [1] }, { a: 1, b: "2" }), versions_seen: { node: { a: 1 }, __input__: {} } };
    const about = metadata(3, {
      parents: { "": "p" },
      note: "x\0y",
      deep: { k: [1, null, 12345678901234567890n] },
      counters_since_delta_snapshot: { c: [1, 2] },
    });
    const where = config(thread, undefined, { checkpoint_ns: "child:1", user: "u" });
    const after = await saver.put(where, made, about, { a: 1 });
    expect(after).toEqual(config(thread, made.id, { checkpoint_ns: "child:1" }));
    const found = await tupleAt(saver, after);
    expect(found).toStrictEqual({
      config: after,
      checkpoint: made,
      metadata: { ...about, note: "xy" },
      pendingWrites: [],
    });
    // What is no JSON is kept as LangGraph.js's Postgres saver keeps it.
    const odd = metadata(4, { set: new Set([1]), message: new HumanMessage({ content: "hi", id: "1" }), text: "a" });
    const second = checkpoint({});
    const listed = await tupleAt(saver, await saver.put(after, second, odd, {}));
    expect(listed.metadata).toEqual(odd);
    expect(listed.parentConfig).toEqual(after);
    expect(await all(saver.list({ configurable: { thread_id: thread } }, { filter: { text: "a" } }))).toEqual([listed]);
  });

  test("versions come back as numbers and as texts", async () => {
    const versions = { integer: 3, fraction: 3.123456789012, text: `${"3".padStart(32, "0")}.0.1234567890123456` };
    const made = checkpoint({ integer: [1], fraction: [2], text: [3] }, versions);
    const found = await tupleAt(saver, await saver.put(config(thread), made, metadata(), versions));
    expect(found.checkpoint).toStrictEqual(made);
  });

  test("channels that are not new keep their bytes", async () => {
    const first = checkpoint({ kept: [1], gone: [2], number: 5 }, { kept: 1, gone: 1, number: 1 });
    const where = await saver.put(config(thread), first, metadata(), first.channel_versions);
    const changed = { kept: ["not stored"], new: [3], number: 5, constructor: 1 };
    const second = checkpoint(changed, { kept: 1, new: 2, number: 1 });
    const found = await tupleAt(saver, await saver.put(where, second, metadata(1), { new: 2 }));
    expect(found.checkpoint.channel_values).toEqual({ kept: [1], new: [3], number: 5 });
  });

  test("a thread that becomes secret keeps its values", async () => {
    const where = await put(saver, thread, VALUES);
    const secret = new GrpcSaver({ connection: saver.connection, ownerId, serde: new Mask() });
    const found = await tupleAt(secret, where);
    expect(found.checkpoint.channel_values).toStrictEqual(VALUES);
    const hidden = await put(secret, where, { text: "Rumpelstilzchen", list: ["Rumpelstilzchen"] });
    expect((await tupleAt(secret, hidden)).checkpoint.channel_values.list).toEqual(["Rumpelstilzchen"]);
    const { checkpoint: raw } = await saver.connection
      .client(CheckpointService)
      .getCheckpoint({ ownerId, threadId: thread });
    expect(raw?.channels.map((value) => value.type)).toEqual(["json+mask", "json+mask"]);
    expect(raw?.checkpoint).not.toContain("Rumpelstilzchen");
    await expect(saver.getTuple(hidden)).rejects.toThrow(UnreadableValue);
  });

  test("rows of Python: what is in the JSON is read and stays, and msgpack is named", async () => {
    const version = `${"1".padStart(32, "0")}.0.5`;
    const inline = { text: "é", number: 3, large: 2n ** 70n, none: null, yes: true };
    const versions = Object.fromEntries([...Object.keys(inline), "list"].map((name) => [name, version]));
    const python = checkpoint({}, versions);
    const client = saver.connection.client(CheckpointService);
    const json = JSON.stringify({ ...python, channel_values: { ...inline, large: "LARGE" } });
    const place = { ownerId, threadId: thread, checkpointId: python.id };
    await client.putCheckpoint({
      ...place,
      checkpoint: json.replace('"LARGE"', String(inline.large)),
      metadata: '{"source": "loop", "step": 18446744073709551616}',
      channels: [{ channel: "list", version, type: "json", value: new TextEncoder().encode("[1]") }],
    });
    const found = await tupleAt(saver, config(thread));
    expect(found.checkpoint.channel_values).toStrictEqual({ ...inline, list: [1] });
    expect(found.checkpoint.channel_versions).toStrictEqual(versions);
    expect(found.metadata?.step).toBe(2n ** 64n);
    // The next checkpoint has them no more in its JSON.
    const { large: _, ...values } = found.checkpoint.channel_values;
    const next = saver.getNextVersion(version as unknown as number);
    const second = checkpoint({ ...values, list: [2] }, { ...versions, list: next });
    const after = await tupleAt(saver, await saver.put(found.config, second, metadata(1), { list: next }));
    expect(after.checkpoint).toStrictEqual(second);

    await client.putWrites({
      ...place,
      writes: [{ taskId: "t", channel: "log", type: "msgpack", value: new Uint8Array([0x90]) }],
    });
    const failed = saver.getTuple(config(thread, python.id));
    await expect(failed).rejects.toThrow(UnreadableValue);
    await expect(failed).rejects.toThrow(`channel "log" of thread "${thread}" has the serialization type "msgpack"`);
    await expect(failed).rejects.toThrow("the portable serializer on both sides");
    await expect(all(saver.list(config(thread)))).rejects.toThrow(UnreadableValue);
  });

  test("a value of which nothing would be stored is refused", async () => {
    for (const value of [1n, { deep: [1n] }]) {
      await expect(put(saver, thread, { a: value })).rejects.toThrow('the value of channel "a" is not JSON');
      await expect(saver.putWrites(config(thread, "c"), [["a", value]], "t")).rejects.toThrow(TypeError);
    }
    await expect(put(saver, thread, {}, { deep: [new Map([[1, 1n]])] })).rejects.toThrow(
      "the metadata of the checkpoint",
    );
    expect(await saver.getTuple(config(thread))).toBeUndefined();
  });

  test("channels of ten megabytes", async () => {
    const values = {
      text: "é".repeat(5_000_000),
      data: new Uint8Array(10_000_000).fill(7),
      list: Array(10_000).fill("x".repeat(1000)),
    };
    const where = await put(saver, thread, values);
    await saver.putWrites(where, [["data", values.data]], "task");
    const found = await tupleAt(saver, where);
    // Compared as a whole, since the test's own comparison takes seconds for so many bytes.
    for (const [name, value] of Object.entries(values)) {
      expect(isDeepStrictEqual(found.checkpoint.channel_values[name], value)).toBe(true);
    }
  });

  test("a checkpoint larger than a message", async () => {
    const part = (number: number) => new Uint8Array(20 * 1024 * 1024).fill(number);
    const where = await put(saver, thread, { c0: part(0), c1: part(1), c2: part(2), c3: part(3), small: 1 });
    await saver.putWrites(where, [["w", "x"]], "t");
    const same = (values: Record<string, unknown>) =>
      [0, 1, 2, 3].every((number) => Buffer.compare(values[`c${number}`] as Uint8Array, part(number)) === 0);
    const listed = await all(saver.list(config(thread)));
    expect(listed).toHaveLength(1);
    for (const found of [await tupleAt(saver, where), await tupleAt(saver, config(thread)), listed[0]!]) {
      expect(idOf(found.config)).toBe(idOf(where));
      expect(Object.keys(found.checkpoint.channel_values).sort()).toEqual(["c0", "c1", "c2", "c3", "small"]);
      expect(same(found.checkpoint.channel_values)).toBe(true);
      expect(found.pendingWrites).toEqual([["t", "w", "x"]]);
    }
  });

  test("a history larger than a message", async () => {
    let where = await put(saver, thread, { log: new DeltaSnapshot([]) });
    for (let step = 0; step < 4; step += 1) {
      const value = new Uint8Array(20 * 1024 * 1024).fill(step);
      const writes: [string, unknown][] = [
        ["log", value],
        ["other", step],
      ];
      await saver.putWrites(where, writes, `t${step}`);
      where = await put(saver, where, {});
    }
    const { log } = await saver.getDeltaChannelHistory({ config: where, channels: ["log"] });
    expect(log?.seed).toEqual(new DeltaSnapshot([]));
    const told = log?.writes.map(([task, channel, value]) => [task, channel, (value as Uint8Array)[7]]);
    expect(told).toEqual([0, 1, 2, 3].map((step) => [`t${step}`, "log", step]));
  });

  test("a value larger than a message is refused", async () => {
    const failed = put(saver, thread, { small: 1, big: new Uint8Array(MESSAGE_BYTES) });
    await expect(failed).rejects.toThrow(LimitReached);
    await expect(failed).rejects.toThrow('the value of channel "big" has');
    expect(await saver.getTuple(config(thread))).toBeUndefined();
    const almost = new Uint8Array(MESSAGE_BYTES - 2048).fill(1);
    const found = await tupleAt(saver, await put(saver, thread, { big: almost }));
    expect(Buffer.compare(found.checkpoint.channel_values.big as Uint8Array, almost)).toBe(0);
  });
});
