/** A worker: it claims runs, has a handler execute them, and says how they ended. */

import { hostname } from "node:os";
import { Connection, checkedOwner } from "../connection.js";
import { type ClaimedRun as ClaimedMessage, RunService } from "../gen/agentstorage/v1/runs_pb.js";
import { newId } from "../methods.js";
import { isId } from "../storage/fields.js";
import type { ClaimedRun, RunHandler } from "./claimed.js";
import { Execution } from "./execution.js";
import { mayPass, Pauses, pause } from "./retrying.js";

/** What a worker is made with. */
export interface WorkerOptions {
  /** Whose runs are claimed. Default: the connection's owner, else those of every owner, which needs the right `unscoped`. */
  ownerId?: string | null | undefined;
  /** The name of the worker, as a run's lease shows it. Default: made of the host's name, the process and chance. */
  workerId?: string | undefined;
  /** Runs at work at once; 1 by default. */
  concurrency?: number | undefined;
  /** Milliseconds that a lease lasts; it is renewed after each third of that. 30,000 by default. */
  leaseMs?: number | undefined;
  /** Milliseconds that a claim waits for a run where there is none before it is made again; 20,000 by default. */
  waitMs?: number | undefined;
  /** Milliseconds that a handler may take before its run ends with a timeout. Default: as long as it takes. */
  runTimeoutMs?: number | undefined;
  /** Milliseconds that `stop` leaves the handlers at work; 10,000 by default. */
  graceMs?: number | undefined;
  /**
   * Milliseconds that a handler has to end after its signal was aborted; then its run ends without it, and nothing that it still does is
   * written. Its place stays taken until it ends. 5,000 by default.
   */
  abortMs?: number | undefined;
  /**
   * Is told what goes wrong without an end of the worker: that claims fail (once until they succeed again), what handlers throw, that leases
   * are lost, that an end could not be written. Default: a warning of the process.
   */
  onError?: ((error: unknown, run?: ClaimedRun) => void) | undefined;
}

const OPTIONS: ReadonlySet<string> = new Set([
  "ownerId",
  "workerId",
  "concurrency",
  "leaseMs",
  "waitMs",
  "runTimeoutMs",
  "graceMs",
  "abortMs",
  "onError",
] satisfies (keyof WorkerOptions)[]);

// What the service takes: runs of a claim, and milliseconds of a lease and of a wait; and what a timer takes, some 24 days.
const MOST_CLAIMED = 100;
const LONGEST_LEASE = 86_400_000;
const LONGEST_WAIT = 3_600_000;
const LONGEST_TIME = 2 ** 31 - 1;
// Milliseconds in which a claim answers that finds a run when it comes; later ones wait.
const FIRST_LOOK = 500;
// The shortest lease and wait, in milliseconds.
const SHORTEST = 100;
const WARNING = "AgentStorageWarning";

/**
 * Executes runs, some at once, until it is told to stop.
 *
 *     const worker = new Worker(connection, async (run) => {
 *       await run.emit("progress", { step: 1 });
 *       return { values: { answer: 42 } };
 *     });
 *     process.once("SIGTERM", () => worker.stop());
 *     await worker.run();
 *
 * What the handler returns replaces the thread's values and interrupts, and the run ends as success, or as interrupted with interrupts; what
 * it throws becomes the run's error. A run is executed at least once: a worker that dies, or loses touch with the service for longer than
 * its lease, leaves it to another, which gets it with `attempt` one greater. What a handler does beside the service has to bear that; to the
 * service itself nothing of a worker whose lease is lost gets through.
 *
 * While the service is away the worker waits for it. The constructor throws TypeError for an option that is none or is wrong.
 */
export class Worker implements AsyncDisposable {
  /** The name of the worker. */
  readonly workerId: string;
  private readonly connection: Connection;
  private readonly options: ReturnType<typeof checked>;
  private readonly executions = new Set<Execution>();
  private readonly stopping = new AbortController();
  private grace: NodeJS.Timeout | undefined;
  private graceEnd = Number.POSITIVE_INFINITY;
  private working: Promise<void> | undefined;
  // Tells that there may be a place.
  private wake: (() => void) | undefined;

  constructor(
    connection: Connection,
    private readonly handler: RunHandler,
    options: WorkerOptions = {},
  ) {
    if (!(connection instanceof Connection)) {
      throw new TypeError("connection must be a Connection");
    }
    if (typeof handler !== "function") {
      throw new TypeError("handler must be a function");
    }
    this.connection = connection;
    this.options = checked(options, connection);
    this.workerId = this.options.workerId;
  }

  /** The runs at work, with those whose handlers go on although their runs have ended. */
  get runs(): readonly ClaimedRun[] {
    return [...this.executions].map(({ run }) => run);
  }

  /**
   * Work until `stop` is called and all has ended.
   *
   * Rejects with StorageError, once the runs at work have ended, when the service refuses claims for good: the token or a right is missing,
   * or the connection is closed. A worker works once.
   */
  run(): Promise<void> {
    if (this.working !== undefined) {
      return Promise.reject(new TypeError("a worker runs once"));
    }
    this.working = this.work();
    return this.working;
  }

