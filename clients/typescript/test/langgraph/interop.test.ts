/** One database, some runtimes on the service and some on LangGraph.js's PostgresSaver: each reads what the other wrote. */

import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { type BaseCheckpointSaver, type Checkpoint, DeltaSnapshot, TASKS } from "@langchain/langgraph-checkpoint";
import { PostgresSaver } from "@langchain/langgraph-checkpoint-postgres";
import { afterEach, beforeEach, describe, expect, inject, test } from "vitest";
import { ThreadService } from "../../src/gen/agentstorage/v1/threads_pb.js";
import { NotFound } from "../../src/index.js";
import { GrpcSaver } from "../../src/langgraph/index.js";
import { Serving } from "../serving.js";
import { connect, newOwner } from "../support.js";
import { all, checkpoint, config, idOf, metadata, newThread, put, tupleAt } from "./checkpoints.js";

const VALUES = {
  none: null,
  text: "é \\ \" '",
  empty: "",
  number: 12345,
  float: -0.25,
  bool: false,
  list: ["é", { a: [1] }],
  data: new Uint8Array([0, 255]),
  set: new Set([1, "a"]),
  map: new Map([["k", 1]]),
  snapshot: new DeltaSnapshot([1]),
  undefined: undefined,
};

/** A thread with everything in it. */
async function fill(saver: BaseCheckpointSaver, thread: string): Promise<void> {
  const first = checkpoint(VALUES);
  const about = metadata(0, { run_id: "r1", who: { set: new Set([1]), maybe: [undefined] }, note: "x" });
  const where = await saver.put(config(thread), first, about, first.channel_versions);
  const writes: [string, unknown][] = [
    ["a", ["é", 1]],
    ["b", null],
    ["c", new Uint8Array([7])],
  ];
  await saver.putWrites(where, writes, "t2");
  await saver.putWrites(where, [["__interrupt__", ["why"]]], "t1");
  const versions = { ...first.channel_versions, list: 7001, gone: 7001 };
  const second = checkpoint({ ...VALUES, list: ["new"] }, versions);
  await saver.put(where, second, metadata(1, { run_id: "r1" }), { list: 7001, gone: 7001 });
  await put(saver, config(thread, undefined, { checkpoint_ns: "child:1" }), { n: [1] });
}

/** All of a thread, as a list and one by one. */
async function everything(saver: BaseCheckpointSaver, thread: string) {
  const listed = await all(saver.list({ configurable: { thread_id: thread } }));
  for (const item of listed) {
    expect(await saver.getTuple(item.config)).toEqual(item);
  }
  expect(listed).toContainEqual(await saver.getTuple(config(thread)));
  return listed.map(plain);
}

/** A value with the bytes that PostgresSaver gives as a Buffer as what they were put as, and without what is undefined. */
function plain<T>(value: T): T {
  if (value instanceof Uint8Array) {
    return new Uint8Array(value) as T;
  }
  if (Array.isArray(value)) {
    return value.map(plain) as T;
  }
  if (typeof value !== "object" || value === null || Object.getPrototypeOf(value) !== Object.prototype) {
    return value;
  }
  return Object.fromEntries(Object.entries(value).map(([key, entry]) => [key, plain(entry)])) as T;
}

