/** What becomes of workers and of those who follow while the service is away, dies or refuses; and a run that Python submits. */

import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, inject, test, vi } from "vitest";
import {
  type ClaimedRun,
  Connection,
  LeaseLost,
  newId,
  OwnerRequired,
  PermissionDenied,
  type StorageError,
  Unavailable,
  Worker,
  type WorkerOptions,
  waitRun,
} from "../src/index.js";
import { aborted, away, collected, Desk, gate, sleep } from "./queue_support.js";
import { Serving } from "./serving.js";
import { BACKENDS, connect, WAYS } from "./support.js";

const ROOT = fileURLToPath(new URL("../../../", import.meta.url));

let serving: Serving;

beforeAll(() => {
  serving = new Serving();
});

afterAll(() => serving.close());

describe.each(["stop", "kill"] as const)("a server that ends by a %s and starts again", (end) => {
  test("costs no run, and those who follow see every event once and in order", async () => {
    const { name: database } = await serving.database();
    // The time that calls at work have at a stop: those that wait must not need it.
    const environment = { STORAGE_GRACE_SECONDS: "20" };
    const first = await serving.start({ backend: "postgres", database, environment });
    await using one = await Desk.open(new Connection({ target: first.target }));
    const { connection, ownerId } = one;
    const runs = await Promise.all([one.submit(), one.submit(), one.submit()]);
    const half = gate();
    const ended = gate();
    one.work(
      async (run) => {
        for (let number = 1; number <= 100; number += 1) {
          await run.emit("number", number);
          await sleep(10);
          if (number === 50) {
            half.open();
            await ended.opened;
          }
        }
        return { values: { numbers: 100 } };
      },
      { concurrency: 3 },
    );
    const following = Promise.all(runs.map(({ run_id }) => collected(one.storage.runs.events(run_id))));
    const waiting = Promise.all(runs.map(({ run_id }) => waitRun(connection, run_id, { ownerId })));
    await half.opened;
    const began = performance.now();
    await serving[end](first);
    expect(performance.now() - began).toBeLessThan(10_000);
    // The rest is emitted while nobody is there.
    ended.open();
    await sleep(600);
    const second = await serving.start({ backend: "postgres", database, port: first.port });
    for (const events of await following) {
      expect(events.map((event) => event.end ?? event.json())).toEqual([
        ...Array.from({ length: 100 }, (_, index) => index + 1),
        "success",
      ]);
      expect(events.map(({ sequence }) => sequence)).toEqual(events.map((_, index) => BigInt(index + 1)));
    }
    for (const run of await waiting) {
      expect(run).toMatchObject({ status: "success", attempt: 1, last_sequence: 101n });
      expect((await one.storage.threads.get(run.thread_id))?.values).toEqual({ numbers: 100 });
    }
    // The worker claims again.
    expect((await one.ended(await one.submit())).status).toBe("success");
    for (const error of one.errors) {
      expect(error).toBeInstanceOf(Unavailable);
    }
    await serving.kill(second);
  });
});

describe.each(WAYS)("%s", (way) => {
  test("a worker whose server is away waits for it, and ends when it is told", async () => {
    await using connection = new Connection({ target: "127.0.0.1:1", exchange: way === "exchange" });
    const errors: unknown[] = [];
    const onError = (error: unknown) => errors.push(error);
    const worker = new Worker(connection, async () => undefined, { ownerId: "a", onError });
    const working = worker.run();
    await sleep(800);
    // One that says so, however often it was tried.
    expect(errors).toEqual([expect.any(Unavailable)]);
    const began = performance.now();
    await worker.stop();
    await working;
    expect(performance.now() - began).toBeLessThan(2_000);
  });

  test("a connection that is closed under a worker ends it, and aborts its runs", async () => {
    const one = await Desk.open(connect("memory", way));
    const reason = gate<unknown>();
    const begun = gate();
    const errors: unknown[] = [];
    const worker = new Worker(
      one.connection,
      async (run: ClaimedRun) => {
        begun.open();
        reason.open(await aborted(run.signal));
      },
      { ownerId: one.ownerId, concurrency: 2, leaseMs: 1_000, onError: (error) => errors.push(error) },
    );
    const working = worker.run();
    await one.submit();
    await begun.opened;
    await one.connection.close();
    await expect(working).rejects.toThrow("the connection is closed");
    expect(await reason.opened).toMatchObject({ why: "lease_lost" });
    expect(errors).toEqual([expect.any(LeaseLost)]);
  });
});

