/** The transport under the generated clients: deadlines, the token, typed errors, retries, and the exchange. */

import { setMaxListeners } from "node:events";
import { setTimeout as pauseFor } from "node:timers/promises";
import {
  create,
  type DescMessage,
  type DescMethodStreaming,
  type DescMethodUnary,
  fromBinary,
  type MessageInitShape,
  toBinary,
} from "@bufbuild/protobuf";
import {
  Code,
  ConnectError,
  type ContextValues,
  type StreamResponse,
  type Transport,
  type UnaryResponse,
} from "@connectrpc/connect";
import { isBroken, isRefused } from "./broken.js";
import type { Endpoint, Endpoints } from "./endpoints.js";
import { type About, type Detail, failureOf, StorageError } from "./errors.js";
import { type Exchange, LARGEST } from "./exchange/index.js";
import { isIdempotent, rulesOf, waitOf, withId } from "./methods.js";
import { ATTEMPTS, pauseAfter, type Throttle } from "./retry.js";

// What a timer takes, some 24 days.
const LONGEST_TIME = 2 ** 31 - 1;

type HeadersLike = ConstructorParameters<typeof Headers>[0];

/** What a transport is made of. */
export interface TransportParts {
  endpoints: Endpoints;
  /** Answers the headers that every call carries. */
  headers: () => Record<string, string>;
  /** Milliseconds that a call may take: without side effects, and with. */
  readTimeoutMs: number;
  writeTimeoutMs: number;
  throttle: Throttle;
  /** None, where all calls are plain RPCs. */
  exchange: Exchange | undefined;
}

/** Carries the calls of the generated clients. Calls reject with StorageError. */
export class StorageTransport implements Transport {
  private readonly closing = new AbortController();

  constructor(private readonly parts: TransportParts) {
    // As many as there are calls in flight.
    setMaxListeners(0, this.closing.signal);
  }

  /** Make a unary call. */
  async unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    signal: AbortSignal | undefined,
    timeoutMs: number | undefined,
    header: HeadersLike | undefined,
    input: MessageInitShape<I>,
    contextValues?: ContextValues,
  ): Promise<UnaryResponse<I, O>> {
    const { exchange, endpoints } = this.parts;
    const rules = rulesOf(method);
    const usual = rules.reads ? this.parts.readTimeoutMs : this.parts.writeTimeoutMs;
    const time = checkedTime(timeoutMs ?? usual + waitOf(rules, input));
    const request = create(method.input, withId(rules, input));
    const idempotent = isIdempotent(rules, request);
    const about: About = { method: rules.path, target: endpoints.target.text, idempotent };
    const deadline = performance.now() + time;
    // What is said of a single call, other than its time, is said of an RPC. A call that waits is one too: a stream with calls at work is
    // asked every second whether its server is there, and does not end while one of them waits. An RPC costs 250 us, once in a wait.
    const isPlain = rules.waits || header !== undefined || contextValues !== undefined;
    if (!isPlain && exchange?.takesCalls()) {
      const data = toBinary(method.input, request);
      if (data.length <= LARGEST) {
        const answer = await exchange.call(rules, data, idempotent, deadline, signal).catch((error: Error) => {
          // The error was made where the answer came: here is who asked.
          Error.captureStackTrace(error);
          throw error;
        });
        if (answer !== undefined) {
          return {
            stream: false,
            service: method.parent,
            method,
            header: new Headers(),
            trailer: new Headers(),
            message: readAnswer(method.output, answer, about) as UnaryResponse<I, O>["message"],
          };
        }
      }
    }
    return await this.plain(method, about, deadline, signal, header, request, contextValues);
  }

  /**
   * Make a call with streams. It has no deadline but its own. One that answers a stream and may be sent again is, as long as no message of
   * it has come.
   */
  async stream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodStreaming<I, O>,
    signal: AbortSignal | undefined,
    timeoutMs: number | undefined,
    header: HeadersLike | undefined,
    input: AsyncIterable<MessageInitShape<I>>,
    contextValues?: ContextValues,
  ): Promise<StreamResponse<I, O>> {
    const { path, idempotent } = rulesOf(method);
    const about: About = { method: path, target: this.parts.endpoints.target.text, idempotent };
    const deadline = performance.now() + checkedTime(timeoutMs ?? LONGEST_TIME);
    const ended = this.signals(signal);
    const isRepeated = idempotent && method.methodKind === "server_streaming";
    const requests = isRepeated ? await collected(input) : [];
    return await this.attempts(about, deadline, ended, signal, async ({ transport }) => {
      const time = timeoutMs === undefined ? undefined : Math.max(1, Math.ceil(deadline - performance.now()));
      const headers = this.headersOf(header);
      const sent = isRepeated ? given(requests) : input;
      const response = await transport.stream(method, ended, time, headers, sent, contextValues);
      const messages = response.message[Symbol.asyncIterator]();
      const first = isRepeated ? await messages.next() : undefined;
      return { ...response, message: this.readAll(messages, first, about, signal) };
    });
  }

  /** End every call. */
  close(): void {
    this.parts.exchange?.close();
    this.closing.abort(new StorageError("the connection is closed", { code: Code.Canceled }));
  }

  private async plain<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    about: About,
    deadline: number,
    signal: AbortSignal | undefined,
    header: HeadersLike | undefined,
    request: MessageInitShape<I>,
    contextValues: ContextValues | undefined,
  ): Promise<UnaryResponse<I, O>> {
    const ended = this.signals(signal);
    return await this.attempts(about, deadline, ended, signal, async ({ transport }) => {
      const left = Math.max(1, Math.ceil(deadline - performance.now()));
      return await transport.unary(method, ended, left, this.headersOf(header), request, contextValues);
    });
  }

  /** Do something with an address, and again with another by the policy of retries. Rejects with StorageError. */
  private async attempts<T>(
    about: About,
    deadline: number,
    ended: AbortSignal,
    signal: AbortSignal | undefined,
    call: (endpoint: Endpoint) => Promise<T>,
  ): Promise<T> {
    const { endpoints, throttle } = this.parts;
    for (let attempt = 1; ; attempt += 1) {
      let endpoint: Endpoint | undefined;
      try {
        endpoint = await within(endpoints.pick(), deadline, ended);
        const answer = await call(endpoint);
        throttle.succeeded();
        endpoint.answered(true);
        return answer;
      } catch (error) {
        const failure = this.failure(error, about, signal);
        if (failure.reason) {
          endpoint?.answered(true);
        } else if (failure.code === Code.DeadlineExceeded) {
          // It may be frozen: others come before it for a while.
          endpoint?.answered(false);
        }
        const pause = pauseAfter(attempt);
        const mayRun =
          endpoint === undefined || about.idempotent || (error instanceof ConnectError && isRefused(error));
        const isAway = failure.code === Code.Unavailable || failure.code === Code.Canceled;
        if (ended.aborted || !isAway) {
          throw failure;
        }
        throttle.failed();
        if (!mayRun || !throttle.allows || attempt === ATTEMPTS || performance.now() + pause >= deadline) {
          throw failure;
        }
        await pauseFor(pause, undefined, { signal: ended }).catch((reason: unknown) => {
          throw this.failure(reason, about, signal);
        });
      }
    }
  }

  private async *readAll<T>(
    messages: AsyncIterator<T>,
    first: IteratorResult<T> | undefined,
    about: About,
    signal: AbortSignal | undefined,
  ): AsyncIterable<T> {
    try {
      for (let next = first ?? (await messages.next()); !next.done; next = await messages.next()) {
        yield next.value;
      }
    } catch (error) {
      throw this.failure(error, about, signal);
    }
  }

  private signals(signal: AbortSignal | undefined): AbortSignal {
    return signal === undefined ? this.closing.signal : AbortSignal.any([this.closing.signal, signal]);
  }

  private headersOf(header: HeadersLike | undefined): Headers {
    const headers = new Headers(header);
    for (const [name, value] of Object.entries(this.parts.headers())) {
      headers.set(name, value);
    }
    return headers;
  }

  private failure(error: unknown, about: About, signal: AbortSignal | undefined): StorageError {
    if (this.closing.signal.aborted) {
      return this.closing.signal.reason as StorageError;
    }
    return toFailure(error, about, signal);
  }
}

