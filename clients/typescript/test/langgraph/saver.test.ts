/** What LangGraph's own suite leaves out: several calls at once, order, the same id twice, aborted calls, filters. */

import { ERROR, INTERRUPT, RESUME } from "@langchain/langgraph-checkpoint";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { InvalidRequest, Unreachable } from "../../src/index.js";
import { GrpcSaver, PortableSerializer } from "../../src/langgraph/index.js";
import { BACKENDS, connect, newOwner } from "../support.js";
import { all, checkpoint, config, idOf, metadata, newThread, put, tupleAt } from "./checkpoints.js";

describe.each(BACKENDS)("%s", (backend) => {
  let saver: GrpcSaver;
  let thread: string;

  beforeEach(() => {
    saver = new GrpcSaver({ connection: connect(backend), ownerId: newOwner() });
    thread = newThread();
  });

  afterEach(() => saver.connection.close());

  test("many puts and gets at once", async () => {
    const life = async (number: number) => {
      const own = `${thread}-${number}`;
      let where = config(own);
      for (let step = 0; step < 10; step += 1) {
        where = await put(saver, where, { n: number, l: [number, step] });
        const tasks = ["t0", "t1", "t2"];
        await Promise.all(tasks.map((task) => saver.putWrites(where, [["w", [number, step]]], task)));
        const found = await tupleAt(saver, config(own));
        expect(found.checkpoint.channel_values).toEqual({ n: number, l: [number, step] });
        expect(found.pendingWrites).toEqual(tasks.map((task) => [task, "w", [number, step]]));
      }
      expect(await all(saver.list(config(own)))).toHaveLength(10);
    };
    await Promise.all(Array.from({ length: 20 }, (_, number) => life(number)));
  });

  test("many puts to one thread at once", async () => {
    const made = await Promise.all(Array.from({ length: 100 }, (_, number) => put(saver, thread, { l: [number] })));
    const listed = (await all(saver.list(config(thread)))).map((item) => item.checkpoint.id);
    expect(listed).toEqual(made.map(idOf).sort().reverse());
    expect((await tupleAt(saver, config(thread))).checkpoint.id).toBe(listed[0]);
  });

  test("calls do not wait for one another", async () => {
    const where = await put(saver, thread, { a: 1 });
    for await (const item of saver.list(config(thread))) {
      // Inside of a list that is not over.
      await put(saver, where, { a: 2 });
      expect(item.checkpoint.channel_values).toEqual({ a: 1 });
    }
    expect(await all(saver.list(config(thread)))).toHaveLength(2);
  });

  test("pending writes are ordered by path, task and index", async () => {
    const where = await put(saver, thread, {});
    const paths = ["", "~__pregel_pull, a", "~__pregel_pull, b", "é"];
    const tasks = paths.flatMap((path) => ["1", "2", "Z", "a"].map((task) => ({ path, task })));
    const indexes = Array.from({ length: 12 }, (_, index) => index);
    const expected = tasks.flatMap(({ path, task }) => indexes.map((index) => [path, task, index]));
    // In an order that is no order.
    const mixed = tasks.map((_, place) => tasks[(place * 7) % tasks.length]!);
    await Promise.all(
      mixed.map(({ path, task }) =>
        saver.putWrites(
          where,
          indexes.map((index) => ["c", [path, task, index]]),
          task + path,
          path,
        ),
      ),
    );
    const found = await tupleAt(saver, where);
    expect(found.pendingWrites?.map(([, , value]) => value)).toEqual(expected);
    const [listed] = await all(saver.list(where));
    expect(listed?.pendingWrites).toEqual(found.pendingWrites);
  });

  test("the same checkpoint twice", async () => {
    const parent = await put(saver, thread, {});
    const made = checkpoint({ a: [1], b: "x" }, { a: 1, b: 1 });
    const where = await saver.put(parent, made, metadata(1), made.channel_versions);
    // A repetition changes nothing, and new content replaces the old one.
    for (const again of [made, checkpoint({ a: [2], b: "y" }, { a: 2, b: 2 }, made.id)]) {
      expect(await saver.put(parent, again, metadata(2), again.channel_versions)).toEqual(where);
      const found = await tupleAt(saver, where);
      expect(found.checkpoint).toEqual(again);
      expect(found.metadata?.step).toBe(2);
      expect(found.parentConfig).toEqual(parent);
    }
    // What a version holds stays.
    await saver.put(parent, checkpoint({ a: [3] }, { a: 2 }, made.id), metadata(), { a: 2 });
    expect((await tupleAt(saver, where)).checkpoint.channel_values).toEqual({ a: [2] });
  });

  test("the same write twice", async () => {
    const where = await put(saver, thread, {});
    for (const value of ["first", "second"]) {
      const writes: [string, unknown][] = [
        ["a", value],
        [ERROR, value],
        ["b", value],
      ];
      await saver.putWrites(where, writes, "t");
      await saver.putWrites(where, [[RESUME, [value]]], "t");
    }
    await saver.putWrites(where, [[INTERRUPT, "i"]], "t");
    expect((await tupleAt(saver, where)).pendingWrites).toEqual([
      ["t", RESUME, ["second"]],
      ["t", INTERRUPT, "i"],
      ["t", ERROR, "second"],
      ["t", "a", "first"],
      ["t", "b", "first"],
    ]);
  });

  test("writes may come before their checkpoint", async () => {
    const made = checkpoint({});
    await saver.putWrites(config(thread, made.id), [["a", 1]], "t");
    expect(await saver.getTuple(config(thread))).toBeUndefined();
    const where = await saver.put(config(thread), made, metadata(), {});
    expect((await tupleAt(saver, where)).pendingWrites).toEqual([["t", "a", 1]]);
  });

  test("what is changed after a put is not stored", async () => {
    const values = { l: [1] };
    const kept = put(saver, thread, values);
    values.l.push(2);
    expect((await tupleAt(saver, await kept)).checkpoint.channel_values).toEqual({ l: [1] });
  });

  test("filters of a list", async () => {
    const made = [];
    for (let step = 0; step < 6; step += 1) {
      made.push(await put(saver, thread, { n: [step] }, { step, even: step % 2 === 0 }));
    }
    await put(saver, config(thread, undefined, { checkpoint_ns: "child:1" }), {}, { step: 0 });
    const steps = async (...args: Parameters<GrpcSaver["list"]>) =>
      (await all(saver.list(...args))).map((item) => item.metadata?.step);
    expect(await steps(config(thread))).toEqual([5, 4, 3, 2, 1, 0]);
    expect((await steps({ configurable: { thread_id: thread } })).sort()).toEqual([0, 0, 1, 2, 3, 4, 5]);
    expect((await steps({})).sort()).toEqual([0, 0, 1, 2, 3, 4, 5]);
    expect((await steps(undefined)).sort()).toEqual([0, 0, 1, 2, 3, 4, 5]);
    expect(await steps(config(thread), { filter: { even: true } })).toEqual([4, 2, 0]);
    expect(await steps(config(thread), { filter: { even: true }, limit: 1, before: made[4]! })).toEqual([2]);
    expect(await steps(made[3])).toEqual([3]);
    expect(await steps(config(thread), { before: config(thread) })).toEqual([5, 4, 3, 2, 1, 0]);
    expect(await steps(config(thread, undefined, { checkpoint_ns: "none" }))).toEqual([]);
    await expect(steps(config(thread), { limit: -1 })).rejects.toThrow(InvalidRequest);
    await expect(steps(config(thread), { limit: 1.5 })).rejects.toThrow("limit must be an integer");
  });

  test("a list of 1,200 checkpoints is complete and in order", async () => {
    const numbers = Array.from({ length: 1200 }, (_, number) => number);
    for (let start = 0; start < numbers.length; start += 100) {
      await Promise.all(numbers.slice(start, start + 100).map((number) => put(saver, thread, { n: number })));
    }
    const listed = await all(saver.list(config(thread)));
    const ids = listed.map((item) => item.checkpoint.id);
    expect(ids).toEqual([...ids].sort().reverse());
    expect(new Set(listed.map((item) => item.checkpoint.channel_values.n))).toEqual(new Set(numbers));
  });

  test("an aborted read ends, and an aborted put is kept", async () => {
    const where = await put(saver, thread, { d: new Uint8Array(1_000_000) });
    const aborted = AbortSignal.abort();
    await expect(saver.getTuple({ ...where, signal: aborted })).rejects.toThrow("cancelled");
    await expect(all(saver.list({ ...where, signal: aborted }))).rejects.toThrow("cancelled");
    const history = saver.getDeltaChannelHistory({ config: { ...where, signal: aborted }, channels: ["d"] });
    await expect(history).rejects.toThrow("cancelled");
    // In the middle of a list.
    for (let step = 0; step < 20; step += 1) {
      await put(saver, thread, { d: new Uint8Array(1_000_000) });
    }
    const ending = new AbortController();
    let seen = 0;
    const reading = async () => {
      for await (const item of saver.list({ ...config(thread), signal: ending.signal })) {
        seen += item.checkpoint.channel_values.d instanceof Uint8Array ? 1 : 0;
        ending.abort();
      }
    };
    await expect(reading()).rejects.toThrow("cancelled");
    expect(seen).toBeLessThan(21);
    // What a task did before its run was aborted must be there for the next one.
    const kept = await put(saver, { ...where, signal: aborted }, { a: 1 });
    await saver.putWrites({ ...kept, signal: aborted }, [["w", 1]], "t");
    expect((await tupleAt(saver, kept)).pendingWrites).toEqual([["t", "w", 1]]);
  });

  test("a list that is left ends its call", async () => {
    for (let step = 0; step < 20; step += 1) {
      await put(saver, thread, { d: new Uint8Array(1_000_000) });
    }
    const signals: AbortSignal[] = [];
    const transport = saver.connection.transport;
    const stream = transport.stream.bind(transport);
    transport.stream = (method, signal, ...rest) => {
      signals.push(signal!);
      return stream(method, signal, ...rest);
    };
    for await (const item of saver.list(config(thread))) {
      expect(item.checkpoint.channel_values.d).toHaveLength(1_000_000);
      break;
    }
    expect(signals.map((signal) => signal.aborted)).toEqual([true]);
  });

  test("copies, prunes and deletes", async () => {
    const first = await put(saver, thread, { l: [1] }, { run_id: `r1-${thread}` });
    await saver.putWrites(first, [["w", "x"]], "t1", "path");
    const second = await put(saver, first, { l: [2] }, { run_id: `r2-${thread}` });
    await put(saver, config(thread, undefined, { checkpoint_ns: "child:1" }), { l: [3] });
    const copy = `${thread}-copy`;
    await saver.copyThread(thread, copy);
    const told = async (own: string) =>
      (await all(saver.list({ configurable: { thread_id: own } }))).map((item) => [
        item.checkpoint,
        item.metadata,
        item.pendingWrites,
        item.parentConfig?.configurable?.checkpoint_id,
      ]);
    expect(await told(copy)).toEqual(await told(thread));
    expect(await told(copy)).toHaveLength(3);

    await saver.deleteForRuns([`r1-${thread}`]);
    expect(await saver.getTuple(first)).toBeUndefined();
    expect((await tupleAt(saver, second)).checkpoint.channel_values).toEqual({ l: [2] });
    expect(await saver.getTuple(config(copy, idOf(first)))).toBeUndefined();

    await saver.copyThread(thread, copy);
    const newest = await put(saver, config(copy, idOf(second)), { l: [4] });
    await saver.prune([copy, "absent"]);
    const kept = await all(saver.list(config(copy)));
    expect(kept.map((item) => item.checkpoint.id)).toEqual([idOf(newest)]);
    await saver.prune([copy], { strategy: "delete" });
    expect(await told(copy)).toEqual([]);
    await saver.deleteThread(thread);
    await saver.deleteThread(thread);
    expect(await told(thread)).toEqual([]);
  });

  test("ids need not be text", async () => {
    const number = Math.trunc(Math.random() * 1e15);
    const where = await put(saver, { configurable: { thread_id: number } }, { a: 1 });
    expect(where.configurable?.thread_id).toBe(String(number));
    await saver.deleteThread(number as unknown as string);
    expect(await saver.getTuple(where)).toBeUndefined();
    // As LangGraph called it once.
    const legacy = await put(saver, thread, { a: 1 });
    await put(saver, legacy, { a: 2 });
    const found = await tupleAt(saver, { configurable: { thread_id: thread, thread_ts: idOf(legacy) } });
    expect(found.checkpoint.channel_values).toEqual({ a: 1 });
  });

  test("the service is there", async () => {
    await saver.setup();
  });
});

