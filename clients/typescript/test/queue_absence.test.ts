/** What those who follow and wait say of a service that is away. */

import { create } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { expect, test, vi } from "vitest";
import { RunStatus, StreamRunEventsResponseSchema } from "../src/gen/agentstorage/v1/runs_pb.js";
import { Connection, DeadlineExceeded, followRun, followThread, Unreachable, waitRun } from "../src/index.js";
import { away, collected, Desk } from "./queue_support.js";
import { connect } from "./support.js";

test("without a server all wait, who wants is told so once, and a wait that is over names the failure", async () => {
  await using connection = new Connection({ target: "127.0.0.1:1", ownerId: "alice" });
  const told: unknown[] = [];
  const onError = (error: unknown) => told.push(error);
  const options = () => ({ onError, signal: AbortSignal.timeout(700) });
  for (const waits of [
    () => collected(followRun(connection, "r", { ...options(), after: -1 })),
    () => collected(followThread(connection, "t", options())),
    () => waitRun(connection, "r", options()),
  ]) {
    told.length = 0;
    await expect(waits()).rejects.toMatchObject({ code: Code.Canceled });
    expect(told).toEqual([expect.any(Unreachable)]);
  }
  const over = waitRun(connection, "r", { timeoutMs: 400 });
  await expect(over).rejects.toThrow(/^run r has not ended after 400 ms, .*the last look failed: cannot reach/);
  await expect(over).rejects.toBeInstanceOf(DeadlineExceeded);
  await expect(over).rejects.toMatchObject({ cause: expect.any(Unreachable) });
});

test("each absence is told, and not the end of a stream", async () => {
  await using one = await Desk.open(connect("memory"));
  const { connection, ownerId } = one;
  const run = await one.submit();
  one.work(async (claimed) => {
    await claimed.emit("number", 1);
    await claimed.emit("number", 2);
  });
  await one.ended(run);
  const { streamRunEvents } = one.runs;
  let calls = 0;
  vi.spyOn(one.runs, "streamRunEvents").mockImplementation(async function* (request, options) {
    calls += 1;
    if (calls === 3) {
      for await (const { events } of streamRunEvents(request, options)) {
        yield create(StreamRunEventsResponseSchema, { events: events.slice(0, 1) });
        break;
      }
    }
    if (calls === 5) {
      // Read just when somebody started the run again.
      yield create(StreamRunEventsResponseSchema, { run: { runId: run.run_id, status: RunStatus.RUNNING } });
      return;
    }
    if (calls < 7) {
      throw away();
    }
    yield* streamRunEvents(request, options);
  });
  const told: unknown[] = [];
  const onError = (error: unknown) => told.push(error);
  const events = await collected(followRun(connection, run.run_id, { ownerId, onError }));
  expect(events.map((event) => event.end ?? event.json())).toEqual([1, 2, "success"]);
  expect([calls, told.length]).toEqual([7, 3]);
});
