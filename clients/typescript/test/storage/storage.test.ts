/** The drop-in interface as a whole: how it is made, whose rows it means, and how it ends. */

import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { Connection } from "../../src/connection.js";
import { OwnerRequired, StorageError } from "../../src/errors.js";
import { createStorage, type Storage } from "../../src/storage/index.js";
import { type Server, Serving } from "../serving.js";
import { BACKENDS, newOwner, WAYS } from "../support.js";
import { inOrder, onBackends, times } from "./support.js";

/** What the runtimes call. */
const INTERFACE = {
  assistants: ["create", "get", "search", "update", "delete", "count", "clear"],
  threads: "create get search update delete count getState addStateSnapshot getHistory clear".split(" "),
  runs: "create get listByThread getByThread deleteByThread getActiveRun updateStatus countByThread clear".split(" "),
  store: ["put", "get", "delete", "search", "listNamespaces", "clear"],
  crons: ["create", "get", "list", "update", "delete", "count", "clear"],
} as const;

describe("making one", () => {
  test("the interface is complete", async () => {
    await using storage = createStorage({ target: "localhost:1" });
    for (const [resource, names] of Object.entries(INTERFACE)) {
      const methods = storage[resource as keyof typeof INTERFACE] as unknown as Record<string, unknown>;
      for (const name of names) {
        expect(methods[name], `${resource}.${name}`).toBeTypeOf("function");
      }
    }
    expect(storage.clearAll).toBeTypeOf("function");
  });

  test("wrong options are refused by name", async () => {
    expect(() => createStorage({ targt: "localhost:1" } as never)).toThrow(/no option "targt"/);
    expect(() => createStorage("localhost:1" as never)).toThrow(/must be an object, such as \{ target:/);
    expect(() => createStorage(null as never)).toThrow(TypeError);
    expect(() => createStorage({ connection: {} } as never)).toThrow("connection must be a Connection");
    await using connection = new Connection({ target: "localhost:1" });
    expect(() => createStorage({ connection, target: "x", token: "y" } as never)).toThrow(
      "target, token belong to the Connection that is given",
    );
    expect(() => createStorage({ connection, ownerId: "" })).toThrow("ownerId must not be empty");
    expect(() => createStorage({ connection, ownerId: 5 } as never)).toThrow("ownerId must be a string");
  });

  test("a given connection stays open, an own one is closed", async () => {
    const owner = newOwner();
    const { target } = inject("servers").memory;
    await using connection = new Connection({ target });
    const first = createStorage({ connection });
    expect(first.connection).toBe(connection);
    await first.threads.create({}, owner);
    await first.close();
    expect(await createStorage({ connection }).threads.count({}, owner)).toBe(1);
    const own = createStorage({ target });
    expect(await own.threads.count({}, owner)).toBe(1);
    await own.close();
    await expect(own.threads.count({}, owner)).rejects.toThrow(StorageError);
  });
});

describe.each(WAYS)("whose rows, by %s", (way) => {
  test.each(BACKENDS)("a call's owner, else the storage's, else the connection's, else none on %s", async (backend) => {
    const [alice, bob, carol] = [newOwner(), newOwner(), newOwner()];
    const { target } = inject("servers")[backend];
    await using connection = new Connection({ target, ownerId: alice, exchange: way === "exchange" });
    const hers = createStorage({ connection });
    const his = createStorage({ connection, ownerId: bob });
    expect((await hers.threads.create({})).metadata).toEqual({ owner: alice });
    expect((await his.threads.create({})).metadata).toEqual({ owner: bob });
    expect((await his.threads.create({}, carol)).metadata).toEqual({ owner: carol });
    expect([await hers.threads.count(), await his.threads.count(), await his.threads.count({}, carol)]).toEqual([
      1, 1, 1,
    ]);
    await using unscoped = createStorage({ target, exchange: way === "exchange" });
    const orphan = await unscoped.threads.create();
    expect(orphan.metadata).toEqual({});
    expect(await hers.threads.get(orphan.thread_id)).toBeNull();
    expect(await unscoped.threads.get(orphan.thread_id)).toStrictEqual(orphan);
    expect(await unscoped.threads.count({ metadata: { owner: alice } })).toBe(1);
    expect(await unscoped.threads.delete(orphan.thread_id)).toBe(true);
  });
});

onBackends((stage) => {
  test("an owner that is none is refused in every method", async () => {
    const { assistants, threads, runs, store, crons } = stage.storage;
    for (const [owner, message] of [
      ["", "ownerId must not be empty"],
      [7, "ownerId must be a string, not number"],
    ] as [never, string][]) {
      const calls = [
        assistants.create({ graph_id: "g" }, owner),
        assistants.get("a", owner),
        assistants.search({}, owner),
        assistants.update("a", {}, owner),
        assistants.delete("a", owner),
        assistants.count({}, owner),
        threads.getState("t", owner),
        threads.addStateSnapshot("t", {}, owner),
        threads.getHistory("t", 1, null, owner),
        runs.create({ thread_id: "t", assistant_id: "a" }, owner),
        runs.listByThread("t", 1, 0, null, owner),
        runs.getByThread("t", "r", owner),
        runs.deleteByThread("t", "r", owner),
        runs.getActiveRun("t", owner),
        runs.updateStatus("r", "error", owner),
        runs.countByThread("t", owner),
        store.put("n", "k", 1, owner),
        store.get("n", "k", owner),
        store.delete("n", "k", owner),
        store.search("n", owner),
        store.listNamespaces(owner),
        crons.list(owner),
        crons.count(owner),
        crons.update("c", owner, {}),
      ];
      for (const call of await Promise.allSettled(calls)) {
        expect(call).toMatchObject({ status: "rejected", reason: { name: "TypeError", message } });
      }
    }
  });

  test("what runtimes hand on is not taken for misspelt", async () => {
    const { assistants, threads, runs, crons } = stage.storage;
    // The keys of LangGraph's API, which a route may pass as they came, and those of the results.
    const others = [
      "input command stream_mode stream_subgraphs stream_resumable on_disconnect feedback_keys webhook interrupt_before",
      "interrupt_after if_not_exists on_completion after_seconds checkpoint checkpoint_id checkpoint_during durability",
      "supersteps ttl owner owner_id user version created_at updated_at next_run_date state next tasks parent_config",
    ].flatMap((line) => line.split(" "));
    const known = { graph_id: "g", assistant_id: `a-${stage.alice}`, schedule: "@daily" };
    const data = { ...Object.fromEntries(others.map((name) => [name, "other"])), ...known };
    expect((await assistants.create(data, stage.alice)).graph_id).toBe("g");
    const { thread_id } = await threads.create({ ...data, thread_id: `t-${stage.alice}` }, stage.alice);
    expect((await runs.create({ ...data, thread_id }, stage.alice)).status).toBe("pending");
    expect((await crons.create(data, stage.alice)).schedule).toBe("@daily");
  });

  test("many calls at once", async () => {
    const { store } = stage.storage;
    await times(200, (index) => store.put("many", String(index).padStart(3, "0"), index, stage.alice));
    const items = await store.search("many", stage.alice, null, 1_000);
    expect(items.map(({ value }) => value)).toEqual(Array.from({ length: 200 }, (_, index) => index));
  });
});

// Truncate touches every owner, so these have servers of their own.
describe.each(BACKENDS)("clearing, and calls without an owner, on %s", (backend) => {
  let serving: Serving;
  let server: Server;
  let storage: Storage;
  const alice = newOwner();

  beforeAll(async () => {
    serving = new Serving();
    server = await serving.start({ backend });
    storage = createStorage({ target: server.target });
  });
  afterAll(async () => {
    await storage.close();
    await serving.close();
  });

  async function fill(): Promise<void> {
    await storage.assistants.create({ graph_id: "g" }, alice);
    const { thread_id } = await storage.threads.create({}, alice);
    await storage.runs.create({ thread_id, assistant_id: "a" }, alice);
    await storage.store.put("ns", "k", 1, alice);
    await storage.crons.create({ assistant_id: "a", schedule: "@daily" }, alice);
  }

  async function counts(): Promise<number[]> {
    const { assistants, threads, runs, store, crons } = storage;
    const [thread] = await threads.search({}, alice);
    return [
      await assistants.count({}, alice),
      await threads.count({}, alice),
      thread === undefined ? 0 : await runs.countByThread(thread.thread_id, alice),
      (await store.listNamespaces(alice)).length,
      await crons.count(alice),
    ];
  }

  test("clear empties one resource, clearAll all", async () => {
    await fill();
    expect(await counts()).toEqual([1, 1, 1, 1, 1]);
    await storage.store.clear();
    expect(await counts()).toEqual([1, 1, 1, 0, 1]);
    await storage.runs.clear();
    expect(await counts()).toEqual([1, 1, 0, 0, 1]);
    await storage.crons.clear();
    await storage.threads.clear();
    expect(await counts()).toEqual([1, 0, 0, 0, 0]);
    await storage.assistants.clear();
    expect(await counts()).toEqual([0, 0, 0, 0, 0]);
    await fill();
    await storage.clearAll();
    expect(await counts()).toEqual([0, 0, 0, 0, 0]);
  });

  test("without an owner every resource works unscoped, where the server allows it", async () => {
    const { assistants, threads, runs, store, crons } = storage;
    const assistant = await assistants.create({ graph_id: "g" });
    const thread = await threads.create();
    const run = await runs.create({ thread_id: thread.thread_id, assistant_id: assistant.assistant_id });
    const item = await store.put("ns", "k", 1);
    const cron = await crons.create({ assistant_id: assistant.assistant_id, schedule: "@daily" });
    expect([assistant, thread, run, cron].map(({ metadata }) => metadata)).toEqual([{}, {}, {}, {}]);
    expect(await assistants.search()).toStrictEqual([assistant]);
    expect(await assistants.count()).toBe(1);
    expect(await threads.search()).toStrictEqual([thread]);
    expect(await threads.addStateSnapshot(thread.thread_id, { n: 1 })).toBe(true);
    expect(await threads.getHistory(thread.thread_id)).toHaveLength(1);
    expect(await runs.listByThread(thread.thread_id)).toStrictEqual([run]);
    expect(await runs.getActiveRun(thread.thread_id)).toStrictEqual(run);
    expect(await runs.getByThread(thread.thread_id, run.run_id)).toStrictEqual(run);
    expect(await store.get("ns", "k")).toStrictEqual(item);
    expect(await store.search("ns")).toStrictEqual([item]);
    expect(await store.listNamespaces()).toEqual(["ns"]);
    expect(await crons.list()).toStrictEqual([cron]);
    expect(await crons.count()).toBe(1);
    for (const found of [
      await assistants.get(assistant.assistant_id, alice),
      await threads.get(thread.thread_id, alice),
      await runs.get(run.run_id, alice),
      await store.get("ns", "k", alice),
      await crons.get(cron.cron_id, alice),
    ]) {
      expect(found).toBeNull();
    }
  });

  test("a server that wants an owner says so", async () => {
    const strict = await serving.start({ backend, environment: { STORAGE_ANONYMOUS_RIGHTS: "" } });
    await using refused = createStorage({ target: strict.target });
    await expect(refused.threads.create()).rejects.toThrow(OwnerRequired);
    await expect(refused.threads.get("t")).rejects.toThrow(OwnerRequired);
    await expect(refused.store.get("n", "k")).rejects.toThrow(OwnerRequired);
    await expect(refused.clearAll()).rejects.toThrow(StorageError);
    expect(await refused.threads.get("t", alice)).toBeNull();
  });

  test("rows too large together for one answer are read in smaller pages", async () => {
    const small = await serving.start({ backend, environment: { STORAGE_MESSAGE_BYTES: "2000000" } });
    await using cut = createStorage({ target: small.target, ownerId: alice });
    const text = "x".repeat(300_000);
    const made = await inOrder(20, (index) => cut.threads.create({ values: { index, text } }));
    expect(await cut.threads.search({ limit: 100 })).toStrictEqual(made.reverse());
    for (let index = 10; index < 30; index += 1) {
      await cut.store.put("large", String(index), { index, text });
    }
    const items = await cut.store.search("large", null, null, 100);
    expect(items.map(({ value }) => value)).toEqual(
      Array.from({ length: 20 }, (_, index) => ({ index: index + 10, text })),
    );
  });
});
