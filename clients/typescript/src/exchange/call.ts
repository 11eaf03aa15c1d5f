/** One call of an exchange. */

import { Code } from "@connectrpc/connect";
import { type About, DeadlineExceeded, StorageError } from "../errors.js";
import type { MethodRules } from "../methods.js";
import type { Stream } from "./stream.js";

/** Requests above this many bytes go as plain RPCs, so that nothing large holds up the others. */
export const LARGEST = 262_144;

/** How a call ends: with the response's bytes, or with nothing where it is to become a plain RPC. */
export type Answer = Uint8Array | undefined;

// One listener for all calls with a signal: Node warns of a leak where there are more than a few.
const listeners = new WeakMap<AbortSignal, Set<() => void>>();

function listenersOf(signal: AbortSignal): Set<() => void> {
  let found = listeners.get(signal);
  if (found === undefined) {
    const all = new Set<() => void>();
    listeners.set(signal, all);
    signal.addEventListener("abort", () => [...all].map((listener) => listener()), { once: true });
    found = all;
  }
  return found;
}

/** A call on its way. It ends once, by whatever comes first. */
export class ExchangedCall {
  /** What it ends with. */
  readonly answer: Promise<Answer>;
  readonly about: About;
  /** How often it was sent. */
  attempts = 0;
  /** The number that it has on its stream. */
  id = 0n;
  stream: Stream | undefined;
  /** When it was given to its stream. */
  since = 0;
  /** Whether a server may have it. */
  isSent = false;
  isOver = false;
  /** What has come of a large response. */
  parts: Uint8Array[] = [];
  private resolve!: (answer: Answer) => void;
  private reject!: (failure: unknown) => void;
  private readonly timer: NodeJS.Timeout;
  private readonly abort: () => void;

  /**
   * `deadline` is in the milliseconds of `performance.now()`. `left` is called when nobody waits for the call any more.
   */
  constructor(
    readonly rules: MethodRules,
    readonly data: Uint8Array,
    readonly idempotent: boolean,
    readonly deadline: number,
    private readonly signal: AbortSignal | undefined,
    target: string,
    private readonly left: (call: ExchangedCall) => void,
  ) {
    this.about = { method: rules.path, target, idempotent };
    this.answer = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    this.abort = () =>
      this.leave(new StorageError("the call was cancelled", { code: Code.Canceled, method: rules.path }));
    if (signal) {
      listenersOf(signal).add(this.abort);
    }
    this.timer = setTimeout(() => this.expire(), Math.max(0, deadline - performance.now()));
    if (signal?.aborted) {
      this.abort();
    }
  }

  /** End it with a response, or as a plain RPC. */
  succeed(answer: Answer): void {
    if (this.end()) {
      this.resolve(answer);
    }
  }

  /** End it with the last part of its response. */
  complete(last: Uint8Array): void {
    this.succeed(this.parts.length ? joined([...this.parts, last]) : last);
  }

  /** End it with a failure. */
  fail(failure: unknown): void {
    if (this.end()) {
      this.reject(failure);
    }
  }

  private expire(): void {
    const { method, target, idempotent } = this.about;
    const text = `${method} got no answer from ${target} in time`;
    this.leave(new DeadlineExceeded(text, { reason: "", method, safeToRetry: idempotent }));
  }

  private leave(failure: StorageError): void {
    if (!this.isOver) {
      this.left(this);
      this.fail(failure);
    }
  }

  private end(): boolean {
    if (this.isOver) {
      return false;
    }
    this.isOver = true;
    clearTimeout(this.timer);
    if (this.signal) {
      listenersOf(this.signal).delete(this.abort);
    }
    return true;
  }
}

function joined(parts: Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
