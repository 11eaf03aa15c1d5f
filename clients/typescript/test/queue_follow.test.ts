/** Following events and waiting for the end of a run: each event once and in order, an end where there is one. */

import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Code } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, inject, test, vi } from "vitest";
import { RunStatus } from "../src/gen/agentstorage/v1/runs_pb.js";
import {
  AlreadyExists,
  Connection,
  DeadlineExceeded,
  EventsDeleted,
  followRun,
  followThread,
  InvalidRequest,
  NotFound,
  newId,
  OwnerRequired,
  type RunEvent,
  SequenceMismatch,
  ThreadBusy,
  waitRun,
} from "../src/index.js";
import { away, collected, Desk, gate, sleep } from "./queue_support.js";
import { Serving } from "./serving.js";
import { BACKENDS, connect, WAYS } from "./support.js";

const ROOT = fileURLToPath(new URL("../../../", import.meta.url));

/** A handler that emits as many numbers as the run says. */
async function count(run: { kwargs: Record<string, unknown>; emit: (type: string, data: unknown) => Promise<void> }) {
  for (let number = 1; number <= (run.kwargs.count as number); number += 1) {
    await run.emit("number", number);
  }
}

function shown(events: RunEvent[]): unknown[] {
  return events.map((event) => event.end ?? event.json());
}

