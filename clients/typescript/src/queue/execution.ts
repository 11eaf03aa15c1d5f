/** One run at work in a worker: its handler, what stops that, and what is said of its end. */

import { setMaxListeners } from "node:events";
import type { Connection } from "../connection.js";
import { DeadlineExceeded, type LeaseLost } from "../errors.js";
import { type ClaimedRun as ClaimedMessage, RunStatus as Status } from "../gen/agentstorage/v1/runs_pb.js";
import { writeJson } from "../json.js";
import { checkedObject, jsonObject } from "../storage/fields.js";
import { Appender } from "./appending.js";
import { ClaimedRun, type RunHandler, type RunResult, RunStopped, type StopReason } from "./claimed.js";
import { Lease } from "./lease.js";
import { isRefusal } from "./retrying.js";

// How much of an error's message is kept, in characters.
const LONGEST_MESSAGE = 10_000;
const RESULT = ["values", "interrupts"];

/** What an execution is made of. */
export interface ExecutionParts {
  connection: Connection;
  handler: RunHandler;
  /** Milliseconds: of the lease, for the handler, and for it to end once it was told to. */
  leaseMs: number;
  runTimeoutMs: number | undefined;
  abortMs: number;
  /** Is told what goes wrong without an end of the worker. */
  report: (error: unknown, run: ClaimedRun) => void;
}

/** What FinishRun is told. */
interface Finish {
  status: Status;
  values?: string;
  interrupts?: string;
  error?: string;
}

/** How a handler ended. */
type End = { result: RunResult | null | undefined } | { error: unknown };

/** One run at work. */
export class Execution {
  readonly run: ClaimedRun;
  /** Resolves when all is said about the run. */
  readonly over: Promise<void>;
  /** Resolves when its handler has ended too. */
  readonly gone: Promise<void>;
  private readonly stopping = new AbortController();
  private readonly lease: Lease;
  private readonly appender: Appender;
  private hasEnded = false;
  private leaving: NodeJS.Timeout | undefined;

  constructor(
    private readonly parts: ExecutionParts,
    claimed: ClaimedMessage,
  ) {
    this.lease = new Lease(parts.connection, claimed, parts.leaseMs, this);
    const { named, client } = this.lease;
    this.appender = new Appender(
      (firstSequence, events) =>
        this.lease.call((options) => client.appendRunEvents({ ...named, firstSequence, events }, options)),
      (claimed.run?.lastSequence ?? 0n) + 1n,
    );
    this.run = new ClaimedRun(claimed, this.stopping.signal, this.appender);
    // As many as a handler makes calls with it.
    setMaxListeners(0, this.stopping.signal);
    this.lease.begin();
    const handled = this.handle();
    this.over = this.conclude(handled);
    this.gone = Promise.all([handled, this.over]).then(() => undefined);
  }

  /** Stop the handler and give the run back, unless it has ended. */
  giveBack(): void {
    this.stop("shutdown", "the worker stops");
  }

  /** Its lease says that it is to stop. */
  asked(why: "interrupt" | "rollback"): void {
    this.stop(why, `the run is to be ${why === "interrupt" ? "interrupted" : "rolled back"}`);
  }

  /** Its lease is lost. */
  lost(failure: LeaseLost): void {
    this.appender.close(failure);
    this.stop("lease_lost", failure.message, failure);
    this.parts.report(failure, this.run);
  }

  private stop(why: StopReason, message: string, cause?: LeaseLost): void {
    if (!this.hasEnded && !this.stopping.signal.aborted) {
      this.stopping.abort(new RunStopped(why, message, cause && { cause }));
    }
  }

  private get stopped(): RunStopped | undefined {
    return this.stopping.signal.reason as RunStopped | undefined;
  }

  /** Run the handler to its end. */
  private async handle(): Promise<End> {
    try {
      // Its first steps come after all that surrounds it is there.
      await undefined;
      this.stopping.signal.throwIfAborted();
      return { result: (await this.parts.handler(this.run)) ?? undefined };
    } catch (error) {
      return { error };
    }
  }

  /** See the run to its end, and say what that is. */
  private async conclude(handled: Promise<End>): Promise<void> {
    const { runTimeoutMs } = this.parts;
    const expire = () => this.stop("timeout", `the run has taken more than ${runTimeoutMs} ms`);
    const timer = runTimeoutMs === undefined ? undefined : setTimeout(expire, runTimeoutMs);
    try {
      const end = await Promise.race([handled, this.leftBehind()]);
      this.hasEnded = true;
      if (!this.lease.isLost) {
        await this.say(end);
      }
    } catch (error) {
      // Of a lease that is lost its loss was reported.
      if (!this.lease.isLost) {
        this.parts.report(error, this.run);
      }
    } finally {
      this.hasEnded = true;
      clearTimeout(timer);
      clearTimeout(this.leaving);
      this.lease.end();
      this.close();
    }
  }