/** What a rejection of connect's transport means. Whoever aborted a call gets a StorageError with the code CANCELLED. */
function toFailure(error: unknown, about: About, signal: AbortSignal | undefined): StorageError {
  if (error instanceof StorageError) {
    return error;
  }
  if (signal?.aborted) {
    return new StorageError("the call was cancelled", { code: Code.Canceled, method: about.method });
  }
  const known = ConnectError.from(error);
  const details = known.details.filter((detail): detail is Detail => "type" in detail);
  return failureOf(isBroken(known) ? Code.Unavailable : known.code, known.rawMessage, details, about);
}

function readAnswer<O extends DescMessage>(schema: O, data: Uint8Array, about: About) {
  try {
    return fromBinary(schema, data);
  } catch {
    const text = `${about.target} answered ${about.method} with what is no answer to it`;
    throw new StorageError(text, { code: Code.Internal, method: about.method });
  }
}

async function collected<T>(input: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const one of input) {
    found.push(one);
  }
  return found;
}

async function* given<T>(messages: T[]): AsyncIterable<T> {
  yield* messages;
}

/** The time of a call in milliseconds; longer ones than a timer takes are as long as it takes. Throws TypeError for what is no time. */
function checkedTime(timeoutMs: number): number {
  if (typeof timeoutMs !== "number" || !(timeoutMs > 0)) {
    throw new TypeError("timeoutMs must be more than 0");
  }
  return Math.min(timeoutMs, LONGEST_TIME);
}

/** Wait for work until a deadline or a signal. */
async function within<T>(work: Promise<T>, deadline: number, signal: AbortSignal): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  let abort: (() => void) | undefined;
  const ended = new Promise<never>((_, reject) => {
    const expire = () => reject(new ConnectError("the time is over", Code.DeadlineExceeded));
    timer = setTimeout(expire, Math.max(0, deadline - performance.now()));
    abort = () => reject(signal.reason);
    signal.addEventListener("abort", abort);
  });
  try {
    if (signal.aborted) {
      throw signal.reason;
    }
    return await Promise.race([work, ended]);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", abort!);
    work.catch(() => undefined);
  }
}
