/**
 * Unary calls that travel together: many at once on one stream of the service's ExchangeService.
 *
 * A unary RPC costs a client and a Python server some 250 us of CPU each, whatever it does; a call on an open stream costs a fraction of
 * that. What is called while the last message is being written goes with the next.
 *
 *     call ─> Exchange ─> a stream to each of a few server processes ─> reply
 *                │
 *                └─> a plain RPC, where there is no exchange, or the call is large
 *
 * What a call does when its stream breaks follows one rule: it is sent again when the server cannot have run it, or when it is idempotent;
 * otherwise it fails as a plain RPC would.
 */

import { Code, type ConnectError } from "@connectrpc/connect";
import type { Endpoints } from "../endpoints.js";
import { type Detail, failureOf, ShuttingDown, StorageError } from "../errors.js";
import type { Reply } from "../gen/agentstorage/v1/exchange_pb.js";
import type { MethodRules } from "../methods.js";
import { ATTEMPTS, pauseAfter, type Throttle } from "../retry.js";
import { type Answer, ExchangedCall } from "./call.js";
import { SILENCE, Stream } from "./stream.js";

export { LARGEST } from "./call.js";

// What a stream that can't begin ends with where there is, or should be, an exchange. A server without one, or a proxy that does not let
// it pass, has many other ways to say so.
const AWAY: ReadonlySet<Code> = new Set([Code.Unavailable, Code.Canceled]);
// Milliseconds: for a stream to begin; without an exchange until it is tried again; between searches for further processes.
const BEGIN = 2_000;
const WITHOUT = 60_000;
const SEARCH = 30_000;
// So many streams in a row that can't begin say that there is no exchange any more where there was one.
const ACCIDENTS = 2;
// How often a process that is known already is met before a search ends.
const MEETINGS = 3;

/** What an exchange is made of. */
export interface ExchangeParts {
  endpoints: Endpoints;
  /** Answers the headers that a stream carries; others when the token has changed. */
  headers: () => Record<string, string>;
  throttle: Throttle;
  /** Streams at most, each to another process of the service. */
  streams: number;
}

/** The streams of one connection: which call goes where, and what becomes of it when a stream breaks. */
export class Exchange {
  readonly headers: () => Record<string, string>;
  private readonly endpoints: Endpoints;
  private readonly target: string;
  private readonly throttle: Throttle;
  private readonly wanted: number;
  private streams: Stream[] = [];
  // Streams that take no more calls and are not over.
  private readonly leaving = new Set<Stream>();
  // Calls that wait for a stream, and those that have a pause.
  private readonly waiting = new Set<ExchangedCall>();
  private readonly pausing = new Map<ExchangedCall, NodeJS.Timeout>();
  private opening: NodeJS.Timeout | undefined;
  private watching: NodeJS.Timeout | undefined;
  // Streams in a row that ended before they carried anything; and those that led to no further process.
  private failures = 0;
  private meetings = 0;
  private searched = 0;
  // Whether a stream has ever begun; whether calls are plain RPCs now, and when a stream is tried again.
  private hasBegun = false;
  private isWithout = false;
  private nextTry = 0;
  private isClosed = false;

  constructor(parts: ExchangeParts) {
    this.endpoints = parts.endpoints;
    this.headers = parts.headers;
    this.target = parts.endpoints.target.text;
    this.throttle = parts.throttle;
    this.wanted = parts.streams;
  }

  /** Whether calls may go this way; where they may not, see now and then whether they may again. */
  takesCalls(): boolean {
    if (this.isWithout && !this.isClosed && performance.now() >= this.nextTry) {
      this.nextTry = performance.now() + WITHOUT;
      this.lookForMore(true);
      this.watchLater();
    }
    return !(this.isClosed || this.isWithout);
  }

  /**
   * Make a call. It gives the response's bytes, or undefined where the call, not sent, is to become a plain RPC. Rejects with StorageError.
   *
   * `deadline` is in the milliseconds of `performance.now()`.
   */
  call(
    rules: MethodRules,
    data: Uint8Array,
    idempotent: boolean,
    deadline: number,
    signal: AbortSignal | undefined,
  ): Promise<Answer> {
    const call = new ExchangedCall(rules, data, idempotent, deadline, signal, this.target, (left) => this.forget(left));
    if (!call.isOver) {
      this.send(call);
    }
    return call.answer;
  }

