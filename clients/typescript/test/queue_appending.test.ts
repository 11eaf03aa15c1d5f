/** How events gather on their way to a run's log, whatever the calls do. */

import { expect, test } from "vitest";
import { Aborted, DeadlineExceeded, InvalidRequest, ServerFault, Unavailable } from "../src/index.js";
import { Appender, type NewEvent } from "../src/queue/appending.js";

const NONE = new Uint8Array();

/** A log as the service keeps it: what is there is not added again, and there is no gap. */
class Log {
  readonly types: string[] = [];
  readonly calls: { first: bigint; count: number }[] = [];
  /** What the next calls fail with: before they have an effect, or after it. */
  failures: { error: Error; after?: boolean }[] = [];
  /** Holds the calls up while it is there. */
  gate: Promise<void> | undefined;

  readonly append = async (first: bigint, events: NewEvent[]): Promise<void> => {
    this.calls.push({ first, count: events.length });
    await this.gate;
    const failure = this.failures.shift();
    if (failure !== undefined && !failure.after) {
      throw failure.error;
    }
    const known = this.types.length - Number(first) + 1;
    if (known < 0) {
      throw new Aborted("a gap");
    }
    this.types.push(...events.slice(known).map(({ type }) => type));
    if (failure !== undefined) {
      throw failure.error;
    }
  };
}

function numbers(count: number): string[] {
  return Array.from({ length: count }, (_, index) => `${index}`);
}

test("events gather for a moment and go together", async () => {
  const log = new Log();
  const appender = new Appender(log.append, 1n);
  const began = performance.now();
  for (const type of numbers(100)) {
    await appender.add(type, NONE);
  }
  expect(performance.now() - began).toBeLessThan(1_000);
  await expect.poll(() => log.types, { interval: 5, timeout: 5_000 }).toEqual(numbers(100));
  expect(log.calls).toEqual([{ first: 1n, count: 100 }]);
});

test("a call is repeated with the same events and sequence, and each is there once", async () => {
  const log = new Log();
  log.failures = [
    { error: new Unavailable("away") },
    { error: new DeadlineExceeded("late"), after: true },
    { error: new Unavailable("away"), after: true },
  ];
  const appender = new Appender(log.append, 1n);
  await appender.add("0", NONE);
  const flushed = appender.flush();
  // What comes meanwhile goes with a later call.
  await Promise.all([appender.add("1", NONE), appender.add("2", NONE)]);
  await flushed;
  await appender.flush();
  expect(log.types).toEqual(numbers(3));
  expect(log.calls).toEqual([...Array(4).fill({ first: 1n, count: 1 }), { first: 2n, count: 2 }]);
});

test("a call has no more events and bytes than it may", async () => {
  const log = new Log();
  const appender = new Appender(log.append, 1n);
  await Promise.all(numbers(2500).map((type) => appender.add(type, NONE)));
  await appender.flush();
  expect(log.types).toEqual(numbers(2500));
  expect(Math.max(...log.calls.map(({ count }) => count))).toBe(1000);
  const large = new Log();
  const other = new Appender(large.append, 1n);
  for (const type of numbers(10)) {
    await other.add(type, new Uint8Array(type === "5" ? 1_000_000 : 90_000));
  }
  await other.flush();
  expect(large.types).toEqual(numbers(10));
  expect(large.calls.map(({ count }) => count)).toEqual([2, 2, 1, 1, 2, 2]);
});

test("who emits waits where too much waits", async () => {
  const log = new Log();
  let open: () => void = () => undefined;
  log.gate = new Promise((resolve) => {
    open = resolve;
  });
  const appender = new Appender(log.append, 1n);
  let added = 0;
  const adding = (async () => {
    for (const type of numbers(3_000)) {
      await appender.add(type, NONE);
      added += 1;
    }
  })();
  await new Promise((done) => setTimeout(done, 100));
  expect(added).toBe(1_999);
  log.gate = undefined;
  open();
  await adding;
  await appender.flush();
  expect(log.types).toEqual(numbers(3_000));
});

test("what is refused is told to whoever comes next", async () => {
  const refusal = new InvalidRequest("too large");
  const log = new Log();
  log.failures = [{ error: refusal }];
  const appender = new Appender(log.append, 1n);
  await appender.add("0", NONE);
  await expect(appender.flush()).rejects.toBe(refusal);
  await expect(appender.add("1", NONE)).rejects.toBe(refusal);
  await expect(appender.flush()).rejects.toBe(refusal);
  expect(log.calls.length).toBe(1);
});

test("closing ends what waits, and the calls", async () => {
  const log = new Log();
  log.failures = Array.from({ length: 100 }, () => ({ error: new Unavailable("away") }));
  const appender = new Appender(log.append, 1n);
  await appender.add("0", NONE);
  const flushed = expect(appender.flush()).rejects.toThrow("the end");
  await new Promise((done) => setTimeout(done, 150));
  appender.close(new Error("the end"));
  await flushed;
  const calls = log.calls.length;
  await new Promise((done) => setTimeout(done, 300));
  expect(log.calls.length).toBe(calls);
  expect(log.types).toEqual([]);
});

test("events that meet a fault of the server each time are given up", async () => {
  const log = new Log();
  log.failures = Array.from({ length: 100 }, () => ({ error: new ServerFault("a fault") }));
  const appender = new Appender(log.append, 1n);
  await appender.add("0", NONE);
  await expect(appender.flush()).rejects.toThrow("a fault");
  expect(log.calls.length).toBe(5);
});
