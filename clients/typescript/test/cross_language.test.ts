/** What the Python client writes, this one reads with equal content, and the other way round: every resource, every kind of value. */

import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { newId } from "../src/index.js";
import { parseJson, writeJson } from "../src/json.js";
import { createStorage, type Storage } from "../src/storage/index.js";
import { callAsJson } from "./scenario.js";
import type { Row } from "./scenario_json.js";
import { BACKENDS, connect, newOwner, WAYS, type Way } from "./support.js";

const ROOT = fileURLToPath(new URL("../../../", import.meta.url));

/** A client: the drop-in storage by the names that both languages have, and the generated client with JSON. */
interface Client {
  storage(resource: string, method: string, ...values: unknown[]): Promise<unknown>;
  call(method: string, request: Row): Promise<Row>;
}

/** The Python client, in a process of its own. */
class PythonClient implements Client {
  private readonly process: ChildProcessWithoutNullStreams;
  private readonly waiting: ((line: string) => void)[] = [];

  constructor(target: string, way: Way) {
    this.process = spawn(`${ROOT}.venv/bin/python`, ["-m", "tests.clients.cross_language", target, way], { cwd: ROOT });
    this.process.stderr.pipe(process.stderr);
    createInterface(this.process.stdout).on("line", (line) => this.waiting.shift()?.(line));
    this.process.once("exit", () => {
      for (const tell of this.waiting.splice(0)) {
        tell('{"error": "Ended", "message": "the Python process has ended"}');
      }
    });
  }

  storage(resource: string, method: string, ...values: unknown[]): Promise<unknown> {
    return this.ask({ storage: [resource, method], arguments: values });
  }

  call(method: string, request: Row): Promise<Row> {
    return this.ask({ method, request }) as Promise<Row>;
  }

  async close(): Promise<void> {
    const ended = new Promise((done) => this.process.once("exit", done));
    this.process.stdin.end();
    await ended;
  }

  private async ask(command: object): Promise<unknown> {
    const answer = new Promise<string>((done) => this.waiting.push(done));
    this.process.stdin.write(`${writeJson(command)}\n`);
    const { result, error, message } = parseJson(await answer) as Record<string, unknown>;
    if (error !== undefined) {
      throw new Error(`${error}: ${message}`);
    }
    return result;
  }
}

/** This client. */
class TypeScriptClient implements Client {
  private readonly made: Storage;

  constructor(backend: "memory" | "postgres", way: Way) {
    this.made = createStorage({ target: inject("servers")[backend].target, exchange: way === "exchange" });
  }

  storage(resource: string, method: string, ...values: unknown[]): Promise<unknown> {
    const name = method.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
    const found = this.made[resource as "threads"] as unknown as Record<
      string,
      (...values: unknown[]) => Promise<unknown>
    >;
    return found[name]!.call(found, ...values);
  }

  call(method: string, request: Row): Promise<Row> {
    return callAsJson(this.made.connection, method, request);
  }

  close(): Promise<void> {
    return this.made.close();
  }
}

/** A value that is nested so deep, the value itself counted. */
function nested(depth: number): unknown {
  let value: unknown = 2n ** 53n + 1n;
  for (let level = 0; level < depth; level += 1) {
    value = level % 2 ? [value] : { a: value };
  }
  return value;
}

/** A value with everything that a language might lose. Integers outside of ±(2^53 - 1) are bigints here and plain integers in Python. */
const EVERYTHING = {
  integers: [
    0,
    -1,
    2 ** 31,
    2 ** 53 - 1,
    -(2 ** 53 - 1),
    2n ** 53n,
    2n ** 53n + 1n,
    -(2n ** 53n) - 1n,
    2n ** 63n,
    2n ** 64n + 1n,
  ],
  huge: 10n ** 400n + 1n,
  fractions: [0.1, -1.5, 1e-7, 5e-324, 0.30000000000000004, 123456789.125],
  texts: ["", " ", "é", "e\u0301", "שלום", "مرحبا", "日本語", "\u{1f600}", "👩‍👩‍👧", "\u{10000}", "\u{10ffff}"],
  edges: "\u0001\u001f\u007f\u0085\u00a0\u200b\u200d\u2028\u2029\u202e\ud7ff\ue000\ufeff\ufffd\ufffe\uffff",
  escapes: "\"\\/\b\f\n\r\t'`$%_{}",
  nothing: null,
  truths: [true, false],
  empty: [{}, [], "", [[]], [{}], { a: {} }],
  keys: { "": 1, " ": 2, "a.b": 3, é: 4, "\u{1f600}": 5, "10": 6, "9": 7, constructor: 8, toString: 9 },
  long: "é\u{1f600}".repeat(30_000),
  numbersAsTexts: ["9007199254740993", "1e400", "null", "-0"],
};
/** What a metadata filter need not look at. */
const LABELS = { tag: "é\u{1f600}", n: 2n ** 53n + 1n, nothing: null, empty: {}, list: [1n * 2n ** 70n, null] };
const END = "2100-06-01T12:00:00.123456Z";

