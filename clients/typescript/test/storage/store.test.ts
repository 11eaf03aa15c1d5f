/** The drop-in interface for the long-term store. */

import { expect, test } from "vitest";
import { InvalidRequest } from "../../src/errors.js";
import type { Namespace } from "../../src/storage/index.js";
import { INSTANT, inOrder, onBackends, times } from "./support.js";

onBackends((stage) => {
  test("put and get", async () => {
    const { store } = stage.storage;
    const item = await store.put(["users", "u1"], "k", { a: 1 }, stage.alice, { m: 1 });
    expect(item).toStrictEqual({
      namespace: "users.u1",
      key: "k",
      value: { a: 1 },
      metadata: { m: 1 },
      created_at: expect.stringMatching(INSTANT),
      updated_at: item.created_at,
    });
    for (const namespace of [["users", "u1"], "users.u1", ["users.u1"], item.namespace]) {
      expect(await store.get(namespace, "k", stage.alice)).toStrictEqual(item);
    }
  });

  test.each([
    null,
    true,
    0,
    2n ** 80n,
    -(2n ** 53n),
    9007199254740991,
    -1.5,
    1e-7,
    "123",
    "9007199254740993",
    "{}",
    "",
    "ä\u2028😀",
    [],
    [1, { a: null }],
    {},
    { n: 10n ** 30n, deep: [{ n: -(10n ** 30n) }] },
  ])("any JSON value comes back as it was: %o", async (value) => {
    const { store } = stage.storage;
    expect((await store.put("ns", "k", value, stage.alice)).value).toStrictEqual(value);
    expect((await store.get("ns", "k", stage.alice))?.value).toStrictEqual(value);
    expect((await store.search("ns", stage.alice))[0]?.value).toStrictEqual(value);
  });

  test("large numbers with an exponent keep their value; the service writes them as integers", async () => {
    const { store } = stage.storage;
    await store.put("ns", "k", [2 ** 60, 1e21], stage.alice);
    const found = (await store.get("ns", "k", stage.alice))?.value as unknown[];
    expect(found.map(Number)).toEqual([2 ** 60, 1e21]);
  });

  test("an upsert keeps created_at and metadata", async () => {
    const { store } = stage.storage;
    const first = await store.put("ns", "k", 1, stage.alice, { m: 1 });
    const second = await store.put("ns", "k", 2, stage.alice);
    expect(second).toMatchObject({ created_at: first.created_at, metadata: { m: 1 }, value: 2 });
    expect(second.updated_at > first.updated_at).toBe(true);
    const third = await store.put("ns", "k", 3, stage.alice, {});
    expect(third.metadata).toEqual({});
    expect(await store.get("ns", "k", stage.alice)).toStrictEqual(third);
  });

  test("absent and foreign are null", async () => {
    const { store } = stage.storage;
    await store.put("ns", "k", 1, stage.alice);
    const cases: [Namespace, string, string][] = [
      ["ns", "k", stage.bob],
      ["ns", "other", stage.alice],
      ["other", "k", stage.alice],
      ["ns.k", "k", stage.alice],
      ["", "k", stage.alice],
      ["a..b", "k", stage.alice],
      ["ns", "", stage.alice],
      [[], "k", stage.alice],
      ["ns", "k".repeat(2_000), stage.alice],
    ];
    for (const [namespace, key, owner] of cases) {
      expect(await store.get(namespace, key, owner)).toBeNull();
      expect(await store.delete(namespace, key, owner)).toBe(false);
    }
    expect(await store.search("ns", stage.bob)).toEqual([]);
    expect(await store.listNamespaces(stage.bob)).toEqual([]);
    await store.put("ns", "k", 2, stage.bob);
    expect(await store.delete("ns", "k", stage.bob)).toBe(true);
    expect((await store.get("ns", "k", stage.alice))?.value).toBe(1);
    expect(await store.delete("ns", "k", stage.alice)).toBe(true);
    expect(await store.delete("ns", "k", stage.alice)).toBe(false);
  });

  test("a search is of one namespace and by key", async () => {
    const { store } = stage.storage;
    for (const key of ["b", "a", "a_1", "ab", "Z", "ä"]) {
      await store.put(["n", "s"], key, key, stage.alice);
    }
    for (const namespace of ["n.s.below", "n", "n.sx"]) {
      await store.put(namespace, "a", 1, stage.alice);
    }
    await store.put("n.s", "a", 1, stage.bob);
    const keys = async (namespace: Namespace = "n.s", prefix?: string | null, limit?: number, offset?: number) =>
      (await store.search(namespace, stage.alice, prefix, limit, offset)).map((item) => {
        expect(item.namespace).toBe("n.s");
        return item.key;
      });
    const everything = ["Z", "a", "a_1", "ab", "b", "ä"];
    expect(await keys()).toEqual(everything);
    expect(await keys(["n", "s"])).toEqual(everything);
    expect(await keys("n.s", "a")).toEqual(["a", "a_1", "ab"]);
    expect(await keys("n.s", "a_")).toEqual(["a_1"]);
    expect(await keys("n.s", "%")).toEqual([]);
    expect(await keys("n.s", "")).toEqual(everything);
    expect(await keys("n.s", null, 2, 1)).toEqual(["a", "a_1"]);
    expect(await keys("n.s", null, 0)).toEqual(["Z"]);
    expect(await keys("n.s", null, 100_000, -5)).toEqual(everything);
    for (const namespace of ["absent", "", [], "a..b"]) {
      expect(await keys(namespace)).toEqual([]);
    }
  });

  test("a search gives ten by default", async () => {
    const { store } = stage.storage;
    await inOrder(12, (index) => store.put("ns", `k${String(index).padStart(2, "0")}`, index, stage.alice));
    expect((await store.search("ns", stage.alice)).map(({ value }) => value)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  });

  test("a search goes on past the largest page", async () => {
    const { store } = stage.storage;
    await times(1_010, (index) => store.put("ns", String(index).padStart(4, "0"), index, stage.alice));
    for (const [limit, offset, count] of [
      [1_005, 0, 1_005],
      [5_000, 0, 1_010],
      [2_000, 8, 1_002],
      [1_000, 0, 1_000],
    ] as const) {
      const found = await store.search("ns", stage.alice, null, limit, offset);
      expect(found.map(({ value }) => value)).toEqual(Array.from({ length: count }, (_, index) => offset + index));
    }
    for (const offset of [10_001, 1e15]) {
      await expect(store.search("ns", stage.alice, null, 10, offset)).rejects.toThrow(InvalidRequest);
    }
  });

  test("namespaces come joined and in order, as many as there are", async () => {
    const { store } = stage.storage;
    for (const namespace of ["b", ["a", "b"], "a", "a.b.c", "a-b", "😀", "\uff5e"]) {
      await store.put(namespace, "k", 1, stage.alice);
      await store.put(namespace, "k2", 1, stage.alice);
    }
    await store.put("bobs", "k", 1, stage.bob);
    const names = await store.listNamespaces(stage.alice);
    expect(names).toEqual(["a", "a-b", "a.b", "a.b.c", "b", "\uff5e", "😀"]);
    for (const name of names) {
      expect(await store.search(name, stage.alice)).toHaveLength(2);
    }
    await times(1_005, (index) => store.put(["many", `n${String(index).padStart(4, "0")}`], "k", 1, stage.bob));
    const many = await store.listNamespaces(stage.bob);
    expect(many).toHaveLength(1_006);
    expect([many[0], many[1], many.at(-1)]).toEqual(["bobs", "many.n0000", "many.n1004"]);
  });

  test("wrong arguments are refused by name", async () => {
    const { store } = stage.storage;
    const put = (namespace: unknown, key: unknown, value: unknown, metadata?: unknown) =>
      store.put(namespace as never, key as never, value, stage.alice, metadata as never);
    await expect(put(5, "k", 1)).rejects.toThrow("namespace must be an array of strings or a string, not number");
    await expect(put(["a", 1], "k", 1)).rejects.toThrow("namespace must be a string, not number");
    await expect(put("ns", null, 1)).rejects.toThrow("key must be a string, not null");
    await expect(put("ns", "k", undefined)).rejects.toThrow("value is not JSON: value is undefined");
    await expect(put("ns", "k", { a: [() => 1] })).rejects.toThrow("value is not JSON: value.a[0] is a function");
    await expect(put("ns", "k", 1, [])).rejects.toThrow("metadata must be an object, not array");
    await expect(store.search("ns", stage.alice, null, "1" as never)).rejects.toThrow("limit must be an integer");
    await expect(store.search("ns", stage.alice, 5 as never)).rejects.toThrow("prefix must be a string");
    for (const [namespace, key] of [
      ["", "k"],
      ["a..b", "k"],
      ["ns", ""],
    ]) {
      await expect(put(namespace, key, 1)).rejects.toThrow(InvalidRequest);
    }
    expect(await store.listNamespaces(stage.alice)).toEqual([]);
  });
});