  /**
   * Claim no more, wait for the runs at work, and after a time of grace abort those that are left and give them back: another worker gets
   * them. Resolves when all is said about them, at most a lease later. A second call may shorten the grace.
   *
   * @param graceMs Milliseconds of grace; by default those of the worker's option.
   */
  async stop(graceMs = this.options.graceMs): Promise<void> {
    const end = performance.now() + inRange("graceMs", graceMs, 0, LONGEST_TIME);
    this.stopping.abort();
    this.wakeUp();
    if (this.working === undefined) {
      return;
    }
    if (end < this.graceEnd) {
      this.graceEnd = end;
      clearTimeout(this.grace);
      this.grace = setTimeout(() => this.giveBack(), graceMs);
    }
    // How it went, run says.
    await this.working.catch(() => undefined);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  private async work(): Promise<void> {
    try {
      await this.claim();
    } finally {
      await Promise.all([...this.executions].map(({ over }) => over));
      clearTimeout(this.grace);
    }
  }

  /** Claim runs whenever there is a place, until told to stop. Rejects with what says that this is in vain. */
  private async claim(): Promise<void> {
    const { signal } = this.stopping;
    const { concurrency, waitMs } = this.options;
    const pauses = new Pauses();
    while (!signal.aborted) {
      const limit = Math.min(concurrency - this.executions.size, MOST_CLAIMED);
      if (limit <= 0) {
        await this.place();
        continue;
      }
      const began = performance.now();
      let isInVain = true;
      try {
        const runs = await this.claimed(limit);
        for (const run of runs) {
          this.begin(run);
        }
        // A wait that ends at once would do so again.
        isInVain = runs.length === 0 && performance.now() - began < waitMs / 2;
      } catch (error) {
        if (signal.aborted) {
          return;
        }
        if (!mayPass(error)) {
          throw error;
        }
        if (pauses.isFirst) {
          this.report(error);
        }
      }
      if (isInVain) {
        await pause(pauses.next(), signal);
      } else {
        pauses.reset();
      }
    }
  }

  private async claimed(limit: number): Promise<ClaimedMessage[]> {
    const { ownerId, workerId, waitMs, leaseMs } = this.options;
    const request = { ownerId, workerId, limit, waitSeconds: waitMs / 1000, leaseSeconds: leaseMs / 1000 };
    const { signal } = this.stopping;
    const began = performance.now();
    const left = new AbortController();
    let timer: NodeJS.Timeout | undefined;
    // What a claim has leased whose answer nobody takes waits for the end of its lease.
    const leave = () => {
      timer = setTimeout(() => left.abort(), Math.max(0, began + FIRST_LOOK - performance.now()));
    };
    signal.addEventListener("abort", leave);
    try {
      const { runs } = await this.connection.client(RunService).claimRuns(request, { signal: left.signal });
      return runs;
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", leave);
    }
  }

  private begin(claimed: ClaimedMessage): void {
    const { connection, handler } = this;
    const report = (error: unknown, run: ClaimedRun) => this.report(error, run);
    const execution = new Execution({ ...this.options, connection, handler, report }, claimed);
    this.executions.add(execution);
    void execution.gone.then(() => {
      this.executions.delete(execution);
      this.wakeUp();
    });
    if (this.stopping.signal.aborted) {
      // It came while the worker was told to stop. Its handler has not begun.
      execution.giveBack();
    }
  }

  private giveBack(): void {
    for (const execution of this.executions) {
      execution.giveBack();
    }
  }

  /** Wait for a place, or to be told to stop. */
  private place(): Promise<void> {
    return new Promise((resolve) => {
      this.wake = resolve;
    });
  }

  private wakeUp(): void {
    this.wake?.();
    this.wake = undefined;
  }

  private report(error: unknown, run?: ClaimedRun): void {
    const about = run === undefined ? `worker ${this.workerId}` : `run ${run.runId}`;
    try {
      if (this.options.onError === undefined) {
        process.emitWarning(`${about}: ${error}`, WARNING);
      } else {
        this.options.onError(error, run);
      }
    } catch (failure) {
      // Who can't be told must not keep a run from its end.
      process.emitWarning(`${about}: onError failed: ${failure}`, WARNING);
    }
  }
}

/** The options, those that are left out by their defaults. Throws TypeError. */
function checked(options: WorkerOptions, connection: Connection) {
  for (const name of Object.keys(options)) {
    if (!OPTIONS.has(name)) {
      throw new TypeError(`a worker has no option "${name}"; it has ${[...OPTIONS].join(", ")}`);
    }
  }
  const workerId = options.workerId ?? `${hostname().slice(0, 100)}-${process.pid}-${newId().slice(-8)}`;
  if (!isId(workerId)) {
    throw new TypeError("workerId must be text of 1 to 255 bytes without control characters");
  }
  const concurrency = inRange("concurrency", options.concurrency ?? 1, 1, Number.MAX_SAFE_INTEGER);
  if (!Number.isInteger(concurrency)) {
    throw new TypeError("concurrency must be an integer");
  }
  if (options.onError !== undefined && typeof options.onError !== "function") {
    throw new TypeError("onError must be a function");
  }
  const { runTimeoutMs } = options;
  return {
    workerId,
    concurrency,
    ownerId: checkedOwner(options.ownerId) ?? connection.ownerId,
    leaseMs: inRange("leaseMs", options.leaseMs ?? 30_000, SHORTEST, LONGEST_LEASE),
    waitMs: inRange("waitMs", options.waitMs ?? 20_000, SHORTEST, LONGEST_WAIT),
    runTimeoutMs: runTimeoutMs === undefined ? undefined : inRange("runTimeoutMs", runTimeoutMs, 1, LONGEST_TIME),
    graceMs: inRange("graceMs", options.graceMs ?? 10_000, 0, LONGEST_TIME),
    abortMs: inRange("abortMs", options.abortMs ?? 5_000, 0, LONGEST_TIME),
    onError: options.onError,
  };
}

function inRange(name: string, value: number, least: number, most: number): number {
  if (typeof value !== "number" || !(value >= least && value <= most)) {
    throw new TypeError(`${name} must be a number from ${least} to ${most}`);
  }
  return value;
}
