/** Search by meaning: what the store embeds, when, and what it finds; through real servers, on both backends. */

import { setTimeout as sleep } from "node:timers/promises";
import type { Operation, SearchItem } from "@langchain/langgraph-checkpoint";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Connection } from "../../src/index.js";
import { GrpcStore, type StoreIndexConfig } from "../../src/langgraph/index.js";
import { pathSteps, textsAt } from "../../src/langgraph/text_paths.js";
import { BACKENDS, connect, newOwner } from "../support.js";
import { DIMS, keys, Recorder } from "./stores.js";

describe.each(BACKENDS)("%s", (backend) => {
  let connection: Connection;
  let ownerId: string;

  const stored = (more: Partial<StoreIndexConfig> = {}, owner = ownerId) =>
    new GrpcStore({ connection, ownerId: owner, index: { dims: DIMS, embeddings: new Recorder(), ...more } });

  beforeEach(() => {
    connection = connect(backend);
    ownerId = newOwner();
  });

  afterEach(() => connection.close());

  test("the nearest first", async () => {
    const store = stored({ fields: ["text"] });
    const texts = { tea: "likes green tea", coffee: "likes black coffee", bike: "rides a bike", none: "" };
    for (const [key, text] of Object.entries(texts)) {
      await store.put(["m"], key, { text, length: text.length });
    }
    await store.put(["m"], "other", { note: "green tea" });
    await store.put(["mm"], "elsewhere", { text: "green tea" });
    const found = await store.search(["m"], { query: "green tea" });
    // What has no text is not found by one; a vector of zeros is as far as what has no word in common.
    expect(found.map((item) => item.key)).toEqual(["tea", "bike", "coffee", "none"]);
    expect(found[0]?.score).toBeCloseTo(2 / Math.sqrt(2 * 3), 5);
    expect(found.slice(1).map((item) => item.score)).toEqual([0, 0, 0]);
    expect(found[0]?.value).toEqual({ text: "likes green tea", length: 15 });
    expect(await keys(store, ["m"], { query: "coffee", filter: { length: { $gt: 15 } } })).toEqual(["coffee"]);
    expect(await keys(store, ["m"], { query: "tea", limit: 1, offset: 1 })).toEqual(["bike"]);
    expect(await keys(store, [], { query: "green tea", limit: 2 })).toEqual(["elsewhere", "tea"]);
    // Without a query the newest comes first, and nothing has a score.
    const plain = await store.search(["m"], { limit: 2 });
    expect(plain.map((item) => [item.key, item.score])).toEqual([
      ["other", undefined],
      ["none", undefined],
    ]);
  });

  test("what of a value is embedded", async () => {
    const value = { title: "one", parts: [{ text: "two" }, { text: "three" }], deep: { er: "four" }, more: "five" };
    const fields: [false | string[] | undefined, string[]][] = [
      [undefined, ["one", "two", "three"]],
      [false, []],
      [["deep.er"], ["four"]],
      [
        ["parts[-1].text", "title"],
        ["three", "one"],
      ],
      [["{title,more}"], ["one", "five"]],
      [["absent", "parts[9].text"], []],
      [[], []],
      [["$"], ["one", "two", "three", "four", "five"]],
    ];
    const store = stored({ fields: ["title", "parts[*].text"] });
    for (const [paths, words] of fields) {
      // Each put leaves nothing of the one before.
      await store.put(["a"], "k", value, paths);
      for (const word of ["one", "two", "three", "four", "five"]) {
        const found = await store.search(["a"], { query: word });
        expect(found.length > 0, `${paths} ${word}`).toBe(words.length > 0);
        expect((found[0]?.score ?? 0) > 0, `${paths} ${word}`).toBe(words.includes(word));
      }
    }
  });

  test("one call for all texts of a batch", async () => {
    const recorder = new Recorder();
    const store = stored({ embeddings: recorder, fields: ["text", "more"] });
    const results = await store.batch([
      { namespace: ["a"], key: "1", value: { text: "one", more: "two" } },
      { namespacePrefix: ["a"], query: "one" },
      { namespace: ["a"], key: "2", value: { text: "two" } },
      { namespace: ["a"], key: "2", value: { text: "three" }, index: false },
      { namespacePrefix: ["a"], query: "one" },
      { namespacePrefix: ["a"], query: "two" },
      { namespacePrefix: ["a"], query: "" },
      { namespace: ["a"], key: "1", value: null },
      { namespace: ["a"], key: "2" },
    ] as Operation[]);
    expect(recorder.calls).toEqual([
      ["documents", "one", "two"],
      ["query", "one"],
      ["query", "two"],
    ]);
    const found = [1, 4, 5, 6].map((number) =>
      (results[number] as unknown as SearchItem[]).map((item) => [item.key, item.score]),
    );
    // In order: the second put of "2" has no vector.
    expect(found).toEqual([
      [["1", 1]],
      [["1", 1]],
      [["1", 1]],
      [
        ["2", undefined],
        ["1", undefined],
      ],
    ]);
    recorder.calls.length = 0;
    await store.put(["a"], "2", { text: "x" }, false);
    await store.search([]);
    expect(recorder.calls).toEqual([]);
  });

  test.each([
    ["cosine", { same: 1, twice: 1, apart: 0 }],
    ["l2", { same: 0, twice: -1, apart: -Math.sqrt(2) }],
    ["inner_product", { twice: 2, same: 1, apart: 0 }],
  ] as const)("distance %s", async (distanceMetric, scores) => {
    const store = stored({ distanceMetric, fields: ["text"] });
    for (const [key, text] of Object.entries({ same: "word", twice: "word word", apart: "another" })) {
      await store.put(["a"], key, { text });
    }
    const found = await store.search(["a"], { query: "word" });
    expect(found.map((item) => item.key)).toEqual(Object.keys(scores));
    found.forEach((item) => {
      expect(item.score).toBeCloseTo(scores[item.key as keyof typeof scores], 5);
    });
  });

  test("page fifty", async () => {
    const turned = new Recorder((text) => [Math.cos(Number(text) / 200), Math.sin(Number(text) / 200)]);
    const store = stored({ dims: 2, embeddings: turned, fields: ["n[*]"] });
    // Not in the order of their vectors, two of them in an item.
    const numbers = Array.from({ length: 505 }, (_, number) => (number * 199) % 505);
    await store.batch(numbers.map((n) => ({ namespace: ["a"], key: String(n), value: { n: [n, 600] } })));
    const page = await keys(store, ["a"], { query: "0", limit: 10, offset: 490 });
    expect(page).toEqual(Array.from({ length: 10 }, (_, number) => String(490 + number)));
    expect(await keys(store, ["a"], { query: "0", limit: 10, offset: 500 })).toHaveLength(5);
    const all = await keys(store, [], { query: "0", limit: 1200 });
    expect(all).toEqual(Array.from({ length: 505 }, (_, number) => String(number)));
  });

  test("nothing crosses between owners", async () => {
    const mine = stored();
    const theirs = stored({}, newOwner());
    await mine.put(["a"], "mine", { text: "far away" });
    await theirs.put(["a"], "theirs", { text: "near" });
    await theirs.put(["a"], "mine", { text: "near" });
    const found = await mine.search([], { query: "near" });
    expect(found.map((item) => [item.key, item.value])).toEqual([["mine", { text: "far away" }]]);
  });

  test("items whose time is over are not found", async () => {
    const store = stored();
    await store.put(["a"], "ended", { text: "near" }, undefined, { ttl: 0.0001 });
    await store.put(["a"], "stays", { text: "far" });
    await sleep(20);
    expect(await keys(store, [], { query: "near" })).toEqual(["stays"]);
  });

  test("embeddings that are not the index's", async () => {
    const none = new Recorder();
    none.embedDocuments = async () => [];
    const bad: [Recorder, string][] = [
      [none, "0 vectors for 1 texts"],
      [new Recorder(() => [1, 1, 1]), `3 numbers, and its dims are ${DIMS}`],
      [new Recorder(() => Array(DIMS).fill(Number.NaN)), "vectors"],
    ];
    for (const [embeddings, message] of bad) {
      const store = stored({ embeddings });
      await expect(store.put(["a"], "k", { text: "one" })).rejects.toThrow(message);
      expect(await keys(store, [])).toEqual([]);
    }
    expect(() => stored({ distanceMetric: "hamming" as "cosine" })).toThrow("distanceMetric must be one of cosine");
    expect(() => stored({ embeddings: {} as Recorder })).toThrow("embedDocuments");
    expect(() => stored({ dims: 1.5 })).toThrow("dims");
    expect(() => stored({ embed: 1 } as object)).toThrow('index has the key "embed"; it may have dims, embeddings');
  });

  test("without an index a query is not heeded", async () => {
    const plain = new GrpcStore({ connection, ownerId });
    await plain.put(["a"], "1", { text: "one" }, ["text"]);
    await plain.put(["a"], "2", { text: "two" });
    expect(await keys(plain, ["a"], { query: "one" })).toEqual(["2", "1"]);
    expect(await keys(stored(), [], { query: "one" })).toEqual([]);
  });
});

