/** What the exchange promises: the results of plain RPCs, each call ended once, nothing left behind. */

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { StoreService } from "../src/gen/agentstorage/v1/store_pb.js";
import { ThreadService } from "../src/gen/agentstorage/v1/threads_pb.js";
import {
  AlreadyExists,
  Connection,
  DeadlineExceeded,
  InvalidRequest,
  newId,
  StorageError,
  Unauthenticated,
} from "../src/index.js";
import { Serving } from "./serving.js";
import { BACKENDS, connect, newOwner, WAYS } from "./support.js";

let serving: Serving;

beforeAll(() => {
  serving = new Serving();
});

afterAll(() => serving.close());

describe.each(BACKENDS)("%s", (backend) => {
  test("many calls at once each get their own answer or error", async () => {
    await using connection = connect(backend);
    const store = connection.client(StoreService);
    const ownerId = newOwner();
    const namespace = ["many"];
    const ends = await Promise.all(
      Array.from({ length: 1500 }, async (_, index) => {
        const key = `${index}`;
        if (index % 10 === 9) {
          const failure = await store.putItem({ ownerId, namespace: [""], key, value: "1" }).catch((error) => error);
          return failure instanceof InvalidRequest && "namespace[0]" in failure.violations;
        }
        await store.putItem({ ownerId, namespace, key, value: `"${key}"` });
        const { item } = await store.getItem({ ownerId, namespace, key });
        return item?.value === `"${key}"`;
      }),
    );
    expect(ends.filter((right) => !right)).toEqual([]);
  });

  test("large requests and answers pass, and small ones beside them", async () => {
    await using connection = connect(backend);
    const store = connection.client(StoreService);
    const ownerId = newOwner();
    // Above what goes through the exchange; and answers in parts.
    const value = `"${"ä".repeat(4_000_000)}"`;
    await store.putItem({ ownerId, namespace: ["l"], key: "large", value });
    const [large, ...small] = await Promise.all([
      store.getItem({ ownerId, namespace: ["l"], key: "large" }),
      ...Array.from({ length: 20 }, (_, key) =>
        store.putItem({ ownerId, namespace: ["s"], key: `${key}`, value: `${key}` }),
      ),
    ]);
    expect(large.item?.value === value).toBe(true);
    expect(small.map(({ item }) => item?.value)).toEqual(Array.from({ length: 20 }, (_, key) => `${key}`));
  });

  test.each(WAYS)("errors are the same: %s", async (way) => {
    await using connection = connect(backend, way);
    const threads = connection.client(ThreadService);
    const ownerId = newOwner();
    const threadId = newId();
    await threads.createThread({ ownerId, threadId });
    const another = { ownerId, threadId, metadata: '{"other": true}' };
    const failure = await threads.createThread(another).catch((error) => error);
    expect(failure).toBeInstanceOf(AlreadyExists);
    expect(failure.message).toBe(`Thread ${threadId} already exists`);
    expect(failure).toMatchObject({
      name: "AlreadyExists",
      reason: "ALREADY_EXISTS",
      metadata: { resource: "thread", id: threadId },
      method: "/agentstorage.v1.ThreadService/CreateThread",
      safeToRetry: false,
    });
  });
});

