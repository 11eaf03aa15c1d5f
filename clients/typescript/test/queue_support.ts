/** What the tests of the queue share: an owner's storage with an assistant, workers that end with their test, and calls that fail. */

import { Code } from "@connectrpc/connect";
import { expect, vi } from "vitest";
import { RunService } from "../src/gen/agentstorage/v1/runs_pb.js";
import {
  type Connection,
  createStorage,
  newId,
  type QueuedRun,
  type RunEvent,
  type RunEvents,
  type RunHandler,
  type RunSubmit,
  type Storage,
  Unavailable,
  Worker,
  type WorkerOptions,
} from "../src/index.js";
import { newOwner } from "./support.js";

/** A desk at which runs are submitted and executed, for one owner. Dispose of it, and with it of its workers and its connection. */
export class Desk implements AsyncDisposable {
  readonly storage: Storage;
  /** What went wrong in workers. */
  readonly errors: unknown[] = [];
  readonly workers: Worker[] = [];

  readonly assistantId = `a-${newId()}`;

  private constructor(
    readonly connection: Connection,
    readonly ownerId: string | undefined,
  ) {
    this.storage = createStorage({ connection, ownerId });
  }

  /** Open one with an assistant; for nobody without an owner. It owns the connection. */
  static async open(connection: Connection, ownerId: string | null = newOwner()): Promise<Desk> {
    const desk = new Desk(connection, ownerId ?? undefined);
    await desk.storage.assistants.create({ graph_id: "g", assistant_id: desk.assistantId });
    return desk;
  }

  get runs() {
    return this.connection.client(RunService);
  }

  /** Queue a run, on a thread of its own unless one is named. */
  submit(data: Partial<RunSubmit> = {}): Promise<QueuedRun> {
    const thread = { thread_id: newId(), assistant_id: this.assistantId, if_not_exists: "create" as const };
    return this.storage.runs.submit({ ...thread, ...data });
  }

  /** Start a worker for the owner. */
  work(handler: RunHandler, options: WorkerOptions = {}): Worker {
    const onError = (error: unknown) => this.errors.push(error);
    const worker = new Worker(this.connection, handler, { ownerId: this.ownerId, onError, ...options });
    this.workers.push(worker);
    void worker.run().catch(onError);
    return worker;
  }

  /** Wait for the end of a run, not long. */
  async ended({ run_id }: { run_id: string }): Promise<QueuedRun> {
    const run = await this.storage.runs.wait(run_id, 10_000);
    expect(run).not.toBeNull();
    return run as QueuedRun;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    vi.restoreAllMocks();
    await Promise.all(this.workers.map((worker) => worker.stop(0)));
    await this.connection.close();
  }
}

/** A promise to be resolved from elsewhere. */
export function gate<T = void>(): { opened: Promise<T>; open: (value: T) => void } {
  let open: (value: T) => void = () => undefined;
  const opened = new Promise<T>((resolve) => {
    open = resolve;
  });
  return { opened, open };
}

/** Wait until a signal is aborted, and give its reason. */
export function aborted(signal: AbortSignal): Promise<unknown> {
  return new Promise((resolve) => {
    if (signal.aborted) {
      resolve(signal.reason);
    }
    signal.addEventListener("abort", () => resolve(signal.reason));
  });
}

/** All events. */
export async function collected(events: RunEvents): Promise<RunEvent[]> {
  const found: RunEvent[] = [];
  for await (const event of events) {
    found.push(event);
  }
  return found;
}

/** The error of a call that nobody answers. */
export function away(): Unavailable {
  return new Unavailable("away", { code: Code.Unavailable, safeToRetry: true });
}

/** Wait for so many milliseconds. */
export function sleep(milliseconds: number): Promise<void> {
  return new Promise((done) => setTimeout(done, milliseconds));
}
