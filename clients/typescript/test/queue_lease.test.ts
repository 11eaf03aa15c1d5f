/** What ends a run before its handler does: a cancel, a lost lease, a worker that stops. */

import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { RunStatus } from "../src/gen/agentstorage/v1/runs_pb.js";
import { type ClaimedRun, Connection, LeaseLost, type RunStopped, Worker } from "../src/index.js";
import { aborted, away, collected, Desk, gate, sleep } from "./queue_support.js";
import { type Server, Serving } from "./serving.js";
import { BACKENDS, connect } from "./support.js";

/** A handler that says when it has begun and why it was stopped, and then tries to leave something. */
function patient() {
  const begun = gate<ClaimedRun>();
  const stopped = gate<RunStopped>();
  const late = gate<unknown>();
  const handler = async (run: ClaimedRun) => {
    await run.emit("begun");
    await run.flush();
    begun.open(run);
    stopped.open((await aborted(run.signal)) as RunStopped);
    late.open(await run.emit("late").catch((error) => error));
    return { values: { late: true } };
  };
  return { handler, begun: begun.opened, stopped: stopped.opened, late: late.opened };
}

/** For what takes longer where much else runs. */
const PATIENT = { timeout: 5_000 };

/** What the stream of a run tells nobody. */
function silence({ runs }: Desk): void {
  // biome-ignore lint/correctness/useYield: it is silent
  vi.spyOn(runs, "streamRunEvents").mockImplementation(async function* (_, options) {
    await aborted(options!.signal!);
  });
}

