/** Replicas that restart, die and freeze under load: no call fails that need not, and none hangs. */

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { AssistantService } from "../src/gen/agentstorage/v1/assistants_pb.js";
import { CheckpointService } from "../src/gen/agentstorage/v1/checkpoints_pb.js";
import { StoreService } from "../src/gen/agentstorage/v1/store_pb.js";
import { ThreadService } from "../src/gen/agentstorage/v1/threads_pb.js";
import { Connection, createStorage, DeadlineExceeded, newId, type StorageError } from "../src/index.js";
import { type Server, Serving } from "./serving.js";
import { newOwner, WAYS } from "./support.js";

const CALLERS = 32;

let serving: Serving;
let database: string;
let replicas: [Server, Server];

beforeAll(async () => {
  serving = new Serving();
  database = (await serving.database()).name;
  replicas = [await start(), await start()];
});

afterAll(() => serving.close());

function start(port = 0): Promise<Server> {
  // Stops let calls at work end, as by default.
  return serving.start({ backend: "postgres", database, port, environment: { STORAGE_DRAIN_SECONDS: "0.5" } });
}

function connect(way: (typeof WAYS)[number], options = {}): Connection {
  const target = `ipv4:${replicas.map(({ port }) => `127.0.0.1:${port}`).join(",")}`;
  return new Connection({ target, exchange: way === "exchange", ...options });
}

/** Calls of many callers until told to stop; writes are looked up again. */
class Load {
  readonly written: string[] = [];
  readonly failures: StorageError[] = [];
  calls = 0;
  private isOver = false;
  private readonly work: Promise<unknown>;

  constructor(
    private readonly connection: Connection,
    readonly ownerId: string,
  ) {
    this.work = Promise.all(Array.from({ length: CALLERS }, () => this.go()));
  }

  private async go(): Promise<void> {
    const { ownerId, connection } = this;
    const threads = connection.client(ThreadService);
    const store = connection.client(StoreService);
    while (!this.isOver) {
      const id = newId();
      try {
        await threads.createThread({ ownerId, threadId: id, metadata: '{"a": 1}' });
        await threads.updateThread({ ownerId, threadId: id, metadata: '{"b": 2}' });
        await store.putItem({ ownerId, namespace: ["load"], key: id, value: `"${id}"` });
        this.written.push(id);
        await threads.getThread({ ownerId, threadId: id });
        await connection.client(AssistantService).searchAssistants({ ownerId });
        for await (const { checkpoint } of connection
          .client(CheckpointService)
          .listCheckpoints({ ownerId, threadId: id })) {
          throw new Error(`nobody put the checkpoint ${checkpoint?.checkpointId}`);
        }
        this.calls += 6;
      } catch (error) {
        this.failures.push(error as StorageError);
      }
      await new Promise((done) => setTimeout(done, 5));
    }
  }

  /** Wait until the callers have gone on for so many calls. */
  async more(calls: number): Promise<void> {
    const enough = this.calls + calls;
    for (let waited = 0; this.calls < enough && !this.failures.length; waited += 20) {
      expect(waited).toBeLessThan(15_000);
      await new Promise((done) => setTimeout(done, 20));
    }
  }

  async end(): Promise<void> {
    this.isOver = true;
    await this.work;
  }

  /** How many of the acknowledged writes are there. */
  async kept(): Promise<number> {
    const store = this.connection.client(StoreService);
    const threads = this.connection.client(ThreadService);
    let kept = 0;
    for (const id of this.written) {
      const { item } = await store.getItem({ ownerId: this.ownerId, namespace: ["load"], key: id });
      const { thread } = await threads.getThread({ ownerId: this.ownerId, threadId: id });
      kept += Number(item?.value === `"${id}"` && JSON.parse(thread?.metadata ?? "{}").b === 2);
    }
    return kept;
  }
}

describe.each(WAYS)("%s", (way) => {
  test("replicas that restart one after the other fail no call", async () => {
    await using connection = connect(way);
    const load = new Load(connection, newOwner());
    await load.more(500);
    for (const index of [0, 1] as const) {
      await serving.stop(replicas[index]);
      await load.more(300);
      replicas[index] = await start(replicas[index].port);
      await load.more(500);
    }
    await load.end();
    expect(load.failures).toEqual([]);
    expect(await load.kept()).toBe(load.written.length);
  });

  test("a replica that is killed fails no call that may be sent again", async () => {
    await using connection = connect(way);
    const load = new Load(connection, newOwner());
    await load.more(500);
    await serving.kill(replicas[0]);
    await load.more(300);
    replicas[0] = await start(replicas[0].port);
    await load.more(300);
    await load.end();
    // What a call does that is not idempotent nobody knows then; all of these are.
    expect(load.failures).toEqual([]);
    expect(await load.kept()).toBe(load.written.length);
  });

  test("a frozen replica holds no call beyond its deadline", async () => {
    await using connection = connect(way, { readTimeoutMs: 3_000, writeTimeoutMs: 4_000 });
    const threads = connection.client(ThreadService);
    const ownerId = newOwner();
    const threadId = newId();
    await threads.createThread({ ownerId, threadId });
    // So that both have had calls.
    await Promise.all(Array.from({ length: 50 }, () => threads.getThread({ ownerId, threadId })));
    await serving.freeze(replicas[1]);
    try {
      const ends = await Promise.all(
        Array.from({ length: 100 }, async (_, index) => {
          const started = performance.now();
          const isRead = index % 2 === 0;
          let error: unknown;
          try {
            await (isRead ? threads.getThread({ ownerId, threadId }) : threads.createThread({ ownerId }));
          } catch (failure) {
            error = failure;
          }
          return { isRead, error, took: performance.now() - started };
        }),
      );
      for (const { isRead, error, took } of ends) {
        expect(took).toBeLessThan((isRead ? 3_000 : 4_000) + 800);
        if (error !== undefined) {
          expect(error).toBeInstanceOf(DeadlineExceeded);
        }
      }
      expect(ends.filter(({ error }) => error === undefined).length).toBeGreaterThanOrEqual(40);
      if (way === "exchange") {
        // Reads go on at the other replica.
        expect(ends.filter(({ isRead, error }) => isRead && error !== undefined)).toEqual([]);
      }
      // New calls pass it by.
      const started = performance.now();
      await Promise.all(Array.from({ length: 20 }, () => threads.createThread({ ownerId })));
      expect(performance.now() - started).toBeLessThan(2_000);
    } finally {
      await serving.thaw(replicas[1]);
    }
  });
});

test("who follows a run at a replica that freezes goes on at the other", async () => {
  await using connection = connect("plain");
  const ownerId = newOwner();
  const storage = createStorage({ connection, ownerId });
  const { assistant_id } = await storage.assistants.create({ graph_id: "g" });
  const run = await storage.runs.submit({ thread_id: newId(), assistant_id, if_not_exists: "create" });
  const ends = Promise.all(
    Array.from({ length: 6 }, async () => {
      const seen: string[] = [];
      for await (const event of storage.runs.events(run.run_id)) {
        seen.push(event.end ?? event.type);
      }
      return seen;
    }),
  );
  // So that streams are open at both.
  await new Promise((resolve) => setTimeout(resolve, 500));
  await serving.freeze(replicas[1]);
  try {
    await using other = new Connection({ target: `127.0.0.1:${replicas[0].port}` });
    await createStorage({ connection: other, ownerId }).runs.cancel(run.run_id);
    expect(await ends).toEqual(Array.from({ length: 6 }, () => ["interrupted"]));
  } finally {
    await serving.thaw(replicas[1]);
  }
}, 60_000);