describe.each(BACKENDS)("%s", (backend) => {
  const desk = () => Desk.open(connect(backend));

  describe("a run", () => {
    test("is followed from the beginning, from a place, and from now on", async () => {
      await using one = await desk();
      const run = await one.submit();
      const { connection, ownerId } = one;
      const follow = (after?: bigint | number) => collected(followRun(connection, run.run_id, { ownerId, after }));
      const [begun, goOn] = [gate(), gate()];
      one.work(async (claimed) => {
        await count({ kwargs: { count: 3 }, emit: (type, data) => claimed.emit(type, data) });
        await claimed.flush();
        begun.open();
        await goOn.opened;
        await claimed.emit("last", "last");
      });
      await begun.opened;
      const following = [follow(), follow(2), follow(2n ** 40n), follow(-1)];
      await sleep(150);
      goOn.open();
      await one.ended(run);
      const [all, later, beyond, rest] = await Promise.all(following);
      expect(all!.map(({ sequence }) => sequence)).toEqual([1n, 2n, 3n, 4n, 5n]);
      expect(all!.every(({ position }, index) => position > (all![index - 1]?.position ?? 0n))).toBe(true);
      expect(all!.at(-1)?.end).toBe("success");
      expect(later).toEqual(all!.slice(2));
      expect(beyond).toEqual([]);
      expect(rest).toEqual(all!.slice(3));
      // What has ended is told again, and at its end nothing.
      expect(await follow()).toEqual(all);
      expect(await follow(5n)).toEqual([]);
      expect(await follow(-1)).toEqual([]);
    });

    test("is left early, while events come and while none do", async () => {
      await using one = await desk();
      const run = await one.submit({ kwargs: { count: 5 } });
      const seen: unknown[] = [];
      one.work(count);
      for await (const event of one.storage.runs.events(run.run_id)) {
        seen.push(event.json());
        if (seen.length === 2) {
          break;
        }
      }
      expect(seen).toEqual([1, 2]);
      await one.workers[0]!.stop();
      const waiting = await one.submit();
      const events = followRun(one.connection, waiting.run_id, { ownerId: one.ownerId });
      const next = events.next();
      await sleep(100);
      const began = performance.now();
      expect(await events.return!()).toEqual({ done: true, value: undefined });
      expect(await next).toEqual({ done: true, value: undefined });
      expect(await events.next()).toEqual({ done: true, value: undefined });
      expect(performance.now() - began).toBeLessThan(3_000);
    });

    test("is followed until a signal ends that", async () => {
      await using one = await desk();
      const run = await one.submit();
      const { connection, ownerId } = one;
      const signal = AbortSignal.timeout(150);
      const ended = [
        collected(followRun(connection, run.run_id, { ownerId, signal })),
        waitRun(connection, run.run_id, { ownerId, signal }),
      ];
      for (const end of await Promise.allSettled(ended)) {
        expect(end).toMatchObject({ status: "rejected", reason: { name: "StorageError", code: Code.Canceled } });
      }
    });

    test("that is absent, another's, or deleted meanwhile", async () => {
      await using one = await desk();
      await using other = await desk();
      const run = await one.submit();
      for (const id of ["no such run", run.run_id]) {
        await expect(collected(other.storage.runs.events(id))).rejects.toThrow(NotFound);
        await expect(collected(other.storage.runs.events(id, -1))).rejects.toThrow(NotFound);
        expect(await other.storage.runs.wait(id)).toBeNull();
        await expect(waitRun(other.connection, id, { ownerId: other.ownerId })).rejects.toThrow(NotFound);
      }
      const ends = [collected(one.storage.runs.events(run.run_id)), one.storage.runs.wait(run.run_id)];
      await sleep(100);
      await one.storage.runs.delete(run.run_id);
      const [events, waited] = await Promise.allSettled(ends);
      expect(events).toMatchObject({ status: "rejected", reason: expect.any(NotFound) });
      expect(waited).toEqual({ status: "fulfilled", value: null });
    });

    test("breaks in its stream are bridged, before the first event too", async () => {
      await using one = await desk();
      const { streamRunEvents } = one.runs;
      let calls = 0;
      vi.spyOn(one.runs, "streamRunEvents").mockImplementation(async function* (request, options) {
        calls += 1;
        if (calls === 1) {
          throw away();
        }
        let left = 2;
        for await (const message of streamRunEvents(request, options)) {
          yield message;
          left -= 1;
          if (calls % 2 && left === 0) {
            return;
          }
          if (left === 0 && calls < 6) {
            throw away();
          }
        }
      });
      const run = await one.submit();
      const following = collected(followRun(one.connection, run.run_id, { ownerId: one.ownerId, after: -1 }));
      // It knows by then after which event it begins.
      await expect.poll(() => calls).toBeGreaterThan(0);
      one.work(
        async (claimed) => {
          for (let number = 1; number <= 10; number += 1) {
            await claimed.emit("number", number);
            await claimed.flush();
            await sleep(30);
          }
        },
        { leaseMs: 60_000 },
      );
      expect(shown(await following)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, "success"]);
      expect(calls).toBeGreaterThan(3);
    });
  });

  test("a run that was ended and started again goes on after its end marker", async () => {
    await using one = await desk();
    const run = await one.submit({ kwargs: { count: 1 } });
    const { connection, ownerId } = one;
    const follow = () => collected(followRun(connection, run.run_id, { ownerId }));
    await one.storage.runs.updateStatus(run.run_id, "error");
    expect(shown(await follow())).toEqual(["error"]);
    await one.runs.updateRun({ ownerId, runId: run.run_id, status: RunStatus.PENDING, force: true });
    const following = follow();
    await sleep(150);
    one.work(count);
    const events = await following;
    expect(shown(events)).toEqual(["error", 1, "success"]);
    expect(await follow()).toEqual(events);
  });

  test("a thread is followed over its runs", async () => {
    await using one = await desk();
    const { connection, ownerId } = one;
    const { thread_id } = await one.storage.threads.create({});
    const options = { thread_id, multitask_strategy: "enqueue" as const };
    const first = await one.submit({ ...options, kwargs: { count: 2 } });
    const second = await one.submit({ ...options, kwargs: { count: 1 } });
    const elsewhere = await one.submit({ kwargs: { count: 1 } });
    const follow = async (after: bigint | number, wanted: number) => {
      const found: RunEvent[] = [];
      for await (const event of followThread(connection, thread_id, { ownerId, after })) {
        found.push(event);
        if (found.length === wanted) {
          break;
        }
      }
      return found;
    };
    const following = [follow(0, 5), follow(-1, 5)];
    await sleep(100);
    one.work(count);
    await Promise.all([first, second, elsewhere].map((run) => one.ended(run)));
    const [all, live] = await Promise.all(following);
    expect(all!.map(({ runId }) => runId)).toEqual([...Array(3).fill(first.run_id), ...Array(2).fill(second.run_id)]);
    expect(shown(all!)).toEqual([1, 2, "success", 1, "success"]);
    expect(live).toEqual(all);
    expect(await follow(all![1]!.position, 3)).toEqual(all!.slice(2));
    await expect(
      follow(0, 1).then(() => collected(followThread(connection, "no such thread", { ownerId }))),
    ).rejects.toThrow(NotFound);
  });

  test("a run is waited for, and not longer than is said", async () => {
    await using one = await desk();
    const { connection, ownerId } = one;
    const run = await one.submit();
    for (const timeoutMs of [0, 300]) {
      const began = performance.now();
      const waited = waitRun(connection, run.run_id, { ownerId, timeoutMs });
      await expect(waited).rejects.toThrow(DeadlineExceeded);
      await expect(waited).rejects.toThrow(`run ${run.run_id} has not ended after ${timeoutMs} ms`);
      const took = performance.now() - began;
      expect(took).toBeGreaterThanOrEqual(timeoutMs);
      expect(took).toBeLessThan(timeoutMs + 1_900);
    }
    const recorded = await one.storage.runs.create({ thread_id: newId(), assistant_id: one.assistantId });
    await expect(waitRun(connection, recorded.run_id, { ownerId, timeoutMs: 0 })).rejects.toThrow(
      "was recorded and not queued",
    );
    await expect(waitRun(connection, run.run_id, { timeoutMs: Number.NaN })).rejects.toThrow(
      "timeoutMs must be 0 or more",
    );
    const waiting = Promise.all(Array.from({ length: 50 }, () => one.storage.runs.wait(run.run_id)));
    await sleep(50);
    one.work(async () => ({ values: { n: 1 } }));
    const runs = await waiting;
    expect(runs.map((one) => one?.status)).toEqual(Array(50).fill("success"));
    expect(runs[0]).toMatchObject({ finished_at: expect.stringMatching(/Z$/), attempt: 1, last_sequence: 1n });
    expect(await waitRun(connection, run.run_id, { ownerId, timeoutMs: 0 })).toEqual(runs[0]);
  });

  test("submitting", async () => {
    await using one = await desk();
    const { runs, threads } = one.storage;
    const absent = { thread_id: newId(), assistant_id: one.assistantId };
    await expect(runs.submit(absent)).rejects.toThrow(NotFound);
    await expect(runs.submit({ ...absent, assistant_id: "none", if_not_exists: "create" })).rejects.toThrow(NotFound);
    await expect(runs.submit({ thread_id: "t" } as never)).rejects.toThrow(/^assistant_id is required$/);
    await expect(runs.submit({ ...absent, thread: 1, kwarg: {} } as never)).rejects.toThrow(/did you mean "kwargs"/);
    const { thread_id } = await threads.create({});
    const run = await one.submit({ thread_id, kwargs: { n: 2n ** 70n }, metadata: { m: 1 } });
    expect(run).toMatchObject({
      thread_id,
      status: "pending",
      kwargs: { n: 2n ** 70n },
      metadata: { m: 1, owner: one.ownerId },
      multitask_strategy: "reject",
      run_after: expect.stringMatching(/Z$/),
      worker_id: null,
      cancel: null,
      cron_id: null,
      finished_at: null,
    });
    const busy = one.submit({ thread_id });
    await expect(busy).rejects.toThrow(ThreadBusy);
    await expect(busy).rejects.toMatchObject({ metadata: { run_ids: run.run_id } });
    await expect(one.submit({ run_id: run.run_id })).rejects.toThrow(AlreadyExists);
    const wanted = { thread_id, request_id: newId(), multitask_strategy: "enqueue" as const };
    const next = await one.submit(wanted);
    expect(await one.submit(wanted)).toEqual(next);
    await expect(one.submit({ ...wanted, kwargs: { other: true } })).rejects.toThrow(InvalidRequest);
    const later = await one.submit({ run_after: new Date(Date.now() + 60_000) });
    expect(Date.parse(later.run_after!)).toBeGreaterThan(Date.now() + 30_000);
    const { stopped } = await runs.cancel({ thread_id });
    expect(stopped.sort()).toEqual([run.run_id, next.run_id].sort());
    expect(await runs.cancel({ run_ids: [run.run_id, later.run_id], action: "rollback" })).toEqual({
      stopped: [later.run_id],
      asked: [],
    });
    expect(await runs.get(later.run_id)).toBeNull();
    expect(await runs.cancel("no such run")).toEqual({ stopped: [], asked: [] });
    expect(await runs.cancel({ thread_id: "no such thread" })).toEqual({ stopped: [], asked: [] });
    await expect(runs.cancel({ run_id: run.run_id } as never)).rejects.toThrow(/did you mean "run_ids"/);
    expect((await threads.get(thread_id))?.status).toBe("idle");
  });

  test("events that do not follow the last one are refused by name", async () => {
    await using one = await desk();
    const run = await one.submit();
    const { ownerId, runs } = one;
    const { runs: claimed } = await runs.claimRuns({ ownerId, workerId: "w", limit: 1 });
    const { leaseToken } = claimed[0]!;
    const append = (firstSequence: bigint) =>
      runs.appendRunEvents({ ownerId, runId: run.run_id, leaseToken, firstSequence, events: [{ type: "a" }] });
    await append(1n);
    const refused = append(3n);
    await expect(refused).rejects.toThrow(SequenceMismatch);
    await expect(refused).rejects.toMatchObject({ metadata: { current: "1" }, code: Code.Aborted });
  });
});