/** A row of each kind, without its id. */
const ROWS: Record<string, { id: string; data: Record<string, unknown>; change: Record<string, unknown> }> = {
  assistants: {
    id: "assistant_id",
    data: {
      graph_id: "graph é",
      name: "name \u{1f600}",
      description: "e\u0301\n",
      // Python gives every configuration these three.
      config: { tags: ["x"], recursion_limit: 2n ** 53n + 1n, configurable: { deep: nested(90) } },
      context: EVERYTHING,
      metadata: LABELS,
    },
    change: { name: "changed", context: {} },
  },
  threads: {
    id: "thread_id",
    data: { metadata: LABELS, config: { a: nested(99) }, status: "busy", values: EVERYTHING, interrupts: nested(100) },
    change: { values: [null], status: "interrupted", interrupts: [2n ** 65n] },
  },
  runs: {
    id: "run_id",
    data: {
      thread_id: "t é",
      assistant_id: "a",
      status: "running",
      metadata: LABELS,
      kwargs: EVERYTHING,
      multitask_strategy: "enqueue",
    },
    change: { kwargs: { n: 2n ** 53n + 1n } },
  },
  crons: {
    id: "cron_id",
    data: {
      assistant_id: "a",
      thread_id: "t",
      schedule: "30 2 * * MON-FRI",
      timezone: "Europe/Vienna",
      end_time: END,
      user_id: "é",
      payload: EVERYTHING,
      metadata: LABELS,
    },
    change: { payload: { n: -(2n ** 53n) - 1n }, enabled: false },
  },
};