describe.each(BACKENDS)("%s", (backend) => {
  const desk = () => Desk.open(connect(backend));

  describe("a cancel", () => {
    test("is heard at once", async () => {
      await using one = await desk();
      const { handler, begun, stopped } = patient();
      one.work(handler);
      const run = await one.submit();
      await begun;
      const began = performance.now();
      expect(await one.storage.runs.cancel(run.run_id)).toEqual({ stopped: [], asked: [run.run_id] });
      expect(await stopped).toMatchObject({ name: "RunStopped", why: "interrupt" });
      // A heartbeat would come after 10 s.
      expect(performance.now() - began).toBeLessThan(3_000);
      expect(await one.ended(run)).toMatchObject({ status: "interrupted", error: null, attempt: 1 });
      const events = await collected(one.storage.runs.events(run.run_id));
      expect(events.map(({ type, end }) => end ?? type)).toEqual(["begun", "late", "interrupted"]);
      expect(await one.storage.threads.get(run.thread_id)).toMatchObject({
        status: "interrupted",
        values: { late: true },
      });
      expect(one.errors).toEqual([]);
    });

    test("is heard with a heartbeat, where the stream says nothing", async () => {
      await using one = await desk();
      silence(one);
      const { handler, begun, stopped } = patient();
      one.work(handler, { leaseMs: 2_400 });
      const run = await one.submit();
      await begun;
      await one.storage.runs.cancel({ thread_id: run.thread_id });
      expect((await stopped).why).toBe("interrupt");
      expect((await one.ended(run)).status).toBe("interrupted");
      expect(one.errors).toEqual([]);
    });

    test("with a rollback leaves nothing of the run", async () => {
      await using one = await desk();
      const { handler, begun, stopped } = patient();
      const worker = one.work(handler);
      const run = await one.submit();
      await begun;
      await one.storage.runs.cancel({ run_ids: [run.run_id], action: "rollback" });
      expect((await stopped).why).toBe("rollback");
      expect(await one.storage.runs.wait(run.run_id, 5_000)).toBeNull();
      expect(await one.storage.threads.get(run.thread_id)).toMatchObject({ status: "idle", values: {} });
      await expect.poll(() => worker.runs.length, PATIENT).toBe(0);
      expect(one.errors).toEqual([]);
    });

    test("of a run that fails on it is no error", async () => {
      await using one = await desk();
      const begun = gate();
      one.work(async (run) => {
        begun.open();
        await aborted(run.signal);
        throw run.signal.reason;
      });
      const run = await one.submit();
      await begun.opened;
      await one.storage.runs.cancel(run.run_id);
      expect(await one.ended(run)).toMatchObject({ status: "interrupted", error: null });
      expect(one.errors).toEqual([]);
    });
  });

  describe("a lost lease", () => {
    test.each(["fails", "hangs"])(
      "whose renewal %s: nothing of the handler is written, another begins anew",
      async (how) => {
        await using one = await desk();
        const heartbeats = vi
          .spyOn(one.runs, "heartbeatRun")
          .mockImplementation(() => (how === "fails" ? Promise.reject(away()) : new Promise(() => undefined)));
        silence(one);
        const { handler, begun, stopped, late } = patient();
        const first = one.work(handler, { leaseMs: 1_000 });
        const run = await one.submit();
        await begun;
        const began = performance.now();
        expect(await stopped).toMatchObject({ why: "lease_lost", cause: expect.any(LeaseLost) });
        expect(performance.now() - began).toBeLessThan(3_000);
        expect(heartbeats.mock.calls.length).toBeGreaterThanOrEqual(how === "fails" ? 2 : 1);
        expect(await late).toBeInstanceOf(LeaseLost);
        await first.stop();
        expect(one.errors).toEqual([expect.any(LeaseLost)]);
        vi.restoreAllMocks();
        await expect.poll(async () => (await one.runs.sweepRuns({ ownerId: one.ownerId })).requeued, PATIENT).toBe(1n);
        one.work(async (claimed) => {
          await claimed.emit("again", claimed.attempt);
          return { values: { attempt: claimed.attempt } };
        });
        expect(await one.ended(run)).toMatchObject({ status: "success", attempt: 2 });
        const events = await collected(one.storage.runs.events(run.run_id));
        expect(events.map(({ type, end, attempt }) => [end ?? type, attempt])).toEqual([
          ["begun", 1],
          ["again", 2],
          ["success", 2],
        ]);
        expect((await one.storage.threads.get(run.thread_id))?.values).toEqual({ attempt: 2 });
      },
    );

    test.each(["heartbeatRun", "appendRunEvents", "finishRun"] as const)("that %s hears of", async (method) => {
      await using one = await desk();
      silence(one);
      const { ownerId } = one;
      const [begun, goOn, stopped] = [gate<ClaimedRun>(), gate(), gate<unknown>()];
      one.work(
        async (run) => {
          begun.open(run);
          if (method === "heartbeatRun") {
            stopped.open(await aborted(run.signal));
          }
          await goOn.opened;
          if (method === "appendRunEvents") {
            await run.emit("late");
            await run.flush().catch(stopped.open);
          }
          return { values: { late: true } };
        },
        { leaseMs: method === "heartbeatRun" ? 1_500 : 60_000 },
      );
      const run = await one.submit();
      await begun.opened;
      // Somebody else decides, which ends the lease.
      const status = RunStatus.TIMEOUT;
      await one.runs.updateRun({ ownerId, runId: run.run_id, status });
      goOn.open();
      if (method !== "finishRun") {
        const cause = expect.any(LeaseLost);
        expect(await stopped.opened).toEqual(
          method === "heartbeatRun" ? expect.objectContaining({ why: "lease_lost", cause }) : cause,
        );
      }
      await expect.poll(() => one.workers[0]!.runs.length, PATIENT).toBe(0);
      expect(one.errors).toEqual([expect.any(LeaseLost)]);
      vi.restoreAllMocks();
      expect(await one.ended(run)).toMatchObject({ status: "timeout" });
      expect((await one.storage.threads.get(run.thread_id))?.values).toEqual({});
      expect((await collected(one.storage.runs.events(run.run_id))).map(({ type }) => type)).not.toContain("late");
    });

    test.each(["ended", "deleted"])("by a run that is %s elsewhere is heard at once", async (how) => {
      await using one = await desk();
      const { handler, begun, stopped, late } = patient();
      one.work(handler);
      const run = await one.submit();
      await begun;
      await sleep(150);
      const began = performance.now();
      if (how === "ended") {
        await one.storage.runs.updateStatus(run.run_id, "error");
      } else {
        await one.storage.runs.delete(run.run_id);
      }
      expect((await stopped).why).toBe("lease_lost");
      expect(performance.now() - began).toBeLessThan(3_000);
      expect(await late).toBeInstanceOf(LeaseLost);
      expect((await one.storage.threads.get(run.thread_id))?.values).toEqual({});
    });
  });

  test("a heartbeat that is on its way when the run ends says nothing of it", async () => {
    await using one = await desk();
    const { heartbeatRun } = one.runs;
    const heartbeats = vi.spyOn(one.runs, "heartbeatRun").mockImplementation(async (request, options) => {
      await sleep(200);
      return await heartbeatRun(request, options);
    });
    one.work(() => sleep(400), { leaseMs: 900 });
    const run = await one.submit();
    expect((await one.ended(run)).status).toBe("success");
    await sleep(300);
    expect(heartbeats.mock.calls.length).toBeGreaterThanOrEqual(1);
    expect(one.errors).toEqual([]);
  });

  test("an end that can't be told is tried until the lease is over", async () => {
    await using one = await desk();
    const finishes = vi.spyOn(one.runs, "finishRun").mockRejectedValue(away());
    const run = await one.submit();
    const worker = one.work(async () => undefined, { leaseMs: 1_200 });
    await expect.poll(() => finishes.mock.calls.length, PATIENT).toBeGreaterThan(2);
    await expect.poll(() => worker.runs.length, PATIENT).toBe(0);
    expect(one.errors).toEqual([expect.any(LeaseLost)]);
    await worker.stop();
    expect((await one.storage.runs.get(run.run_id))?.status).toBe("running");
  });

  describe("a worker that stops", () => {
    test("lets runs end within its grace", async () => {
      await using one = await desk();
      const begun = gate();
      const worker = one.work(async () => {
        begun.open();
        await sleep(300);
        return { values: { done: true } };
      });
      const run = await one.submit();
      const next = await one.submit();
      await begun.opened;
      await worker.stop();
      expect(await one.storage.runs.get(run.run_id)).toMatchObject({ status: "success" });
      expect(await one.storage.runs.get(next.run_id)).toMatchObject({ status: "pending" });
    });

    test("gives back what takes longer, and another worker has it at once", async () => {
      await using one = await desk();
      const { handler, begun, stopped } = patient();
      const worker = one.work(handler);
      const run = await one.submit();
      await begun;
      const began = performance.now();
      await worker.stop(100);
      expect(performance.now() - began).toBeLessThan(4_000);
      expect((await stopped).why).toBe("shutdown");
      expect(await one.storage.runs.get(run.run_id)).toMatchObject({ status: "pending" });
      one.work(async ({ attempt }) => ({ values: { attempt } }));
      expect(await one.ended(run)).toMatchObject({ status: "success", attempt: 2 });
      expect((await one.storage.threads.get(run.thread_id))?.values).toEqual({ attempt: 2 });
      const events = await collected(one.storage.runs.events(run.run_id));
      expect(events.map(({ type, end }) => end ?? type)).toEqual(["begun", "late", "success"]);
      expect(one.errors).toEqual([]);
    });

    test("does not wait for a handler that does not stop, and can be hurried", async () => {
      await using one = await desk();
      const begun = gate();
      const worker = one.work(
        async () => {
          begun.open();
          await new Promise(() => undefined);
        },
        { graceMs: 60_000, abortMs: 100 },
      );
      const run = await one.submit();
      await begun.opened;
      const began = performance.now();
      const stopped = worker.stop();
      await sleep(100);
      await worker.stop(0);
      await stopped;
      expect(performance.now() - began).toBeLessThan(4_000);
      expect(await one.storage.runs.get(run.run_id)).toMatchObject({ status: "pending" });
    });

    test("while it waits for runs ends at once, and works once", async () => {
      await using one = await desk();
      const worker = one.work(async () => undefined);
      await sleep(100);
      const began = performance.now();
      await worker.stop();
      expect(performance.now() - began).toBeLessThan(5_000);
      await expect(worker.run()).rejects.toThrow("a worker runs once");
      await using another = new Worker(one.connection, async () => undefined);
      await another.stop();
      await another.run();
      expect(one.errors).toEqual([]);
    });

    test("gives back what a claim brings while it stops, without a call of the handler", async () => {
      await using one = await desk();
      const { claimRuns } = one.runs;
      const calls: string[] = [];
      const claimed = gate<number>();
      vi.spyOn(one.runs, "claimRuns").mockImplementation(async (request, options) => {
        const answer = await claimRuns(request);
        claimed.open(answer.runs.length);
        void worker.stop();
        await sleep(50);
        options!.signal!.throwIfAborted();
        return answer;
      });
      const run = await one.submit();
      const worker = one.work(async ({ runId }) => {
        calls.push(runId);
      });
      expect(await claimed.opened).toBe(1);
      await worker.stop();
      expect(await one.storage.runs.get(run.run_id)).toMatchObject({ status: "pending" });
      expect(calls).toEqual([]);
      expect(one.errors).toEqual([]);
    });
  });
});

