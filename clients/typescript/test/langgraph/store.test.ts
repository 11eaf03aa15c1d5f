/** The store's operations through real servers, on both backends. */

import { setTimeout as sleep } from "node:timers/promises";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { InvalidNamespaceError, type Item, type Operation } from "@langchain/langgraph-checkpoint";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { StoreService } from "../../src/gen/agentstorage/v1/store_pb.js";
import { type Connection, InvalidRequest } from "../../src/index.js";
import { GrpcStore } from "../../src/langgraph/index.js";
import { BACKENDS, connect, newOwner } from "../support.js";
import { keys } from "./stores.js";

describe.each(BACKENDS)("%s", (backend) => {
  let connection: Connection;
  let ownerId: string;
  let store: GrpcStore;

  beforeEach(() => {
    connection = connect(backend);
    ownerId = newOwner();
    store = new GrpcStore({ connection, ownerId });
  });

  afterEach(() => connection.close());

  test("put, get, replace and delete", async () => {
    expect(await store.get(["a", "b"], "k")).toBeNull();
    const value = { text: "é\u{1f600}", n: 2n ** 70n, list: [1.5, null, true], nested: { "": {} } };
    await store.put(["a", "b"], "k", value);
    const item = (await store.get(["a", "b"], "k")) as Item;
    expect(item).toStrictEqual({
      namespace: ["a", "b"],
      key: "k",
      value,
      createdAt: expect.any(Date),
      updatedAt: item.createdAt,
    });
    expect(Math.abs(Date.now() - item.createdAt.getTime())).toBeLessThan(60_000);
    await sleep(5);
    await store.put(["a", "b"], "k", { other: 1 });
    const again = (await store.get(["a", "b"], "k")) as Item;
    expect(again.value).toEqual({ other: 1 });
    expect(again.createdAt).toEqual(item.createdAt);
    expect(again.updatedAt.getTime()).toBeGreaterThan(item.updatedAt.getTime());
    expect(await store.get(["a"], "k")).toBeNull();
    await store.delete(["a", "b"], "k");
    await store.delete(["a", "b"], "k");
    expect(await store.get(["a", "b"], "k")).toBeNull();
    await store.put(["a"], "k", {});
    expect(await store.batch([{ namespace: ["a"], key: "k", value: null }])).toEqual([undefined]);
    expect(await store.get(["a"], "k")).toBeNull();
  });

  test("a large value", async () => {
    const value = { texts: Array(3000).fill("x".repeat(1000)) };
    await store.put(["a"], "k", value);
    expect((await store.get(["a"], "k"))?.value).toEqual(value);
    expect((await store.search(["a"])).map((item) => item.value)).toEqual([value]);
  });

  test("search gives the newest first", async () => {
    for (const key of ["1", "2", "3"]) {
      await store.put(["a"], key, {});
    }
    await store.put(["a"], "1", { again: true });
    const found = await store.search(["a"]);
    expect(found.map((item) => item.key)).toEqual(["1", "3", "2"]);
    expect(found[0]?.value).toEqual({ again: true });
    expect(found[0]).not.toHaveProperty("score");
    expect(await keys(store, [], { limit: 1, offset: 1 })).toEqual(["3"]);
    expect(await keys(store, ["a"], { limit: 0 })).toEqual([]);
    expect(await keys(store, ["a"], { offset: 3 })).toEqual([]);
  });

  test("a prefix is of whole labels", async () => {
    for (const labels of [["a"], ["a", "b"], ["ab"], ["b", "a"], ["a%"]]) {
      await store.put(labels, labels.join("/"), {});
    }
    expect((await keys(store, ["a"])).sort()).toEqual(["a", "a/b"]);
    expect(await keys(store, ["a", "b"])).toEqual(["a/b"]);
    expect((await keys(store, [])).sort()).toEqual(["a", "a%", "a/b", "ab", "b/a"]);
    expect(await keys(store, ["%"])).toEqual([]);
  });

  test("filters", async () => {
    const values = { nine: 9, ten: 10, text: "10", float: 9.5, null: null, object: { x: 1 } };
    for (const [key, value] of Object.entries(values)) {
      await store.put(["a"], key, { f: value, g: "same" });
    }
    await store.put(["a"], "absent", { g: "same" });
    const expected: [unknown, string[]][] = [
      [10, ["ten"]],
      ["10", ["text"]],
      [{ $eq: 9 }, ["nine"]],
      [{ $gt: 9 }, ["float", "ten"]],
      [{ $gte: 9, $lt: 10 }, ["float", "nine"]],
      [{ $lte: 9 }, ["nine"]],
      [{ $gt: "0" }, ["text"]],
      [{ $ne: 10 }, ["absent", "float", "nine", "null", "object", "text"]],
      [null, ["null"]],
      [{ x: 1 }, ["object"]],
      [{}, []],
    ];
    for (const [wanted, found] of expected) {
      expect((await keys(store, ["a"], { filter: { f: wanted } })).sort(), JSON.stringify(wanted)).toEqual(found);
    }
    expect((await keys(store, ["a"], { filter: { f: { $gt: 9 }, g: "same" } })).sort()).toEqual(["float", "ten"]);
    expect(await keys(store, ["a"], { filter: { f: 9, g: "other" } })).toEqual([]);
    await expect(store.search(["a"], { filter: { f: { $in: [1] } } })).rejects.toThrow('the operator "$in"');
    await expect(store.search(["a"], { filter: { f: { $gt: 1, x: 1 } } })).rejects.toThrow('the operator "x"');
    await expect(store.search(["a"], { filter: { f: Number.NaN } })).rejects.toThrow("filter is not JSON");
  });

  test("list namespaces", async () => {
    const tree = [["a"], ["a", "b", "c"], ["a", "b", "d"], ["a", "x", "c"], ["ab", "c"], ["b", "c"]];
    for (const labels of tree) {
      await store.put(labels, "k", {});
      await store.put(labels, "l", {});
    }
    const listed = (...numbers: number[]) => numbers.map((number) => tree[number]);
    expect(await store.listNamespaces()).toEqual(tree);
    expect(await store.listNamespaces({ prefix: ["a"] })).toEqual(tree.slice(0, 4));
    expect(await store.listNamespaces({ suffix: ["c"] })).toEqual(listed(1, 3, 4, 5));
    expect(await store.listNamespaces({ prefix: ["a", "*", "c"] })).toEqual(listed(1, 3));
    expect(await store.listNamespaces({ prefix: ["a"], suffix: ["b", "*"] })).toEqual(listed(1, 2));
    const short = [["a"], ["a", "b"], ["a", "x"], ["ab", "c"], ["b", "c"]];
    expect(await store.listNamespaces({ maxDepth: 2 })).toEqual(short);
    expect(await store.listNamespaces({ limit: 2, offset: 1 })).toEqual(tree.slice(1, 3));
    expect(await store.listNamespaces({ limit: 0 })).toEqual([]);
    expect(await store.listNamespaces({ prefix: [], suffix: ["d"] })).toEqual(listed(2));
    await expect(store.listNamespaces({ maxDepth: 0 })).rejects.toThrow("maxDepth must be 1 or more");
    const matchConditions = [{ matchType: "infix" as "prefix", path: ["a"] }];
    await expect(store.batch([{ matchConditions, limit: 1, offset: 0 }])).rejects.toThrow("matchType");
  });

  test("a batch runs in order", async () => {
    const results: unknown[] = await store.batch([
      { namespace: ["a"], key: "k" },
      { namespace: ["a"], key: "k", value: { n: 1 } },
      { namespace: ["a"], key: "k" },
      { namespacePrefix: ["a"], limit: 0 },
      { namespace: ["a"], key: "k", value: { n: 2 } },
      { namespace: ["a", "b"], key: "l", value: { n: 3 } },
      { namespacePrefix: ["a"], filter: { n: { $gte: 2 } } },
      { limit: 10, offset: 0 },
      { namespace: ["a"], key: "k", value: null },
      { namespace: ["a"], key: "k" },
      { namespace: [], key: "k" },
    ] as Operation[]);
    const told = results.map((result) =>
      Array.isArray(result)
        ? result.map((entry) => ("value" in entry ? entry.value.n : entry)).sort()
        : ((result as Item | null | undefined)?.value.n ?? result),
    );
    expect(told).toEqual([
      null,
      undefined,
      1,
      [],
      undefined,
      undefined,
      [2, 3],
      [["a"], ["a", "b"]],
      undefined,
      null,
      null,
    ]);
    expect(await store.batch([])).toEqual([]);
  });

  test("a batch that fails leaves nothing", async () => {
    const put = { namespace: ["a"], key: "k", value: {} };
    await expect(store.batch([put, { namespace: ["a", "b.c"], key: "k", value: {} }])).rejects.toThrow(
      InvalidNamespaceError,
    );
    await expect(store.batch([put, { namespace: ["a"], key: "", value: {} }])).rejects.toThrow(InvalidRequest);
    await expect(store.batch([put, { namespace: ["a"], key: "l", value: { x: new Map() } }])).rejects.toThrow(
      "value is not JSON: value.x is of the class Map",
    );
    for (const value of ["text", [1], undefined] as unknown as object[]) {
      await expect(store.batch([put, { namespace: ["a"], key: "l", value }])).rejects.toThrow("must be an object");
    }
    for (const bad of ["no operation", {}, null] as unknown as Operation[]) {
      await expect(store.batch([put, bad])).rejects.toThrow("not an operation of a store");
    }
    expect(await keys(store, [])).toEqual([]);
  });

  test("more than one call can do", async () => {
    const puts = Array.from({ length: 2500 }, (_, number) => ({
      namespace: [String(number % 1500).padStart(4, "0")],
      key: "k",
      value: { n: number },
    }));
    const results = await store.batch([
      ...puts,
      { namespacePrefix: [], limit: 1800 },
      { limit: 1200, offset: 0 },
      { namespace: ["0000"], key: "k" },
    ] as Operation[]);
    expect(results.slice(0, 2500).every((result) => result === undefined)).toBe(true);
    const [found, spaces, item] = results.slice(2500) as unknown as [Item[], string[][], Item];
    const numbers = found.map((entry) => entry.value.n).sort((a, b) => a - b);
    expect(numbers).toEqual(Array.from({ length: 1500 }, (_, number) => 1000 + number));
    expect(spaces.flat()).toEqual(Array.from({ length: 1200 }, (_, number) => String(number).padStart(4, "0")));
    expect(item.value).toEqual({ n: 1500 });
    const ordered = await store.search([], { filter: { n: { $lt: 2400 } }, limit: 1100, offset: 200 });
    expect(new Set(ordered.map((entry) => entry.namespace[0])).size).toBe(1100);
  });

  /** When an item ends, in milliseconds, asked without beginning its time anew. */
  const ends = async (key: string) => {
    const { item } = await connection.client(StoreService).getItem({ ownerId, namespace: ["a"], key });
    return item?.expiresAt === undefined ? undefined : timestampMs(item.expiresAt);
  };

  test("time to live", async () => {
    const timed = new GrpcStore({ connection, ownerId, ttl: { defaultTtl: 5.5, refreshOnRead: true } });
    await timed.put(["a"], "default", {});
    await timed.put(["a"], "none", {}, undefined, { ttl: null });
    await timed.put(["a"], "own", {}, undefined, { ttl: 0.75 });
    expect(await ends("none")).toBeUndefined();
    for (const [key, minutes] of [
      ["default", 5.5],
      ["own", 0.75],
    ] as const) {
      expect(Math.abs(((await ends(key)) ?? 0) - Date.now() - minutes * 60_000)).toBeLessThan(30_000);
    }
    let before = (await ends("own")) ?? 0;
    await timed.get(["a"], "own", { refreshTtl: false });
    await timed.search(["a"], { refreshTtl: false });
    const still = new GrpcStore({ connection, ownerId, ttl: { refreshOnRead: false } });
    await still.get(["a"], "own");
    await still.search(["a"]);
    expect(await ends("own")).toBe(before);
    for (const read of [
      () => timed.get(["a"], "own"),
      () => timed.search(["a"]),
      () => store.get(["a"], "own"),
      () => still.get(["a"], "own", { refreshTtl: true }),
    ]) {
      await sleep(5);
      await read();
      const after = (await ends("own")) ?? 0;
      expect(after).toBeGreaterThan(before);
      before = after;
    }
    // Without a default a put item stays.
    await still.put(["a"], "own", {});
    expect(await ends("own")).toBeUndefined();
  });

  test("an item whose time is over is nowhere", async () => {
    await store.put(["a", "ended"], "k", { f: 1 }, undefined, { ttl: 0.0001 });
    await store.put(["a"], "stays", { f: 1 }, undefined, { ttl: 60 });
    await sleep(20);
    expect(await store.get(["a", "ended"], "k")).toBeNull();
    expect(await keys(store, ["a"])).toEqual(["stays"]);
    expect(await keys(store, [], { filter: { f: 1 } })).toEqual(["stays"]);
    expect(await store.listNamespaces()).toEqual([["a"]]);
    await expect(store.put(["a"], "k", {}, undefined, { ttl: 0 })).rejects.toThrow("ttl");
  });

  test.each([
    [["a.b"]],
    [[""]],
    [["a", "\0"]],
    [["a", "\n"]],
    [["x".repeat(256)]],
    [Array(33).fill("a")],
    [["a", 1]],
    [["\ud800"]],
    [Array(8).fill("x".repeat(255))],
  ])("a namespace that cannot be: %#", async (namespace: string[]) => {
    await expect(store.put(namespace, "k", {})).rejects.toThrow(InvalidNamespaceError);
    const operations: Operation[] = [
      { namespace, key: "k", value: {} },
      { namespace, key: "k", value: null },
      { namespace, key: "k" },
    ];
    if (namespace.length !== 8) {
      // Too long only with a key.
      operations.push(
        { namespacePrefix: namespace },
        { matchConditions: [{ matchType: "prefix", path: namespace }], limit: 1, offset: 0 },
      );
    }
    for (const operation of operations) {
      await expect(store.batch([operation])).rejects.toThrow(InvalidNamespaceError);
      await expect(store.batch([{ namespace: ["a"], key: "k" }, operation])).rejects.toThrow(InvalidNamespaceError);
    }
  });

  test("namespaces that LangGraph refuses", async () => {
    for (const namespace of [[], ["langgraph"]]) {
      await expect(store.put(namespace, "k", {})).rejects.toThrow(InvalidNamespaceError);
    }
    await expect(store.batch([{ namespace: [], key: "k", value: {} }])).rejects.toThrow(InvalidNamespaceError);
    // Nothing is at the root, and that is no error.
    expect(await store.get([], "k")).toBeNull();
    await store.delete([], "k");
  });

  test("other requests that are refused", async () => {
    for (const call of [
      () => store.put(["a"], "x".repeat(1025), {}),
      () => store.search(["a"], { limit: -1 }),
      () => store.search(["a"], { offset: -1 }),
      () => store.search(["a"], { offset: 10_001 }),
      () => store.listNamespaces({ limit: -1 }),
    ]) {
      await expect(call()).rejects.toThrow(InvalidRequest);
    }
    await expect(store.search(["a"], { limit: 1.5 })).rejects.toThrow("limit must be an integer");
    await expect(store.put(["a"], "\ud800", {})).rejects.toThrow("lone surrogate");
    await expect(store.get(["a"], 7 as unknown as string)).rejects.toThrow("key must be a string");
  });

  test("owners see nothing of each other, and none is guessed", async () => {
    const other = new GrpcStore({ connection, ownerId: newOwner() });
    await store.put(["a"], "k", { whose: "mine" });
    expect(await other.get(["a"], "k")).toBeNull();
    expect(await other.search([])).toEqual([]);
    expect(await other.listNamespaces()).toEqual([]);
    await other.put(["a"], "k", { whose: "theirs" });
    await other.delete(["a"], "k");
    expect((await store.get(["a"], "k"))?.value).toEqual({ whose: "mine" });
    const nobodys = new GrpcStore({ connection });
    for (const call of [
      () => nobodys.get(["a"], "k"),
      () => nobodys.put(["a"], "k", {}),
      () => nobodys.search([]),
      () => nobodys.listNamespaces(),
    ]) {
      await expect(call()).rejects.toThrow("no ownerId: give the store one");
    }
    await using named = connect(backend, "exchange", { ownerId });
    expect(await keys(new GrpcStore({ connection: named }), [])).toEqual(["k"]);
  });

  test("many calls at once", async () => {
    const numbers = Array.from({ length: 300 }, (_, number) => number);
    await Promise.all(numbers.map((number) => store.put(["n", String(number % 7)], String(number), { number })));
    const items = await Promise.all(numbers.map((number) => store.get(["n", String(number % 7)], String(number))));
    expect(items.map((item) => item?.value.number)).toEqual(numbers);
  });

  test("the service is there", async () => {
    await store.setup();
  });
});

test("a ttl that is none is named", () => {
  const made = (ttl: object) => new GrpcStore({ target: "127.0.0.1:1", ownerId: "alice", ttl });
  expect(() => made({ default_ttl: 1 })).toThrow('ttl has the key "default_ttl"; it may have defaultTtl');
  expect(() => made({ defaultTtl: "1" })).toThrow("must be a number of minutes");
});