test("a worker that is refused says so, once its runs have ended", async () => {
  const server = await serving.start({ backend: "memory", environment: { STORAGE_ANONYMOUS_RIGHTS: "" } });
  await using connection = new Connection({ target: server.target });
  await expect(new Worker(connection, async () => undefined).run()).rejects.toThrow(OwnerRequired);
  await using one = await Desk.open(new Connection({ target: server.target }));
  const { claimRuns } = one.runs;
  vi.spyOn(one.runs, "claimRuns")
    .mockImplementationOnce((request, options) => claimRuns(request, options))
    .mockRejectedValueOnce(away())
    .mockRejectedValue(new PermissionDenied("no more"));
  const run = await one.submit();
  const ended = gate();
  const handler = async () => {
    await ended.opened;
  };
  const worker = new Worker(one.connection, handler, {
    ownerId: one.ownerId,
    concurrency: 2,
    onError: () => undefined,
  });
  const working = worker.run().catch((error: StorageError) => error);
  await sleep(400);
  expect(worker.runs.length).toBe(1);
  ended.open();
  expect(await working).toBeInstanceOf(PermissionDenied);
  expect((await one.ended(run)).status).toBe("success");
  await serving.kill(server);
});

test.each<[WorkerOptions, RegExp]>([
  [{ concurency: 2 } as WorkerOptions, /a worker has no option "concurency"; it has ownerId, workerId/],
  [{ concurrency: 0 }, /concurrency must be a number from 1/],
  [{ concurrency: 1.5 }, /concurrency must be an integer/],
  [{ leaseMs: 0 }, /leaseMs must be a number from 100 to 86400000/],
  [{ waitMs: Number.NaN }, /waitMs must be a number from 100 to 3600000/],
  [{ runTimeoutMs: 2 ** 31 }, /runTimeoutMs must be/],
  [{ graceMs: -1 }, /graceMs must be/],
  [{ workerId: "" }, /workerId must be text of 1 to 255 bytes/],
  [{ ownerId: "" }, /ownerId must not be empty/],
  [{ onError: "log" as never }, /onError must be a function/],
])("a worker's options: %o", (options, message) => {
  const connection = new Connection({ target: "localhost:1" });
  expect(() => new Worker(connection, async () => undefined, options)).toThrow(message);
});

test.each(BACKENDS)("a run that Python submits is executed here, and Python sees its end: %s", async (backend) => {
  await using one = await Desk.open(connect(backend));
  const { threadId, runId } = { threadId: newId(), runId: newId() };
  const program = `
import asyncio, json, sys
from agentstorage import GrpcStorage
async def main(target, owner, assistant, thread, run):
    async with GrpcStorage(target, owner_id=owner) as storage:
        await storage.runs.submit(thread, assistant, {"n": 2**70, "text": "\\u00e9"}, run_id=run, if_not_exists="create")
        events = [event async for event in storage.runs.events(run)]
        ended = await storage.runs.wait(run, timeout=10)
        told = [event.end or event.json() for event in events]
        print(json.dumps([told, ended.status, (await storage.threads.get(thread)).values]))
asyncio.run(main(*sys.argv[1:]))`;
  one.work(async (run) => {
    const n = run.kwargs.n as bigint;
    await run.emit("got", { n, text: run.kwargs.text });
    return { values: { n: n + 1n } };
  });
  const given = ["-c", program, inject("servers")[backend].target, one.ownerId!, one.assistantId, threadId, runId];
  const { stdout } = await promisify(execFile)(`${ROOT}.venv/bin/python`, given, { cwd: ROOT });
  expect(stdout).toBe(`[[{"n": ${2n ** 70n}, "text": "\\u00e9"}, "success"], "success", {"n": ${2n ** 70n + 1n}}]\n`);
});