describe.each(BACKENDS)("%s", (backend) => {
  describe.each(WAYS)("%s", (way) => {
    const clients: Record<string, Client> = {};
    let close: () => Promise<unknown>;

    beforeAll(() => {
      const python = new PythonClient(inject("servers")[backend].target, way);
      const typescript = new TypeScriptClient(backend, way);
      Object.assign(clients, { python, typescript });
      close = () => Promise.all([python.close(), typescript.close()]);
    });

    afterAll(() => close());

    describe.each([
      ["typescript", "python"],
      ["python", "typescript"],
    ])("%s writes and %s reads", (writes, reads) => {
      const writer: Client = {
        storage: (...of) => clients[writes]!.storage(...of),
        call: (...of) => clients[writes]!.call(...of),
      };
      const reader: Client = {
        storage: (...of) => clients[reads]!.storage(...of),
        call: (...of) => clients[reads]!.call(...of),
      };

      test.each(Object.entries(ROWS))("%s of the drop-in storage", async (resource, { id, data, change }) => {
        const owner = newOwner();
        const name = newId();
        const row = (await writer.storage(resource, "create", { [id]: name, ...data }, owner)) as Row;
        expect(row).toMatchObject({ [id]: name, ...data, metadata: { ...LABELS, owner } });
        expect(row.created_at).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/);
        expect(await reader.storage(resource, "get", name, owner)).toEqual(row);
        // Crons have the owner before what is changed.
        const changes = { ...change, metadata: { by: reads, nothing: 2n ** 60n } };
        const changed = await reader.storage(
          resource,
          "update",
          name,
          ...(resource === "crons" ? [owner, changes] : [changes, owner]),
        );
        expect(changed).toMatchObject({ ...change, metadata: { ...LABELS, ...changes.metadata, owner } });
        expect(await writer.storage(resource, "get", name, owner)).toEqual(changed);
        expect(await writer.storage(resource, "get", name, newOwner())).toBeNull();
        expect(await writer.storage(resource, "delete", name, owner)).toBe(true);
        expect(await reader.storage(resource, "get", name, owner)).toBeNull();
        expect(await reader.storage(resource, "delete", name, owner)).toBe(false);
      });

      test("states of the drop-in storage", async () => {
        const owner = newOwner();
        const id = newId();
        await writer.storage("threads", "create", { thread_id: id }, owner);
        const states = [
          {
            values: EVERYTHING,
            next: ["a", ""],
            tasks: [nested(99)],
            metadata: LABELS,
            interrupts: [{ value: 2n ** 53n + 1n }],
          },
          { values: [null], next: [], tasks: [], metadata: {}, interrupts: [] },
          { values: [], parent_checkpoint: { checkpoint_id: "x", n: 2n ** 64n } },
        ];
        for (const state of states) {
          expect(await writer.storage("threads", "add_state_snapshot", id, state, owner)).toBe(true);
        }
        // The two languages have the owner of this call in different places.
        const history = (name: string) =>
          clients[name]!.storage(
            "threads",
            "get_history",
            ...(name === "python" ? [id, owner] : [id, null, null, owner]),
          );
        const found = await history(reads);
        expect(found).toMatchObject([...states].reverse());
        expect(await history(writes)).toEqual(found);
        expect(await reader.storage("threads", "get_state", id, owner)).toEqual((found as unknown[])[0]);
        expect(await writer.storage("threads", "get_state", id, owner)).toEqual((found as unknown[])[0]);
      });

      const values = [EVERYTHING, ...Object.values(EVERYTHING), nested(100), 2n ** 53n + 1n, null, [], {}, "", false];

      test("items of the drop-in storage", async () => {
        const owner = newOwner();
        // Python writes the times of items with their offset, as the runtimes do.
        const inUtc = (value: unknown) => parseJson(writeJson(value).replaceAll("+00:00", "Z"));
        for (const [place, value] of values.entries()) {
          const item = await writer.storage("store", "put", ["é", "a b"], `k${place}`, value, owner, LABELS);
          expect(item).toMatchObject({ namespace: "é.a b", key: `k${place}`, value, metadata: LABELS });
          const found = await reader.storage("store", "get", "é.a b", `k${place}`, owner);
          expect(inUtc(found)).toEqual(inUtc(item));
        }
        const listed = await writer.storage("store", "search", "é.a b", owner, "k", 100);
        expect(listed).toHaveLength(values.length);
        expect(inUtc(await reader.storage("store", "search", "é.a b", owner, "k", 100))).toEqual(inUtc(listed));
        expect(await reader.storage("store", "list_namespaces", owner)).toEqual(["é.a b"]);
        expect(await reader.storage("store", "get", "é.a b", "none", owner)).toBeNull();
      });

      test("rows, items and checkpoints of the generated clients", async () => {
        const owner_id = newOwner();
        const id = newId();
        const text = writeJson(EVERYTHING);
        const value = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte)).toString("base64");
        const document = { v: 4, channel_versions: { é: "1" }, n: 2n ** 53n + 1n, deep: nested(99) };
        const kind = { record_only: true, assistant_id: "a", thread_id: id };
        const [checkpoint, metadata] = [writeJson(document), writeJson(LABELS)];
        const writes: [string, Row][] = [
          ["CreateAssistant", { assistant_id: id, graph_id: "g", config: text, context: text, metadata }],
          ["CreateThread", { thread_id: id, values: text, config: text, ttl: { minutes: 1.5 } }],
          ["AddThreadState", { thread_id: id, checkpoint_id: "c", values: text, next: ["é"], tasks: `[${text}]` }],
          ["CreateRun", { run_id: id, ...kind, kwargs: text, multitask_strategy: "MULTITASK_STRATEGY_ROLLBACK" }],
          ["CreateCron", { cron_id: id, ...kind, schedule: "@daily", end_time: END, payload: text }],
          ["PutItem", { namespace: ["a"], key: "k", value: text, metadata, ttl_minutes: 0.5, expected_version: "0" }],
          [
            "PutCheckpoint",
            {
              thread_id: id,
              checkpoint_id: "1",
              checkpoint,
              metadata,
              channels: [{ channel: "é", version: "1", type: "t", value }],
            },
          ],
          [
            "PutWrites",
            {
              thread_id: id,
              checkpoint_id: "1",
              writes: [{ task_id: "t", index: -1, channel: "c", type: "t", value }],
            },
          ],
        ];
        for (const [method, request] of writes) {
          await writer.call(method, { owner_id, ...request });
        }
        const asked: [string, Row][] = [
          ["GetAssistant", { assistant_id: id }],
          ["GetThread", { thread_id: id }],
          ["GetThreadState", { thread_id: id }],
          ["GetRun", { run_id: id }],
          ["GetCron", { cron_id: id }],
          ["GetItem", { namespace: ["a"], key: "k" }],
          ["GetCheckpoint", { thread_id: id }],
          ["ListCheckpoints", {}],
          ["ListAssistantVersions", { assistant_id: id }],
          ["ExportOwner", {}],
          ["GetOwnerUsage", {}],
        ];
        const found: Record<string, Row> = {};
        for (const [method, request] of asked) {
          found[method] = await reader.call(method, { owner_id, ...request });
          expect(await writer.call(method, { owner_id, ...request })).toEqual(found[method]);
        }
        for (const json of [
          (found.GetAssistant!.assistant as Row).context,
          (found.GetThread!.thread as Row).config,
          (found.GetThreadState!.state as Row).values,
          (found.GetRun!.run as Row).kwargs,
          (found.GetCron!.cron as Row).payload,
          (found.GetItem!.item as Row).value,
        ]) {
          expect(parseJson(json as string)).toEqual(EVERYTHING);
        }
        expect(found.GetCron).toMatchObject({ cron: { end_time: END } });
        expect(found.GetItem).toMatchObject({ item: { version: "1", ttl_minutes: 0.5 } });
        expect(found.GetCheckpoint).toMatchObject({
          checkpoint: { channels: [{ channel: "é", value }], writes: [{ index: -1, value }] },
        });
        const kept = found.GetCheckpoint!.checkpoint as Row;
        expect(parseJson(kept.checkpoint as string)).toEqual(document);
        expect(parseJson(kept.metadata as string)).toEqual(LABELS);
      });

      test("a batch of 1,000 items", async () => {
        const owner_id = newOwner();
        const operations = Array.from({ length: 1000 }, (_, n) => ({
          put: {
            namespace: ["many"],
            key: String(n).padStart(4, "0"),
            value: writeJson({ n: 2n ** 53n + BigInt(n), text: "é\u{1f600}" }),
          },
        }));
        const { results } = await writer.call("Batch", { owner_id, operations });
        const request = { owner_id, namespace_prefix: ["many"], sort_by: "ITEM_SORT_KEY", limit: 1000 };
        const { items } = await reader.call("SearchItems", request);
        expect((results as Row[]).map((result) => (result.put as Row).item)).toEqual(items);
        expect((items as Row[]).map((item) => parseJson(item.value as string))).toEqual(
          operations.map((_, n) => ({ n: BigInt(n) + 2n ** 53n, text: "é\u{1f600}" })),
        );
      });
    });

    test("a number beyond 2^53 comes back as the integer that it was written as", async () => {
      const owner = newOwner();
      await clients.typescript!.storage("store", "put", "n", "floats", [2 ** 60, 1e21, -1.5e300], owner);
      await clients.python!.storage("store", "put", "n", "integers", [2n ** 60n, 10n ** 21n], owner);
      for (const client of Object.values(clients)) {
        const floats = ((await client.storage("store", "get", "n", "floats", owner)) as { value: bigint[] }).value;
        expect(floats).toEqual([2n ** 60n, 10n ** 21n, BigInt(-1.5e300)]);
        expect(floats.map(Number)).toEqual([2 ** 60, 1e21, -1.5e300]);
        const integers = await client.storage("store", "get", "n", "integers", owner);
        expect(integers).toMatchObject({ value: [2n ** 60n, 10n ** 21n] });
      }
    });
  });
});

test("what JSON can't hold is refused before anything is sent", async () => {
  await using connection = connect("memory");
  const storage = createStorage({ connection });
  for (const value of [Number.NaN, Number.POSITIVE_INFINITY, "\ud800", undefined, [undefined]]) {
    await expect(storage.store.put("a", "k", value, newOwner())).rejects.toThrow(TypeError);
  }
});