  /** Send a call on the stream that has the fewest, or as soon as there is one. */
  send(call: ExchangedCall): void {
    call.isSent = false;
    call.parts = [];
    call.stream = undefined;
    const stream = this.fittest();
    if (stream !== undefined) {
      stream.send(call);
    } else if (this.isWithout) {
      call.succeed(undefined);
      return;
    } else {
      this.waiting.add(call);
    }
    this.watchLater();
    if (this.streams.length < this.wanted) {
      this.lookForMore(stream === undefined);
    }
  }

  /** Let a call go that nobody waits for any more, and tell the server. */
  private forget(call: ExchangedCall): void {
    if (call.stream !== undefined) {
      call.stream.cancel(call);
      call.stream = undefined;
    } else {
      this.waiting.delete(call);
      clearTimeout(this.pausing.get(call));
      this.pausing.delete(call);
    }
  }

  private fittest(): Stream | undefined {
    let best: Stream | undefined;
    const carried = this.headers();
    for (const stream of [...this.streams]) {
      if (stream.isOpen && stream.headers !== carried) {
        // The token is another one now.
        stream.retire();
      } else if (stream.isOpen && !stream.isSuspect && (best === undefined || stream.calls.size < best.calls.size)) {
        best = stream;
      }
    }
    return best;
  }

  private sendWaiting(): void {
    const waiting = [...this.waiting];
    this.waiting.clear();
    for (const call of waiting) {
      this.send(call);
    }
  }

  // Streams come and go.

  private lookForMore(isNeeded: boolean): void {
    const now = performance.now();
    if (this.opening !== undefined || this.isClosed || this.streams.some((stream) => !stream.isOpen)) {
      return;
    }
    let pause = 0;
    if (isNeeded) {
      pause = this.failures ? pauseAfter(this.failures) : 0;
    } else if (!this.failures && (this.meetings < MEETINGS || now - this.searched > SEARCH)) {
      this.meetings = this.meetings >= MEETINGS ? 0 : this.meetings;
      this.searched = now;
    } else {
      return;
    }
    const opening = setTimeout(() => this.open(), pause);
    // A search for more keeps no process alive.
    this.opening = isNeeded ? opening : opening.unref();
  }

  private open(): void {
    this.opening = undefined;
    const stream = new Stream(this, this.endpoints);
    this.streams.push(stream);
    void stream.run();
  }

  /** Whether there is a stream to this process. */
  knows(instance: string): boolean {
    return this.streams.some((stream) => stream.isOpen && !stream.isSuspect && stream.instance === instance);
  }

  /** Take a stream that has begun into use; false when it was abandoned, or there is one to its process already. */
  opened(stream: Stream): boolean {
    if (!this.streams.includes(stream)) {
      return false;
    }
    for (const other of this.streams.filter((one) => one.isOpen && one.instance === stream.instance)) {
      if (!other.isSuspect) {
        this.meetings += 1;
        this.streams.splice(this.streams.indexOf(stream), 1);
        this.sendWaiting();
        return false;
      }
      // Its process is there, so it is the connection that is not.
      other.retire();
    }
    this.meetings = 0;
    this.hasBegun = true;
    stream.isOpen = true;
    this.isWithout = false;
    this.sendWaiting();
    if (this.streams.length < this.wanted) {
      this.lookForMore(false);
    }
    return true;
  }

  /** Take note that a stream carries something: what waits because it seemed frozen goes on. */
  wasHeard(): void {
    this.failures = 0;
    if (this.waiting.size) {
      this.sendWaiting();
    }
  }

  /** Give a stream no further calls. */
  retired(stream: Stream): void {
    const index = this.streams.indexOf(stream);
    if (index >= 0) {
      this.streams.splice(index, 1);
      this.leaving.add(stream);
    }
  }

  /** Deal with the calls of a stream that is over; without an error the server has run none of those it did not answer. */
  ended(stream: Stream, error: ConnectError | undefined): void {
    // One that was to end and carried nothing says by its end nothing of the server.
    const failure = this.leaving.has(stream) && !stream.calls.size ? undefined : error;
    this.retired(stream);
    this.leaving.delete(stream);
    if (this.isClosed) {
      return;
    }
    if (failure !== undefined) {
      this.failures += 1;
      if (!stream.hasBegun) {
        this.notBegun(failure);
      } else if (stream.calls.size) {
        // One failure, however many calls it meets.
        this.throttle.failed();
      }
    }
    for (const call of [...stream.calls.values()]) {
      if (failure === undefined || !call.isSent) {
        this.send(call);
      } else {
        call.stream = undefined;
        this.againOrFail(call, this.failureOf(failure, call));
      }
    }
    if (this.waiting.size) {
      this.lookForMore(true);
    }
  }