test("no ids are no call", async () => {
  await using saver = new GrpcSaver({ target: "127.0.0.1:9", ownerId: "alice" });
  const thread = newThread();
  await saver.putWrites(config(thread, "c"), [], "t");
  await saver.deleteForRuns([]);
  await saver.prune([]);
  expect(await saver.getDeltaChannelHistory({ config: config(thread), channels: [] })).toEqual({});
  expect(await saver.getDeltaChannelHistory({ config: {}, channels: ["a"] })).toEqual({ a: { writes: [] } });
  expect(await saver.getTuple({ configurable: {} })).toBeUndefined();
  expect(await all(saver.list(config(thread), { limit: 0 }))).toEqual([]);
  expect(await all(saver.list(config("")))).toEqual([]);
  await expect(saver.deleteForRuns("r1" as unknown as string[])).rejects.toThrow("runIds must be an array");
  await expect(saver.prune("t1" as unknown as string[])).rejects.toThrow("threadIds must be an array");
  await expect(saver.prune([thread], { strategy: "all" as "delete" })).rejects.toThrow("keep_latest");
  await expect(put(saver, {}, {})).rejects.toThrow("thread_id");
  await expect(saver.putWrites(config(thread), [["a", 1]], "t")).rejects.toThrow("checkpoint_id");
});