describe.each(WAYS)("%s", (way) => {
  test("a deadline ends a call, and says so", async () => {
    const server = await serving.start({ backend: "memory" });
    await using connection = new Connection({ target: server.target, exchange: way === "exchange" });
    const threads = connection.client(ThreadService);
    const ownerId = newOwner();
    await threads.createThread({ ownerId, threadId: "t" });
    await serving.freeze(server);
    try {
      const started = performance.now();
      const failure = await threads.getThread({ ownerId, threadId: "t" }, { timeoutMs: 300 }).catch((error) => error);
      expect(performance.now() - started).toBeLessThan(900);
      expect(failure).toBeInstanceOf(DeadlineExceeded);
      expect(failure.message).toContain(`GetThread got no answer from ${server.target} in time`);
      expect(failure.safeToRetry).toBe(true);
    } finally {
      await serving.thaw(server);
    }
    // The connection goes on.
    expect((await threads.getThread({ ownerId, threadId: "t" })).thread?.threadId).toBe("t");
    await serving.kill(server);
  });

  test("an aborted call ends at once, and others go on", async () => {
    await using connection = connect("postgres", way);
    const threads = connection.client(ThreadService);
    const ownerId = newOwner();
    await threads.createThread({ ownerId, threadId: `abort-${ownerId}` });
    const abort = new AbortController();
    const request = { ownerId, threadId: `abort-${ownerId}` };
    const ended = Promise.allSettled(
      Array.from({ length: 20 }, () => threads.getThread(request, { signal: abort.signal })),
    );
    const others = Promise.all(Array.from({ length: 20 }, () => threads.getThread(request)));
    abort.abort();
    for (const end of await ended) {
      expect(end.status).toBe("rejected");
      expect(end).toHaveProperty("reason.message", "the call was cancelled");
      expect((end as PromiseRejectedResult).reason).toBeInstanceOf(StorageError);
    }
    expect((await others).length).toBe(20);
    await expect(threads.getThread(request, { signal: abort.signal })).rejects.toThrow("the call was cancelled");
  });

  test("closing ends the calls in flight, and later ones", async () => {
    const connection = connect("memory", way);
    const threads = connection.client(ThreadService);
    await threads.searchThreads({ ownerId: newOwner() });
    const ended = Promise.allSettled(Array.from({ length: 10 }, () => threads.searchThreads({ ownerId: newOwner() })));
    await connection.close();
    for (const end of await ended) {
      expect(end).toHaveProperty("reason.message", "the connection is closed");
    }
    await expect(threads.searchThreads({ ownerId: newOwner() })).rejects.toThrow("the connection is closed");
  });

  test("a wrong token is refused, and a right one is carried", async () => {
    const directory = mkdtempSync(join(tmpdir(), "agentstorage-"));
    const file = join(directory, "tokens.toml");
    writeFileSync(file, '[[token]]\nname = "tests"\ntoken = "good-token-0123456789"\nowners = "all"\n');
    const server = await serving.start({ backend: "memory", environment: { STORAGE_TOKEN_FILE: file } });
    const options = { target: server.target, exchange: way === "exchange" };
    await using wrong = new Connection({ ...options, token: "bad-token-0123456789" });
    const refused = wrong.client(ThreadService).searchThreads({ ownerId: "a" });
    await expect(refused).rejects.toThrow(Unauthenticated);
    await using right = new Connection({ ...options, token: "good-token-0123456789" });
    expect((await right.client(ThreadService).searchThreads({ ownerId: "a" })).threads).toEqual([]);
    await serving.kill(server);
    rmSync(directory, { recursive: true });
  });
});

test("what is too large for a message says so, and what to do", async () => {
  await using connection = connect("memory");
  const value = `"${"x".repeat(68_000_000)}"`;
  const put = connection.client(StoreService).putItem({ ownerId: newOwner(), namespace: ["l"], key: "k", value });
  await expect(put).rejects.toThrow(
    /^the request of \/agentstorage.v1.StoreService\/PutItem has \d+ bytes, more than the 67174400 that this client sends: split it/,
  );
});

test("where the server takes no stream, calls are plain RPCs", async () => {
  const server = await serving.start({ backend: "memory", environment: { STORAGE_EXCHANGE_STREAMS: "1" } });
  await using first = new Connection({ target: server.target });
  await using second = new Connection({ target: server.target });
  for (const connection of [first, second]) {
    const threads = connection.client(ThreadService);
    const ended = await Promise.all(Array.from({ length: 50 }, () => threads.createThread({ ownerId: "a" })));
    expect(ended.length).toBe(50);
  }
  await serving.kill(server);
});
