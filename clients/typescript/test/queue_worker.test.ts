/** What a worker does with runs: how they end, and what their handlers get and leave. */

import { describe, expect, test, vi } from "vitest";
import type { ClaimedRun, RunResult, RunStopped } from "../src/index.js";
import { aborted, away, collected, Desk, gate, sleep } from "./queue_support.js";
import { BACKENDS, connect } from "./support.js";

describe.each(BACKENDS)("%s", (backend) => {
  const desk = () => Desk.open(connect(backend));

  test("a handler gets the run, and what it returns is on the thread", async () => {
    await using one = await desk();
    const big = 2n ** 64n + 1n;
    const run = await one.submit({ kwargs: { input: { big } }, metadata: { kind: "test" } });
    expect(run).toMatchObject({ status: "pending", attempt: 0, last_sequence: 0n, error: null });
    expect((await one.storage.threads.get(run.thread_id))?.status).toBe("busy");
    const seen = gate<ClaimedRun>();
    one.work(async (claimed) => {
      seen.open(claimed);
      return { values: { answer: big + 1n } };
    });
    expect(await one.ended(run)).toMatchObject({ status: "success", attempt: 1, error: null, worker_id: null });
    const claimed = await seen.opened;
    expect(claimed).toMatchObject({
      runId: run.run_id,
      threadId: run.thread_id,
      assistantId: one.assistantId,
      ownerId: one.ownerId,
      kwargs: { input: { big } },
      metadata: { kind: "test", owner: one.ownerId },
      attempt: 1,
    });
    expect(claimed.signal.aborted).toBe(false);
    const thread = await one.storage.threads.get(run.thread_id);
    expect(thread).toMatchObject({ status: "idle", values: { answer: big + 1n }, interrupts: {} });
    expect(one.errors).toEqual([]);
  });

  test("what a handler leaves: nothing, interrupts, values with them", async () => {
    await using one = await desk();
    const results: Record<string, RunResult | undefined> = {
      nothing: undefined,
      none: { values: null, interrupts: {} },
      interrupts: { interrupts: { ask: [{ value: "why?" }] }, values: { n: 1 } },
    };
    one.work(async (run) => results[run.kwargs.which as string], { concurrency: 3 });
    const statuses = await Promise.all(
      Object.keys(results).map(async (which) => {
        const run = await one.submit({ kwargs: { which } });
        const { status } = await one.ended(run);
        const { status: left, values, interrupts } = (await one.storage.threads.get(run.thread_id))!;
        return { which, status, left, values, interrupts };
      }),
    );
    expect(statuses).toEqual([
      { which: "nothing", status: "success", left: "idle", values: {}, interrupts: {} },
      { which: "none", status: "success", left: "idle", values: {}, interrupts: {} },
      {
        which: "interrupts",
        status: "interrupted",
        left: "interrupted",
        values: { n: 1 },
        interrupts: results.interrupts!.interrupts,
      },
    ]);
    expect(one.errors).toEqual([]);
  });

  test("what a handler throws, or returns amiss, is the run's error", async () => {
    await using one = await desk();
    class Odd extends Error {
      override readonly name = "Odd";
    }
    const handlers: Record<string, () => unknown> = {
      odd: () => {
        throw new Odd("no\0thing \ud800 of it");
      },
      text: () => {
        throw "a text";
      },
      long: () => {
        throw new Error("x".repeat(100_000));
      },
      other: () => ({ answer: 42 }),
      list: () => [1],
      unwritable: () => ({ values: { when: Number.NaN } }),
    };
    one.work(async (run) => handlers[run.kwargs.which as string]!() as undefined, { concurrency: 6 });
    const errors = await Promise.all(
      Object.keys(handlers).map(async (which) => {
        const run = await one.submit({ kwargs: { which } });
        const { status, error } = await one.ended(run);
        expect(status).toBe("error");
        expect((await one.storage.threads.get(run.thread_id))?.status).toBe("error");
        return error;
      }),
    );
    expect(errors).toEqual([
      { error: "Odd", message: "no\ufffdthing \ufffd of it" },
      { error: "string", message: "a text" },
      { error: "Error", message: "x".repeat(10_000) },
      { error: "TypeError", message: expect.stringMatching(/has values and interrupts, and no "answer"/) },
      { error: "TypeError", message: "what the handler returns must be an object, not array" },
      { error: "TypeError", message: expect.stringMatching(/values.when is NaN/) },
    ]);
    expect(one.errors.length).toBe(6);
  });

  test("a hundred events come in order, before the end marker", async () => {
    await using one = await desk();
    const run = await one.submit();
    const following = collected(one.storage.runs.events(run.run_id));
    one.work(async (claimed) => {
      for (let index = 0; index < 100; index += 1) {
        await claimed.emit("step", { index, big: 2n ** 60n });
        if (index % 30 === 29) {
          await sleep(60);
        }
      }
      void claimed.emit("text", "größer");
      void claimed.emit("bytes", new Uint8Array([0, 255]));
      void claimed.emit("nothing");
    });
    const events = await following;
    expect(events.map(({ sequence }) => sequence)).toEqual(
      Array.from({ length: 104 }, (_, index) => BigInt(index + 1)),
    );
    expect(events.slice(0, 100).map((event) => event.json())).toEqual(
      Array.from({ length: 100 }, (_, index) => ({ index, big: 2n ** 60n })),
    );
    const [text, bytes, nothing, end] = events.slice(100);
    expect(text!.text()).toBe("größer");
    expect([...bytes!.data]).toEqual([0, 255]);
    expect([nothing!.type, nothing!.data.length, nothing!.json()]).toEqual(["nothing", 0, null]);
    expect(end).toMatchObject({ runId: run.run_id, end: "success", attempt: 1, position: expect.any(BigInt) });
    expect(end!.createdAt).toMatch(/^\d{4}-.*Z$/);
    expect(events.slice(0, -1).filter((event) => event.end !== undefined)).toEqual([]);
    expect((await one.ended(run)).last_sequence).toBe(104n);
  });

  test("emitting says what it does not take, and after the end nothing", async () => {
    await using one = await desk();
    const kept = gate<ClaimedRun>();
    one.work(async (run) => {
      await expect(run.emit("x".repeat(256))).rejects.toThrow("no more than 255 bytes");
      await expect(run.emit("a\0")).rejects.toThrow("without NUL");
      await expect(run.emit("a", "\ud800")).rejects.toThrow("lone surrogate");
      await expect(run.emit("a", { a: Number.NaN })).rejects.toThrow("data.a is NaN");
      await expect(run.emit(5 as unknown as string)).rejects.toThrow("type must be a string");
      const buffer = new Uint8Array([1]);
      await run.emit("kept", buffer);
      buffer[0] = 2;
      await run.flush();
      kept.open(run);
    });
    const run = await one.submit();
    expect(await one.ended(run)).toMatchObject({ status: "success", last_sequence: 2n });
    const events = await collected(one.storage.runs.events(run.run_id));
    expect([...events[0]!.data]).toEqual([1]);
    await expect((await kept.opened).emit("late")).rejects.toThrow(`run ${run.run_id} has ended`);
  });

  test("an event that is refused ends the run with that error", async () => {
    await using one = await desk();
    const { appendRunEvents } = one.runs;
    const events = [{ type: "longer than the client would let pass".repeat(10) }];
    vi.spyOn(one.runs, "appendRunEvents").mockImplementation((request, options) =>
      appendRunEvents({ ...request, events } as typeof request, options),
    );
    one.work(async (run) => {
      await run.emit("a");
    });
    const { status, error } = await one.ended(await one.submit());
    expect([status, error]).toEqual(["error", { error: "InvalidRequest", message: expect.any(String) }]);
  });

  test("a run that takes too long ends with a timeout", async () => {
    await using one = await desk();
    const reasons: RunStopped[] = [];
    one.work(
      async (run) => {
        await run.emit("begun");
        reasons.push((await aborted(run.signal)) as RunStopped);
        await run.emit("noticed");
        return { values: { partial: true } };
      },
      { runTimeoutMs: 200 },
    );
    const run = await one.submit();
    const message = "the run has taken more than 200 ms";
    expect(await one.ended(run)).toMatchObject({ status: "timeout", error: { error: "RunTimeout", message } });
    expect(reasons).toMatchObject([{ name: "RunStopped", why: "timeout", message }]);
    expect((await one.storage.threads.get(run.thread_id))?.values).toEqual({ partial: true });
    const events = await collected(one.storage.runs.events(run.run_id));
    expect(events.map(({ type, end }) => end ?? type)).toEqual(["begun", "noticed", "timeout"]);
  });

  test("a handler that does not stop is left behind, and keeps its place until it does", async () => {
    await using one = await desk();
    const [may, left] = [gate(), gate<unknown>()];
    const worker = one.work(
      async (run) => {
        if (run.kwargs.slow) {
          await may.opened;
          left.open(await run.emit("late").catch((error) => error));
          return { values: { late: true } };
        }
      },
      { runTimeoutMs: 150, abortMs: 100 },
    );
    const slow = await one.submit({ kwargs: { slow: true } });
    const began = performance.now();
    expect((await one.ended(slow)).status).toBe("timeout");
    expect(performance.now() - began).toBeLessThan(4_000);
    const other = await one.submit();
    await sleep(200);
    expect(worker.runs.map(({ runId }) => runId)).toEqual([slow.run_id]);
    expect((await one.storage.runs.get(other.run_id))?.status).toBe("pending");
    may.open();
    expect(await left.opened).toMatchObject({ message: `run ${slow.run_id} has ended` });
    expect((await one.ended(other)).status).toBe("success");
    expect((await one.storage.threads.get(slow.thread_id))?.values).toEqual({});
    expect((await collected(one.storage.runs.events(slow.run_id))).map(({ end }) => end)).toEqual(["timeout"]);
    expect(one.errors).toEqual([new Error("the handler goes on 100 ms after it was told to stop (timeout)")]);
  });

  test("no more runs are at work than there are places", async () => {
    await using one = await desk();
    let most = 0;
    const busy = new Set<string>();
    one.work(
      async (run) => {
        busy.add(run.runId);
        most = Math.max(most, busy.size);
        await sleep(60);
        busy.delete(run.runId);
      },
      { concurrency: 3 },
    );
    const runs = await Promise.all(Array.from({ length: 8 }, () => one.submit()));
    const ends = await Promise.all(runs.map((run) => one.ended(run)));
    expect(ends.map(({ status }) => status)).toEqual(Array(8).fill("success"));
    expect(most).toBe(3);
  });

  test("the runs of a thread follow one another, in order", async () => {
    await using one = await desk();
    const seen: unknown[] = [];
    let busy = 0;
    const { thread_id } = await one.storage.threads.create({});
    const runs = [];
    for (let number = 0; number < 4; number += 1) {
      runs.push(await one.submit({ thread_id, kwargs: { number }, multitask_strategy: "enqueue" }));
    }
    one.work(
      async (run) => {
        busy += 1;
        seen.push([run.kwargs.number, busy]);
        await sleep(20);
        busy -= 1;
      },
      { concurrency: 4 },
    );
    await Promise.all(runs.map((run) => one.ended(run)));
    expect(seen).toEqual([0, 1, 2, 3].map((number) => [number, 1]));
  });

  test("a worker sees the runs of its owner alone", async () => {
    await using one = await desk();
    await using other = await desk();
    const mine: string[] = [];
    one.work(async (run) => {
      mine.push(run.runId);
    });
    const theirs = await other.submit();
    const run = await one.submit();
    await one.ended(run);
    await sleep(100);
    expect(mine).toEqual([run.run_id]);
    expect((await other.storage.runs.get(theirs.run_id))?.status).toBe("pending");
  });

  test("calls that are lost on the way back have their effect once", async () => {
    await using one = await desk();
    const { appendRunEvents, finishRun } = one.runs;
    let lost = 0;
    for (const [name, actual] of Object.entries({ appendRunEvents, finishRun })) {
      let calls = 0;
      vi.spyOn(one.runs, name as "finishRun").mockImplementation(async (request, options) => {
        const answer = await (actual as typeof finishRun)(request, options);
        calls += 1;
        if (calls < 3) {
          lost += 1;
          throw away();
        }
        return answer;
      });
    }
    const run = await one.submit();
    one.work(async (claimed) => {
      await claimed.emit("once");
    });
    expect(await one.ended(run)).toMatchObject({ status: "success", attempt: 1, last_sequence: 2n });
    await expect.poll(() => one.workers[0]!.runs.length, { timeout: 5_000 }).toBe(0);
    expect(lost).toBe(4);
    expect(one.errors).toEqual([]);
  });
});