test("nobody there", async () => {
  await using saver = new GrpcSaver({ target: "127.0.0.1:1", ownerId: "alice" });
  const thread = newThread();
  await expect(saver.getTuple(config(thread))).rejects.toThrow(Unreachable);
  await expect(put(saver, thread, {})).rejects.toThrow(Unreachable);
  await expect(all(saver.list(config(thread)))).rejects.toThrow(Unreachable);
  await expect(saver.setup()).rejects.toThrow(Unreachable);
});

test("versions go on in their kind, and no two writers give the same", async () => {
  await using saver = new GrpcSaver({ target: "127.0.0.1:1", ownerId: "alice" });
  const next = (current: unknown) => saver.getNextVersion(current as number) as unknown;
  for (const current of [undefined, 1, 7, 7.25, 2 ** 31]) {
    const made = [next(current), next(current)] as number[];
    expect(new Set(made).size).toBe(2);
    for (const version of made) {
      expect(Math.floor(version)).toBe(Math.floor(current ?? 0) + 1);
    }
  }
  const text = `${"41".padStart(32, "0")}.0.5`;
  const made = [next(text), next(text)] as string[];
  expect(new Set(made).size).toBe(2);
  for (const version of made) {
    expect(version).toMatch(/^0{30}42\.0\.\d{16}$/);
    expect(version > text).toBe(true);
  }
  // Python can't go on with numbers.
  const shared = new GrpcSaver({ connection: saver.connection, serde: new PortableSerializer() });
  expect(shared.getNextVersion(undefined)).toMatch(/^0{31}1\.0\.\d{16}$/);
  expect(Math.floor(shared.getNextVersion(1))).toBe(2);
  expect(() => next("a")).toThrow('no version of a channel follows "a"');
});