  private notBegun(error: ConnectError): void {
    if (this.fittest() !== undefined) {
      this.meetings += 1;
    } else if (!AWAY.has(error.code) && error.code !== Code.Unauthenticated) {
      this.doWithout();
    } else if (error.code === Code.Unauthenticated || this.failures >= ATTEMPTS) {
      const waiting = [...this.waiting];
      this.waiting.clear();
      for (const call of waiting) {
        call.fail(this.failureOf(error, call));
      }
    }
  }

  /** Make plain RPCs of all calls for a while. */
  private doWithout(): void {
    if (this.hasBegun && this.failures < ACCIDENTS) {
      // There was an exchange a moment ago.
      return;
    }
    this.isWithout = true;
    this.nextTry = performance.now() + WITHOUT;
    this.sendWaiting();
  }

  // Calls end, or begin again.

  /** End a call with its reply, or send it again. */
  replied(call: ExchangedCall, reply: Reply, stream: Stream): void {
    call.stream = undefined;
    if (reply.outcome.case !== "error") {
      this.throttle.succeeded();
      call.complete(reply.outcome.value ?? new Uint8Array());
      return;
    }
    const { code, message, details } = reply.outcome.value;
    const read: Detail[] = details.map(({ typeUrl, value }) => ({ type: typeUrl.replace(/^.*\//, ""), value }));
    const failure = failureOf(code as Code, message, read, call.about);
    if (stream.isDraining && failure instanceof ShuttingDown) {
      // It came after the server had decided to stop, and was not begun.
      this.send(call);
    } else if (AWAY.has(code as Code)) {
      this.throttle.failed();
      this.againOrFail(call, failure);
    } else {
      call.fail(failure);
    }
  }

  private againOrFail(call: ExchangedCall, failure: StorageError): void {
    call.attempts += 1;
    const pause = pauseAfter(call.attempts);
    const may = call.idempotent && call.attempts < ATTEMPTS && this.throttle.allows;
    if (may && performance.now() + pause < call.deadline) {
      const timer = setTimeout(() => {
        this.pausing.delete(call);
        this.send(call);
      }, pause);
      this.pausing.set(call, timer);
    } else {
      call.fail(failure);
    }
  }

  /** The end of a stream as each of its calls sees it: whatever the stream died of, the call was not at fault. */
  private failureOf(error: ConnectError, call: ExchangedCall): StorageError {
    if (error.code === Code.Unauthenticated) {
      const details = error.details.filter((detail): detail is Detail => "type" in detail);
      return failureOf(error.code, error.rawMessage, details, call.about);
    }
    return failureOf(Code.Unavailable, error.rawMessage, [], call.about);
  }

  /** Look for streams that are silent although calls wait; move what may be moved from those that seem frozen. */
  private watch(): void {
    this.watching = undefined;
    const now = performance.now();
    for (const stream of [...this.streams, ...this.leaving]) {
      if (stream.calls.size) {
        if (stream.isFrozen(now)) {
          // A write that was sent stays: the server, if it goes on, would do it after others that came later.
          for (const call of [...stream.calls.values()].filter((one) => one.rules.reads || !one.isSent)) {
            this.forget(call);
            this.send(call);
          }
          this.lookForMore(this.fittest() === undefined);
        }
      } else if (!stream.hasBegun && now - stream.since > BEGIN && this.streams.includes(stream)) {
        stream.abandon();
        if (this.streams.some((other) => other.isOpen)) {
          this.meetings += 1;
        } else {
          this.failures += 1;
          // A proxy that holds back what it does not know. If there is no server at all, plain RPCs say so.
          this.doWithout();
        }
      }
    }
    if (this.waiting.size) {
      this.lookForMore(true);
    }
    const all = [...this.streams, ...this.leaving];
    if (this.waiting.size || all.some((stream) => !stream.hasBegun || stream.calls.size)) {
      this.watchLater();
    }
  }

  private watchLater(): void {
    // What keeps the process alive is the calls.
    this.watching ??= setTimeout(() => this.watch(), SILENCE / 2).unref();
  }

  /** End every call and every stream. */
  close(): void {
    this.isClosed = true;
    clearTimeout(this.opening);
    clearTimeout(this.watching);
    const streams = [...this.streams, ...this.leaving];
    const calls = [...streams.flatMap((one) => [...one.calls.values()]), ...this.waiting, ...this.pausing.keys()];
    for (const call of calls) {
      clearTimeout(this.pausing.get(call));
      call.fail(new StorageError("the connection is closed", { code: Code.Canceled, method: call.rules.path }));
    }
    for (const stream of streams) {
      stream.abandon();
    }
  }
}