describe("on one database", () => {
  let direct: PostgresSaver;
  let remote: GrpcSaver;
  let thread: string;

  beforeEach(async () => {
    thread = newThread();
    const ownerId = newOwner();
    remote = new GrpcSaver({ connection: connect("postgres"), ownerId });
    // With a thread of the owner: checkpoints without one are nobody's.
    await remote.connection.client(ThreadService).createThread({ ownerId, threadId: thread });
    direct = PostgresSaver.fromConnString(inject("servers").postgres.database_url);
    await direct.setup();
  });

  afterEach(async () => {
    await direct.end();
    await remote.connection.close();
  });

  test.each(["service first", "direct first"])("each reads what the other wrote: %s", async (way) => {
    await fill(way === "direct first" ? direct : remote, thread);
    const found = await everything(remote, thread);
    expect(found).toEqual(await everything(direct, thread));
    expect(found).toHaveLength(3);
    const channels = ["a", "list", "snapshot", "float", "missing"];
    const asked = { config: config(thread), channels };
    expect(await remote.getDeltaChannelHistory(asked)).toEqual(await direct.getDeltaChannelHistory(asked));
    const values = (await tupleAt(remote, config(thread))).checkpoint.channel_values;
    expect(values).toEqual({ ...VALUES, list: ["new"] });
    expect(values.snapshot).toBeInstanceOf(DeltaSnapshot);
  });

  test.each(["service first", "direct first"])("each goes on where the other stopped: %s", async (way) => {
    const savers = way === "direct first" ? [direct, remote] : [remote, direct];
    const next = (version: unknown) => savers[0]!.getNextVersion(version as number);
    let where = config(thread);
    for (let step = 0; step < 6; step += 1) {
      const saver = savers[step % 2]!;
      const found = await saver.getTuple(where);
      const values = { ...(found?.checkpoint.channel_values ?? VALUES), list: [step], text: `t${step}` };
      const before = found?.checkpoint.channel_versions ?? {};
      const changed = found === undefined ? Object.keys(values) : ["list", "text"];
      const versions = Object.fromEntries(changed.map((name) => [name, saver.getNextVersion(before[name] as number)]));
      where = await saver.put(where, checkpoint(values, { ...before, ...versions }), metadata(step), versions);
      await saver.putWrites(where, [["w", step]], "t");
    }
    const found = await tupleAt(remote, where);
    expect(found.checkpoint.channel_values).toEqual({ ...VALUES, list: [5], text: "t5" });
    expect(Math.floor(found.checkpoint.channel_versions.list as number)).toBe(6);
    expect(next(found.checkpoint.channel_versions.list)).toBeGreaterThan(
      found.checkpoint.channel_versions.list as number,
    );
    expect(await everything(remote, thread)).toEqual(await everything(direct, thread));
  });

  test("rows of old formats", async () => {
    let where = config(thread);
    for (let step = 0; step < 3; step += 1) {
      const versions: Checkpoint["channel_versions"] = step > 0 ? { a: step + 1, b: step } : {};
      const made = { ...checkpoint({ a: [step] }, versions), v: step + 1 };
      where = await direct.put(where, made, metadata(step), versions);
      for (const task of ["t1", "t2"]) {
        const writes: [string, unknown][] = [
          ["x", 0],
          [TASKS, { node: "n", args: [step, task] }],
          [TASKS, 2],
        ];
        await direct.putWrites(where, writes, task);
      }
    }
    await put(direct, where, { a: [9] });
    const found = await everything(remote, thread);
    expect(found).toEqual(await everything(direct, thread));
    expect(found.map((item) => item.checkpoint.channel_values[TASKS])).toEqual([
      undefined,
      [{ node: "n", args: [1, "t1"] }, 2, { node: "n", args: [1, "t2"] }, 2],
      [{ node: "n", args: [0, "t1"] }, 2, { node: "n", args: [0, "t2"] }, 2],
      undefined,
    ]);
    expect(found[1]?.checkpoint.channel_versions[TASKS]).toBe(3);
  });

  test("checkpoints past the service are nobody's without a thread", async () => {
    const own = newThread();
    await put(direct, own, { a: 1 });
    expect(await remote.getTuple(config(own))).toBeUndefined();
    await expect(put(remote, own, {})).rejects.toThrow(NotFound);
    expect((await tupleAt(direct, config(own))).checkpoint.channel_values).toEqual({ a: 1 });
  });
});

test("a database that PostgresSaver made is adopted, threads and all", async () => {
  await using serving = new Serving();
  const { name, url } = await serving.database();
  const direct = PostgresSaver.fromConnString(url);
  try {
    await direct.setup();
    const thread = newThread();
    await fill(direct, thread);
    const before = await everything(direct, thread);
    const { target } = await serving.start({ backend: "postgres", database: name });
    await using saver = new GrpcSaver({ target, ownerId: "alice" });
    expect(await all(saver.list({}))).toEqual([]);
    const python = fileURLToPath(new URL("../../../../.venv/bin/storage-service", import.meta.url));
    const environment = { ...process.env, DATABASE_URL: url };
    await promisify(execFile)(python, ["assign-owner", "--owner", "alice", "--all-ownerless"], { env: environment });
    expect(await everything(saver, thread)).toEqual(before);
    // Both go on.
    await direct.setup();
    const next = await put(saver, config(thread, idOf(before[0]!.config)), { n: 1 });
    await put(direct, next, { n: 2 });
    expect(await everything(saver, thread)).toEqual(await everything(direct, thread));
  } finally {
    await direct.end();
  }
});
