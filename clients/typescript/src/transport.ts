/** The transport under the generated clients: deadlines, the token, typed errors, retries, and the exchange. */

import { setMaxListeners } from "node:events";
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
import type { Endpoint, Endpoints } from "./endpoints.js";
import { type About, type Detail, failureOf, StorageError } from "./errors.js";
import { type Exchange, LARGEST } from "./exchange/index.js";
import { isIdempotent, rulesOf, withId } from "./methods.js";
import { ATTEMPTS, pauseAfter, type Throttle } from "./retry.js";

// What Node says of a request that it has not sent.
const UNSENT: ReadonlySet<string> = new Set(["ECONNREFUSED", "ERR_HTTP2_GOAWAY_SESSION", "ERR_HTTP2_INVALID_SESSION"]);

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
    const time = timeoutMs ?? (rules.reads ? this.parts.readTimeoutMs : this.parts.writeTimeoutMs);
    if (!(time > 0)) {
      throw new TypeError("timeoutMs must be more than 0");
    }
    const request = create(method.input, withId(rules, input));
    const idempotent = isIdempotent(rules, request);
    const about: About = { method: rules.path, target: endpoints.target.text, idempotent };
    const deadline = performance.now() + time;
    // What is said of a single call, other than its time, is said of an RPC.
    if (exchange?.takesCalls() && header === undefined && contextValues === undefined) {
      const data = toBinary(method.input, request);
      if (data.length <= LARGEST) {
        const answer = await exchange.call(rules, data, idempotent, deadline, signal);
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

  /** Make a call with streams. It has no deadline but its own, and is not sent again. */
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
    const ended = this.signals(signal);
    try {
      const { transport } = await this.parts.endpoints.pick();
      const response = await transport.stream(method, ended, timeoutMs, this.headersOf(header), input, contextValues);
      return { ...response, message: readAll(response.message, about, signal) };
    } catch (error) {
      throw this.failure(error, about, signal);
    }
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
    const { endpoints, throttle } = this.parts;
    const ended = this.signals(signal);
    for (let attempt = 1; ; attempt += 1) {
      let endpoint: Endpoint | undefined;
      try {
        endpoint = await within(endpoints.pick(), deadline, ended);
        const left = Math.max(1, Math.ceil(deadline - performance.now()));
        const headers = this.headersOf(header);
        const response = await endpoint.transport.unary(method, ended, left, headers, request, contextValues);
        throttle.succeeded();
        endpoint.answered(true);
        return response;
      } catch (error) {
        const failure = this.failure(error, about, signal);
        if (failure.reason) {
          endpoint?.answered(true);
        } else if (failure.code === Code.DeadlineExceeded) {
          // It may be frozen: others come before it for a while.
          endpoint?.answered(false);
        }
        const pause = pauseAfter(attempt);
        const mayRun = endpoint === undefined || about.idempotent || isRefused(error);
        const isAway = failure.code === Code.Unavailable || failure.code === Code.Canceled;
        if (signal?.aborted || this.closing.signal.aborted || !isAway) {
          throw failure;
        }
        throttle.failed();
        if (!mayRun || !throttle.allows || attempt === ATTEMPTS || performance.now() + pause >= deadline) {
          throw failure;
        }
        await sleep(pause, ended);
      }
    }
  }

  private signals(signal: AbortSignal | undefined): AbortSignal {
    return signal === undefined ? this.closing.signal : AbortSignal.any([signal, this.closing.signal]);
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
export function toFailure(error: unknown, about: About, signal: AbortSignal | undefined): StorageError {
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

/** Whether a call ended with its connection: told as CANCELLED, or as whatever Node's error stands for. */
function isBroken(error: ConnectError): boolean {
  return error.code === Code.Canceled || (error.code !== Code.DeadlineExceeded && nodeCode(error) !== "");
}

/** Whether a server has certainly not begun a call: it refused the stream, or the connection was on its end. */
function isRefused(error: unknown): boolean {
  if (!(error instanceof ConnectError)) {
    return false;
  }
  return /NGHTTP2_REFUSED_STREAM/.test(error.rawMessage) || UNSENT.has(nodeCode(error));
}

/** The code of the error of Node that is behind another; `""` where none is. */
function nodeCode(error: Error): string {
  const { cause } = error;
  return cause instanceof Error && "code" in cause && typeof cause.code === "string" ? cause.code : "";
}

function readAnswer<O extends DescMessage>(schema: O, data: Uint8Array, about: About) {
  try {
    return fromBinary(schema, data);
  } catch {
    const text = `${about.target} answered ${about.method} with what is no answer to it`;
    throw new StorageError(text, { code: Code.Internal, method: about.method });
  }
}

async function* readAll<T>(
  messages: AsyncIterable<T>,
  about: About,
  signal: AbortSignal | undefined,
): AsyncIterable<T> {
  try {
    yield* messages;
  } catch (error) {
    throw toFailure(error, about, signal);
  }
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

async function sleep(milliseconds: number, signal: AbortSignal): Promise<void> {
  await within(new Promise((done) => setTimeout(done, milliseconds)), performance.now() + milliseconds + 1000, signal);
}