test.each(WAYS)("a call that waits has the time for it beside that of any call: %s", async (way) => {
  await using one = await Desk.open(connect("memory", way, { readTimeoutMs: 500, writeTimeoutMs: 500 }));
  const { ownerId } = one;
  const began = performance.now();
  expect((await one.runs.claimRuns({ ownerId, workerId: "w", waitSeconds: 0.8 })).runs).toEqual([]);
  const { run_id: runId } = await one.submit();
  expect((await one.runs.waitRun({ ownerId, runId, waitSeconds: 0.8 })).run?.runId).toBe(runId);
  expect(performance.now() - began).toBeGreaterThan(1_500);
  // What the service does not take for a time it refuses at once.
  await expect(one.runs.waitRun({ ownerId, runId, waitSeconds: 1e9 })).rejects.toThrow(InvalidRequest);
  // A shorter deadline shortens the wait.
  expect((await one.runs.waitRun({ ownerId, runId, waitSeconds: 60 }, { timeoutMs: 700 })).run?.runId).toBe(runId);
});

test("events that are deleted by now are told by name", async () => {
  await using one = await Desk.open(connect("postgres"));
  const run = await one.submit({ kwargs: { count: 3 } });
  one.work(count);
  await one.ended(run);
  const program = `
import asyncio, sys
from storage_service.caller import Owner
from storage_service.store.postgres import DatabaseSettings, PostgresStore
async def main():
    store = PostgresStore(DatabaseSettings(sys.argv[1]))
    await store.start(30)
    print(await store.seen_by(Owner(sys.argv[2])).sweep_events(10, 0.0))
    await store.close()
asyncio.run(main())`;
  const given = ["-c", program, inject("servers").postgres.database_url, one.ownerId!];
  expect((await promisify(execFile)(`${ROOT}.venv/bin/python`, given, { cwd: ROOT })).stdout).toBe("4\n");
  const following = collected(one.storage.runs.events(run.run_id, 1));
  await expect(following).rejects.toThrow(EventsDeleted);
  await expect(following).rejects.toMatchObject({ code: Code.OutOfRange, metadata: { first: "4" } });
  expect(await collected(one.storage.runs.events(run.run_id, 4n))).toEqual([]);
});