  /** Wait until the handler was told to stop and had its time for that. */
  private leftBehind(): Promise<undefined> {
    return new Promise((resolve) => {
      const leave = () => {
        // Of a lost run nothing is said, so that there is nothing to wait for.
        this.leaving = setTimeout(() => resolve(undefined), this.lease.isLost ? 0 : this.parts.abortMs);
      };
      this.stopping.signal.addEventListener("abort", leave, { once: true });
    });
  }

  /** Append what was emitted, and then say how the run ended, or give it back. */
  private async say(end: End | undefined): Promise<void> {
    const { named, client } = this.lease;
    if (end === undefined) {
      const text = `the handler goes on ${this.parts.abortMs} ms after it was told to stop (${this.stopped?.why})`;
      this.parts.report(new Error(text), this.run);
    }
    const isGivenBack = this.stopped?.why === "shutdown";
    let finish = isGivenBack ? undefined : this.finishOf(end);
    // With a lease that is renewed meanwhile a log that takes nothing would be waited for without an end.
    const late = new DeadlineExceeded(`events of run ${named.runId} could not be appended in time`, { reason: "" });
    const timer = setTimeout(() => this.appender.close(late), this.parts.leaseMs);
    try {
      await this.appender.flush();
    } catch (error) {
      if (this.lease.isLost) {
        return;
      }
      this.parts.report(error, this.run);
      finish = this.stopped === undefined ? failed(error) : finish;
    } finally {
      clearTimeout(timer);
    }
    this.close();
    this.lease.rest();
    if (finish === undefined) {
      await this.lease.insist((options) => client.releaseRun(named, options));
      return;
    }
    const told = finish;
    try {
      await this.lease.insist((options) => client.finishRun({ ...named, ...told }, options));
    } catch (error) {
      if (!isRefusal(error)) {
        throw error;
      }
      // What the handler gave is not to be had: the run must end nevertheless, or others would come to the same.
      this.parts.report(error, this.run);
      await this.lease.insist((options) => client.finishRun({ ...named, ...failed(error) }, options));
    }
  }

  private close(): void {
    this.appender.close(new Error(`run ${this.run.runId} has ended`));
  }

  private finishOf(end: End | undefined): Finish {
    const { stopped } = this;
    if (end !== undefined && "error" in end && stopped === undefined) {
      this.parts.report(end.error, this.run);
      return failed(end.error);
    }
    let left: Pick<Finish, "values" | "interrupts"> = {};
    try {
      left = end !== undefined && "result" in end ? written(end.result) : {};
    } catch (error) {
      this.parts.report(error, this.run);
      if (stopped === undefined) {
        return failed(error);
      }
    }
    if (stopped?.why === "timeout") {
      return { status: Status.TIMEOUT, ...left, error: errorText("RunTimeout", stopped.message) };
    }
    const isInterrupted = stopped !== undefined || left.interrupts !== undefined;
    return { status: isInterrupted ? Status.INTERRUPTED : Status.SUCCESS, ...left };
  }
}

/** What a handler returned, as JSON. Throws TypeError for what is no result. */
function written(result: RunResult | null | undefined): Pick<Finish, "values" | "interrupts"> {
  if (result === undefined || result === null) {
    return {};
  }
  const names = Object.keys(checkedObject(result, "what the handler returns"));
  const other = names.find((name) => !RESULT.includes(name));
  if (other !== undefined) {
    throw new TypeError(
      `what the handler returns has ${RESULT.join(" and ")}, and no "${other}": values go into values`,
    );
  }
  const { values, interrupts } = result;
  const [valuesText, interruptsText] = [values, interrupts].map((value, index) =>
    value === undefined || value === null ? "" : (jsonObject(RESULT[index] as string, value) as string),
  ) as [string, string];
  return {
    ...(valuesText && { values: valuesText }),
    // None are as good as an empty object of them.
    ...(interruptsText && interruptsText !== "{}" && { interrupts: interruptsText }),
  };
}

/** How a run failed. */
function failed(error: unknown): Finish {
  const name = error instanceof Error ? error.name : typeof error;
  let message: string;
  try {
    message = error instanceof Error ? error.message : String(error);
  } catch {
    message = "it has no text";
  }
  return { status: Status.ERROR, error: errorText(name, message) };
}

function errorText(name: string, message: string): string {
  // What the service does not take in a text must not keep a run from its end.
  const clean = (text: string) =>
    text
      .slice(0, LONGEST_MESSAGE)
      .replace(/\p{Surrogate}/gu, "\ufffd")
      .replaceAll("\0", "\ufffd");
  return writeJson({ error: clean(String(name)), message: clean(String(message)) });
}