describe("a worker for all owners", () => {
  let serving: Serving;
  let server: Server;

  beforeAll(async () => {
    serving = new Serving();
    server = await serving.start({ backend: "memory" });
  });

  afterAll(() => serving.close());

  test("says about each run what names its owner, or none", async () => {
    await using alice = await Desk.open(new Connection({ target: server.target }));
    await using bob = await Desk.open(new Connection({ target: server.target }));
    await using nobody = await Desk.open(new Connection({ target: server.target }), null);
    const client = nobody.runs;
    const named: [string, string | undefined][] = [];
    for (const method of ["heartbeatRun", "appendRunEvents", "streamRunEvents", "finishRun", "releaseRun"] as const) {
      const actual = client[method] as (...given: unknown[]) => unknown;
      vi.spyOn(client, method).mockImplementation(((request: { runId: string; ownerId?: string }, options: unknown) => {
        named.push([request.runId, request.ownerId]);
        return actual(request, options);
      }) as never);
    }
    const runs = [await alice.submit(), await bob.submit(), await nobody.submit()];
    const owners = new Map<string, string | undefined>();
    nobody.work(
      async (run) => {
        owners.set(run.runId, run.ownerId);
        await run.emit("a");
        await sleep(700);
      },
      { concurrency: 3, leaseMs: 1_500 },
    );
    await Promise.all([alice.ended(runs[0]!), bob.ended(runs[1]!), nobody.ended(runs[2]!)]);
    const expected = new Map(runs.map((run, index) => [run.run_id, [alice, bob, nobody][index]!.ownerId]));
    expect(owners).toEqual(expected);
    expect([...expected.values()]).toEqual([alice.ownerId, bob.ownerId, undefined]);
    // Append, stream, heartbeat and end of each.
    expect(named.length).toBeGreaterThanOrEqual(12);
    expect(named.filter(([runId, ownerId]) => expected.get(runId) !== ownerId)).toEqual([]);
  });
});