test("without an owner, and without the right to that, it is said", async () => {
  await using serving = new Serving();
  const server = await serving.start({ backend: "memory", environment: { STORAGE_ANONYMOUS_RIGHTS: "" } });
  await using connection = new Connection({ target: server.target });
  await expect(collected(followRun(connection, "r"))).rejects.toThrow(OwnerRequired);
  await expect(waitRun(connection, "r")).rejects.toThrow(OwnerRequired);
});

describe("a server whose streams are short", () => {
  let serving: Serving;

  beforeAll(() => {
    serving = new Serving();
  });

  afterAll(() => serving.close());

  test("is followed over their ends, each event once and in order", async () => {
    const environment = { STORAGE_STREAM_SECONDS: "0.7" };
    const server = await serving.start({ backend: "memory", environment });
    await using one = await Desk.open(new Connection({ target: server.target }));
    const run = await one.submit();
    one.work(async (claimed) => {
      for (let number = 1; number <= 100; number += 1) {
        await claimed.emit("number", number);
        await sleep(20);
      }
    });
    const { connection, ownerId } = one;
    const [events, all, ended] = await Promise.all([
      collected(followRun(connection, run.run_id, { ownerId })),
      (async () => {
        const found: RunEvent[] = [];
        for await (const event of followThread(connection, run.thread_id, { ownerId })) {
          found.push(event);
          if (event.end) {
            return found;
          }
        }
      })(),
      waitRun(connection, run.run_id, { ownerId }),
    ]);
    expect(shown(events)).toEqual([...Array.from({ length: 100 }, (_, index) => index + 1), "success"]);
    expect(all).toEqual(events);
    expect(ended.status).toBe("success");
    expect(one.errors).toEqual([]);
  });
});
