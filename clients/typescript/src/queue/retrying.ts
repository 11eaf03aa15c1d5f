/** When a call may succeed later, and how long to wait before it is tried again. */

import { setTimeout as pauseFor } from "node:timers/promises";
import { Code } from "@connectrpc/connect";
import {
  Conflict,
  DataLoss,
  DeadlineExceeded,
  InvalidRequest,
  LimitReached,
  ServerFault,
  StorageError,
  Unavailable,
} from "../errors.js";

// Milliseconds: the first pause and the longest one.
const FIRST = 100;
const LONGEST = 5_000;

/** Pauses that grow from one failure to the next and are spread by chance, so that those who wait do not come together. */
export class Pauses {
  private failures = 0;

  /** `longest` is the longest pause in milliseconds. */
  constructor(private readonly longest = LONGEST) {}

  /** Whether nothing has failed since the last success. */
  get isFirst(): boolean {
    return this.failures === 0;
  }

  /** The next pause in milliseconds. */
  next(): number {
    const pause = Math.min(FIRST * 2 ** Math.min(this.failures, 16), this.longest);
    this.failures += 1;
    return pause * (0.5 + Math.random() / 2);
  }

  /** Begin with the shortest again. */
  reset(): void {
    this.failures = 0;
  }
}

/** Wait; false when the signal ended that. */
export async function pause(milliseconds: number, signal: AbortSignal): Promise<boolean> {
  try {
    await pauseFor(milliseconds, undefined, { signal });
    return true;
  } catch (error) {
    if (signal.aborted) {
      return false;
    }
    throw error;
  }
}

/** Whether the same call may succeed later: the service is away, busy or had an accident, and did not refuse it. */
export function mayPass(error: unknown): boolean {
  if (error instanceof LimitReached) {
    // Without a reason it is a message that is too large, as it would be the next time.
    return error.reason !== "";
  }
  const passes = [Unavailable, DeadlineExceeded, Conflict, ServerFault].some((kind) => error instanceof kind);
  return passes && !(error instanceof DataLoss);
}

/** Whether the same reading may succeed later: a fault that the server has logged would most likely meet the same rows again. */
export function mayPassOver(error: unknown): boolean {
  return mayPass(error) && !(error instanceof ServerFault && error.reason !== "");
}

/** Whether the service does not take what it is told, however often and whoever tells it. */
export function isRefusal(error: unknown): boolean {
  return error instanceof InvalidRequest || (error instanceof LimitReached && error.reason === "");
}

/** Whether a call ended because somebody here ended it: its signal, or the connection. */
export function isEndedHere(error: unknown): boolean {
  return error instanceof StorageError && error.code === Code.Canceled && !(error instanceof Unavailable);
}