test("texts at paths", () => {
  const value = { a: { b: "x", n: 1.5, no: null, yes: true }, l: ["p", { q: "r" }, ["s"]], "d e": "t", big: 2n ** 70n };
  const expected: [string, string[]][] = [
    ["a.b", ["x"]],
    ["a.n", ["1.5"]],
    ["a.no", []],
    ["a.yes", ["true"]],
    ["a.absent.more", []],
    ["l[0]", ["p"]],
    ["l[-1][0]", ["s"]],
    ["l[9]", []],
    ["l[x]", []],
    ["l[*].q", ["r"]],
    ["l.q", []],
    ["*.b", ["x"]],
    ["a.*", ["x", "1.5", "true"]],
    ["{a.b, d e}", ["x", "t"]],
    ["d e", ["t"]],
    ["big", [String(2n ** 70n)]],
    ["l[1]", ['{\n  "q": "r"\n}']],
    ["a[0]", []],
    ["toString", []],
  ];
  for (const [path, texts] of expected) {
    expect(textsAt(value, pathSteps(path)), path).toEqual(texts);
  }
  expect(textsAt({ b: 1, a: [2n ** 70n] }, pathSteps("$"))).toEqual([
    '{\n  "b": 1,\n  "a": [\n    "1180591620717411303424"\n  ]\n}',
  ]);
});
