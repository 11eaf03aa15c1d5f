/** The drop-in interface for threads and their states. */

import { expect, test } from "vitest";
import { AlreadyExists } from "../../src/errors.js";
import type { Thread, ThreadSearch, ThreadState } from "../../src/storage/index.js";
import { INSTANT, inOrder, onBackends } from "./support.js";

onBackends((stage) => {
  test("create gives defaults and stamps the owner", async () => {
    const { threads } = stage.storage;
    const thread = await threads.create({}, stage.alice);
    expect(thread).toStrictEqual({
      thread_id: expect.stringMatching(/^[0-9a-f]{32}$/),
      metadata: { owner: stage.alice },
      config: {},
      status: "idle",
      values: {},
      interrupts: {},
      created_at: expect.stringMatching(INSTANT),
      updated_at: thread.created_at,
    });
    expect(await threads.get(thread.thread_id, stage.alice)).toStrictEqual(thread);
  });

  test("create takes everything", async () => {
    const { threads } = stage.storage;
    const data = {
      thread_id: `t ${stage.alice}`,
      config: { configurable: { model: "m" } },
      status: "interrupted" as const,
      values: { n: 2n ** 70n, m: -(2n ** 53n), x: 1.5, list: [1, null, "ä", "9007199254740993"] },
      interrupts: { task: [{ value: "sure?" }] },
    };
    const metadata = { topic: "tea", owner: stage.bob };
    const thread = await threads.create({ ...data, metadata, ...{ not_known: "ignored" } }, stage.alice);
    expect(thread).toMatchObject(data);
    expect(thread.metadata).toEqual({ topic: "tea", owner: stage.alice });
    expect(await threads.get(thread.thread_id, stage.alice)).toStrictEqual(thread);
  });

  test("a second create is refused or gives the first", async () => {
    const { threads } = stage.storage;
    const thread_id = stage.alice;
    const first = await threads.create({ thread_id, metadata: { a: 1 } }, stage.alice);
    for (const data of [{ metadata: { a: 1 } }, { if_exists: "raise" as const }]) {
      const again = threads.create({ thread_id, ...data }, stage.alice);
      await expect(again).rejects.toThrow(AlreadyExists);
      await expect(again).rejects.toThrow(new RegExp(`^Thread ${thread_id} already exists$`));
    }
    const same = { thread_id, metadata: { b: 1 }, if_exists: "do_nothing" as const };
    expect(await threads.create(same, stage.alice)).toStrictEqual(first);
    await expect(threads.create(same, stage.bob)).rejects.toThrow(AlreadyExists);
  });

  test("absent and foreign are null", async () => {
    const { threads } = stage.storage;
    const thread = await threads.create({}, stage.alice);
    const cases = [
      [thread.thread_id, stage.bob],
      ["absent", stage.alice],
      ["", stage.alice],
      ["x".repeat(300), stage.alice],
      ["\0", stage.alice],
    ] as const;
    for (const [id, owner] of cases) {
      expect(await threads.get(id, owner)).toBeNull();
      expect(await threads.update(id, { metadata: { a: 1 } }, owner)).toBeNull();
      expect(await threads.delete(id, owner)).toBe(false);
      expect(await threads.getState(id, owner)).toBeNull();
      expect(await threads.getHistory(id, 10, null, owner)).toBeNull();
      expect(await threads.getHistory(id, 10, "unknown", owner)).toBeNull();
      expect(await threads.getHistory(id, 10, "\0", owner)).toBeNull();
      expect(await threads.addStateSnapshot(id, { values: {} }, owner)).toBe(false);
      expect(await threads.search({ ids: [id] }, owner)).toEqual([]);
      expect(await threads.count({ ids: [id] }, owner)).toBe(0);
    }
    expect(await threads.get(thread.thread_id, stage.alice)).toStrictEqual(thread);
  });

  test("a thread that is readable by id is", async () => {
    const { threads } = stage.storage;
    const thread = await threads.create({ visibility: "read_by_id", values: { v: 1 } }, stage.alice);
    expect(await threads.get(thread.thread_id, stage.bob)).toStrictEqual(thread);
    expect((await threads.getState(thread.thread_id, stage.bob))?.values).toEqual({ v: 1 });
    expect(await threads.getHistory(thread.thread_id, 10, null, stage.bob)).toEqual([]);
    expect(await threads.update(thread.thread_id, { values: 1 }, stage.bob)).toBeNull();
    expect(await threads.search({}, stage.bob)).toEqual([]);
    await threads.update(thread.thread_id, { visibility: "private" }, stage.alice);
    expect(await threads.get(thread.thread_id, stage.bob)).toBeNull();
  });

  test("update changes what it names", async () => {
    const { threads } = stage.storage;
    const thread = await threads.create({ metadata: { a: 1, b: 2 }, values: { v: 1 }, config: { c: 1 } }, stage.alice);
    const changed = await threads.update(
      thread.thread_id,
      { metadata: { b: null, c: 3, owner: stage.bob }, status: "busy", ...{ other: 1 } },
      stage.alice,
    );
    expect(changed).toStrictEqual({
      ...thread,
      metadata: { a: 1, b: null, c: 3, owner: stage.alice },
      status: "busy",
      updated_at: expect.stringMatching(INSTANT),
    });
    expect(changed && changed.updated_at > thread.updated_at).toBe(true);
    const again = await threads.update(
      thread.thread_id,
      { values: [1, 2n ** 64n], config: {}, interrupts: { i: 1 }, metadata: null, error: "e" },
      stage.alice,
    );
    expect(again).toMatchObject({ values: [1, 2n ** 64n], config: {}, interrupts: { i: 1 }, status: "busy" });
    expect(await threads.get(thread.thread_id, stage.alice)).toStrictEqual(again);
  });

  test("delete takes the runs along", async () => {
    const { threads, runs } = stage.storage;
    const { thread_id } = await threads.create({}, stage.alice);
    const { run_id } = await runs.create({ thread_id, assistant_id: "a" }, stage.alice);
    expect(await threads.delete(thread_id, stage.alice)).toBe(true);
    expect(await threads.delete(thread_id, stage.alice)).toBe(false);
    expect(await threads.get(thread_id, stage.alice)).toBeNull();
    expect(await runs.get(run_id, stage.alice)).toBeNull();
  });

  test("search and count", async () => {
    const { threads } = stage.storage;
    const one = await threads.create(
      { status: "busy", metadata: { k: "v" }, values: { n: 1, in: { d: [1, 2] } } },
      stage.alice,
    );
    const two = await threads.create({ metadata: { k: "v", more: 1 }, values: { n: 2n ** 80n } }, stage.alice);
    await threads.create({ metadata: { k: "v" } }, stage.bob);
    const cases: [ThreadSearch, Thread[]][] = [
      [{}, [two, one]],
      [{ status: "busy" }, [one]],
      [{ status: "idle" }, [two]],
      [{ status: "nonsense" as never }, []],
      [{ status: null }, [two, one]],
      [{ ids: [one.thread_id, "absent"] }, [one]],
      [{ ids: [""] }, []],
      [{ ids: [] }, []],
      [{ metadata: { k: "v" } }, [two, one]],
      [{ metadata: { more: 1, owner: stage.alice } }, [two]],
      [{ metadata: { more: true } }, []],
      [{ metadata: { owner: stage.bob } }, []],
      [{ values: { n: 2n ** 80n } }, [two]],
      [{ values: { in: { d: [2] } } }, [one]],
      [{ values: { n: 1 }, status: "idle" }, []],
    ];
    for (const [filters, rows] of cases) {
      expect(await threads.search(filters, stage.alice)).toStrictEqual(rows);
      expect(await threads.count(filters, stage.alice)).toBe(rows.length);
    }
    await threads.update(one.thread_id, { values: { n: 3 } }, stage.alice);
    const ids = async (page: ThreadSearch) =>
      (await threads.search(page, stage.alice)).map(({ thread_id }) => (thread_id === one.thread_id ? 1 : 2));
    expect(await ids({ sort_by: "updated_at" })).toEqual([1, 2]);
    expect(await ids({ sort_by: "state_updated_at" })).toEqual([1, 2]);
    expect(await ids({ sort_by: "status", sort_order: "asc" })).toEqual([1, 2]);
    expect(await ids({ sort_order: "asc" })).toEqual([1, 2]);
    expect(await ids({ sort_by: "created_at", sort_order: "desc", limit: 1 })).toEqual([2]);
    expect(await ids({ sort_by: "thread_id", limit: 1, offset: 1 })).toHaveLength(1);
    expect(await ids({ limit: 3_000, offset: 1 })).toEqual([1]);
    await expect(threads.search({ color: "red" } as never, stage.alice)).rejects.toThrow(
      "color is no attribute of a thread to filter by",
    );
    await expect(threads.count({ meta_data: {} } as never, stage.alice)).rejects.toThrow("did you mean metadata?");
    await expect(threads.search({ sort_by: "id" } as never, stage.alice)).rejects.toThrow("sort_by must be one of");
  });

  test("search gives ten by default, newest first", async () => {
    const { threads } = stage.storage;
    const made = (await inOrder(12, (index) => threads.create({ metadata: { index } }, stage.alice))).reverse();
    expect(await threads.search(null, stage.alice)).toStrictEqual(made.slice(0, 10));
    expect(await threads.search({ limit: 100 }, stage.alice)).toStrictEqual(made);
    expect(await threads.count(undefined, stage.alice)).toBe(12);
  });

  test("wrong data is refused by name", async () => {
    const { threads } = stage.storage;
    const cases: [unknown, string][] = [
      ["text", "data must be an object"],
      [{ thread_id: 5 }, "thread_id must be a string"],
      [{ metadata: [] }, "metadata must be an object, not array"],
      [{ config: "{}" }, "config must be an object"],
      [{ status: "sleeping" }, 'status must be one of idle, busy, interrupted, error, not "sleeping"'],
      [{ status: 1 }, "status must be a string"],
      [{ Status: "busy" }, 'the key "Status"; did you mean "status"'],
      [{ values: { x: Number.NaN } }, "values is not JSON: values.x is NaN"],
      [{ values: new Set([1]) }, "values is not JSON"],
      [{ visibility: "public" }, "visibility must be one of private, read_by_id"],
      [{ thread_id: "a\0" }, "thread_id"],
      [{ values: { x: "\0" } }, "values"],
    ];
    for (const [data, message] of cases) {
      await expect(threads.create(data as never, stage.alice)).rejects.toThrow(message);
    }
    expect(await threads.count({}, stage.alice)).toBe(0);
  });

  test("the state without a snapshot", async () => {
    const { threads } = stage.storage;
    const { thread_id } = await threads.create({ values: { v: 1 }, metadata: { m: 1 } }, stage.alice);
    expect(await threads.getState(thread_id, stage.alice)).toMatchObject({
      values: { v: 1 },
      checkpoint: { thread_id, checkpoint_ns: "", checkpoint_id: null },
      next: [],
      tasks: [],
      parent_checkpoint: null,
    });
    expect(await threads.getHistory(thread_id, undefined, undefined, stage.alice)).toEqual([]);
  });

  test("snapshots", async () => {
    const { threads } = stage.storage;
    const { thread_id } = await threads.create({}, stage.alice);
    const first = {
      values: { n: 2n ** 65n },
      next: ["node"],
      tasks: [{ id: "t", name: "node" }],
      metadata: { step: 1 },
      interrupts: [{ value: "sure?" }],
    };
    expect(await threads.addStateSnapshot(thread_id, first, stage.alice)).toBe(true);
    expect(await threads.addStateSnapshot(thread_id, { n: 2, checkpoint_id: "x" }, stage.alice)).toBe(true);
    const history = await threads.getHistory(thread_id, 10, null, stage.alice);
    expect(history).toHaveLength(2);
    const [newest, oldest] = history as [ThreadState, ThreadState];
    expect(oldest).toStrictEqual({
      ...first,
      checkpoint: { thread_id, checkpoint_ns: "", checkpoint_id: expect.stringMatching(/^[0-9a-f]{32}$/) },
      created_at: expect.stringMatching(INSTANT),
      parent_checkpoint: null,
    });
    expect(newest).toMatchObject({
      values: { n: 2, checkpoint_id: "x" },
      next: [],
      tasks: [],
      interrupts: [],
      parent_checkpoint: oldest.checkpoint,
    });
    expect((newest.created_at ?? "") > (oldest.created_at ?? "")).toBe(true);
    expect(await threads.getState(thread_id, stage.alice)).toStrictEqual(newest);
    expect((await threads.get(thread_id, stage.alice))?.values).toEqual(newest.values);
    const parent = { values: 1, parent_checkpoint: { ...oldest.checkpoint } };
    await threads.addStateSnapshot(thread_id, parent, stage.alice);
    expect((await threads.getState(thread_id, stage.alice))?.parent_checkpoint).toEqual(oldest.checkpoint);
  });

  test("the history is cut by limit and before", async () => {
    const { threads } = stage.storage;
    const { thread_id } = await threads.create({}, stage.alice);
    await inOrder(13, (values) => threads.addStateSnapshot(thread_id, { values }, stage.alice));
    const values = async (limit?: number, before?: never) =>
      (await threads.getHistory(thread_id, limit, before, stage.alice))?.map((state) => state.values);
    const everything = Array.from({ length: 13 }, (_, index) => 12 - index);
    expect(await values()).toEqual(everything.slice(0, 10));
    expect(await values(1_000)).toEqual(everything);
    expect(await values(0)).toEqual([12]);
    expect(await values(-3)).toEqual([12]);
    const states = (await threads.getHistory(thread_id, 100, null, stage.alice)) as ThreadState[];
    const before = states[4]?.checkpoint;
    for (const named of [before?.checkpoint_id, before, { configurable: before }]) {
      expect(await values(3, named as never)).toEqual([7, 6, 5]);
    }
    expect(await values(3, "unknown" as never)).toEqual([]);
    expect(await values(3, "\0" as never)).toEqual([]);
    expect(await values(3, states.at(-1)?.checkpoint as never)).toEqual([]);
    expect(await values(3, { configurable: {} } as never)).toEqual([12, 11, 10]);
    await expect(values("3" as never)).rejects.toThrow("limit must be an integer");
    await expect(values(3, 5 as never)).rejects.toThrow("before must be a string");
  });

  test("the history goes on past the largest page", async () => {
    const { threads } = stage.storage;
    const { thread_id } = await threads.create({}, stage.alice);
    await inOrder(1_002, (values) => threads.addStateSnapshot(thread_id, { values }, stage.alice));
    for (const [limit, count] of [
      [1_001, 1_001],
      [5_000, 1_002],
    ] as const) {
      const states = await threads.getHistory(thread_id, limit, null, stage.alice);
      expect(states?.map(({ values }) => values)).toEqual(Array.from({ length: count }, (_, index) => 1_001 - index));
    }
  });

  test("wrong states are refused by name", async () => {
    const { threads } = stage.storage;
    const { thread_id } = await threads.create({}, stage.alice);
    const cases: [unknown, string][] = [
      [[], "state must be an object, not array"],
      ["text", "state must be an object, not string"],
      [{ values: {}, next: "node" }, "next must be an array, not string"],
      [{ values: {}, next: [1] }, "next must be a string, not number"],
      [{ values: {}, tasks: {} }, "tasks must be an array, not object"],
      [{ values: {}, parent_checkpoint: "id" }, "parent_checkpoint must be an object"],
    ];
    for (const [state, message] of cases) {
      await expect(threads.addStateSnapshot(thread_id, state as never, stage.alice)).rejects.toThrow(message);
    }
    expect(await threads.getHistory(thread_id, 10, null, stage.alice)).toEqual([]);
  });
});
