/** The connection to the storage service: where it is, who calls, and how long a call may take. */

import type { DescService } from "@bufbuild/protobuf";
import { type CallOptions, type Client, createClient, type Transport } from "@connectrpc/connect";
import { isYes, tlsContext, tokenHeaders } from "./credentials.js";
import { Endpoints } from "./endpoints.js";
import { Exchange } from "./exchange/index.js";
import { Throttle } from "./retry.js";
import { DEFAULT_TARGET, readTarget } from "./target.js";
import { StorageTransport } from "./transport.js";

/** Milliseconds that a call may take: without side effects, and with. */
export const READ_TIMEOUT_MS = 5_000;
export const WRITE_TIMEOUT_MS = 10_000;
/** Streams of the exchange at most, each to another process of the service. */
export const STREAMS = 2;

/** What a connection is made with. */
export interface ConnectionOptions {
  /**
   * `host:port` of the service, or a gRPC target such as `dns:///storage:50051` or `ipv4:10.0.0.1:50051,10.0.0.2:50051`, whose addresses
   * share the calls. Default: `AGENTSTORAGE_TARGET`, else `localhost:50051`.
   */
  target?: string | undefined;
  /** The owner of calls that name none. Default: `AGENTSTORAGE_OWNER`, else none: such calls are unscoped. */
  ownerId?: string | undefined;
  /**
   * The bearer token. Default: `AGENTSTORAGE_TOKEN`, or the content of the file that `AGENTSTORAGE_TOKEN_FILE` names, which is read again
   * while the process runs, so that a token can be changed.
   */
  token?: string | undefined;
  /** Whether to use TLS with the system's authorities. A TLS file turns it on too. Default: `AGENTSTORAGE_TLS`. */
  tls?: boolean | undefined;
  /** File with the authorities (PEM) that vouch for the server. Default: `AGENTSTORAGE_TLS_CA`. */
  tlsCa?: string | undefined;
  /** File with the client's certificate chain (PEM). Default: `AGENTSTORAGE_TLS_CERT`. */
  tlsCert?: string | undefined;
  /** File with the client's private key (PEM). Default: `AGENTSTORAGE_TLS_KEY`. */
  tlsKey?: string | undefined;
  /** Whether the token may go to another machine without TLS. Default: `AGENTSTORAGE_PLAINTEXT_TOKEN`, else no. */
  plaintextToken?: boolean | undefined;
  /** Milliseconds that a call without side effects may take. */
  readTimeoutMs?: number | undefined;
  /** Milliseconds that any other call may take. */
  writeTimeoutMs?: number | undefined;
  /**
   * Whether unary calls travel together on a few streams, which costs a fraction of an RPC each; where the service or a proxy knows no
   * exchange they are plain RPCs by themselves. Default: `AGENTSTORAGE_EXCHANGE`, else yes.
   */
  exchange?: boolean | undefined;
  /** Streams of the exchange at most, each to another process of the service. */
  streams?: number | undefined;
}

const OPTIONS: ReadonlySet<string> = new Set([
  "target",
  "ownerId",
  "token",
  "tls",
  "tlsCa",
  "tlsCert",
  "tlsKey",
  "plaintextToken",
  "readTimeoutMs",
  "writeTimeoutMs",
  "exchange",
  "streams",
] satisfies (keyof ConnectionOptions)[]);

/**
 * A connection to the storage service, for the generated clients and for everything in this package.
 *
 * Nothing is sent before the first call. It keeps no process alive while no call is in flight. Close it with `close()` or `await using`.
 *
 *     const connection = new Connection({ target: "localhost:50051" });
 *     const { thread } = await connection.client(ThreadService).getThread({ ownerId: "alice", threadId: "t1" });
 *
 * The constructor throws TypeError for a target, owner, token, time or option that is none, or when the token would go over the network in
 * the clear; and Error, naming the option, for a file that can't be read.
 */
export class Connection implements AsyncDisposable {
  /** Where the service is. */
  readonly target: string;
  /** The owner of calls that name none. */
  readonly ownerId: string | undefined;
  /**
   * What carries the calls, for `createClient` of `@connectrpc/connect`. Calls reject with StorageError. Such a client goes on with a stream
   * whose loop is left, until its signal is aborted; one of `client` ends it.
   */
  readonly transport: Transport;
  private readonly carrier: StorageTransport;
  private readonly endpoints: Endpoints;
  private readonly clients = new Map<DescService, unknown>();

  constructor(options: ConnectionOptions = {}) {
    for (const name of Object.keys(options)) {
      if (!OPTIONS.has(name)) {
        throw new TypeError(`a connection has no option "${name}"; it has ${[...OPTIONS].join(", ")}`);
      }
    }
    checkKinds(options);
    const env = process.env;
    const target = readTarget(options.target ?? (env.AGENTSTORAGE_TARGET || DEFAULT_TARGET));
    this.target = target.text;
    this.ownerId = checkedOwner(options.ownerId) ?? (env.AGENTSTORAGE_OWNER || undefined);
    const readTimeoutMs = checkedTime("readTimeoutMs", options.readTimeoutMs ?? READ_TIMEOUT_MS);
    const writeTimeoutMs = checkedTime("writeTimeoutMs", options.writeTimeoutMs ?? WRITE_TIMEOUT_MS);
    const streams = options.streams ?? STREAMS;
    if (!Number.isInteger(streams) || streams < 1) {
      throw new TypeError("streams must be 1 or more");
    }
    const tls = tlsContext(options);
    const headers = tokenHeaders(options.token);
    const isPlaintextAllowed = options.plaintextToken ?? isYes("AGENTSTORAGE_PLAINTEXT_TOKEN", "");
    if (headers().authorization && !tls && !target.isLocal && !isPlaintextAllowed) {
      throw new TypeError(
        `the token would go to ${target.text} in the clear: use TLS (tls: true or tlsCa: ...), or say plaintextToken: true where ` +
          "something else protects the way",
      );
    }
    this.endpoints = new Endpoints(target, tls);
    const throttle = new Throttle();
    const isExchanging = options.exchange ?? isYes("AGENTSTORAGE_EXCHANGE", "true");
    const exchange = isExchanging ? new Exchange({ endpoints: this.endpoints, headers, throttle, streams }) : undefined;
    this.carrier = new StorageTransport({
      endpoints: this.endpoints,
      headers,
      readTimeoutMs,
      writeTimeoutMs,
      throttle,
      exchange,
    });
    this.transport = this.carrier;
  }

  /** The generated client of a service, made on first use. */
  client<S extends DescService>(service: S): Client<S> {
    let client = this.clients.get(service) as Client<S> | undefined;
    if (client === undefined) {
      client = leavable(service, createClient(service, this.transport));
      this.clients.set(service, client);
    }
    return client;
  }

  /** End the connection and every call in flight. It can't be used again. */
  async close(): Promise<void> {
    this.carrier.close();
    this.endpoints.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** Make leaving the loop over a stream end it: connect's clients go on with it. */
function leavable<S extends DescService>(service: S, client: Client<S>): Client<S> {
  const methods = client as Record<string, (request: unknown, options?: CallOptions) => AsyncIterable<unknown>>;
  for (const { methodKind, localName } of service.methods) {
    const call = methods[localName];
    if (methodKind === "server_streaming" && call !== undefined) {
      methods[localName] = async function* (request, options) {
        const left = new AbortController();
        const signal = options?.signal ? AbortSignal.any([options.signal, left.signal]) : left.signal;
        try {
          yield* call(request, { ...options, signal });
        } finally {
          left.abort();
        }
      };
    }
  }
  return client;
}

/** Give an owner, or undefined for none. Throws TypeError, naming the option, for what is no owner. */
export function checkedOwner(ownerId: unknown, name = "ownerId"): string | undefined {
  if (ownerId === undefined || ownerId === null) {
    return undefined;
  }
  if (typeof ownerId !== "string") {
    throw new TypeError(`${name} must be a string, not ${typeof ownerId}`);
  }
  if (!ownerId) {
    throw new TypeError(`${name} must not be empty`);
  }
  return ownerId;
}

const TEXTS = ["target", "token", "tlsCa", "tlsCert", "tlsKey"] as const satisfies (keyof ConnectionOptions)[];
const SWITCHES = ["tls", "plaintextToken", "exchange"] as const satisfies (keyof ConnectionOptions)[];

/** Throws TypeError, naming the option, for one of another type. */
function checkKinds(options: ConnectionOptions): void {
  for (const [names, kind] of [
    [TEXTS, "string"],
    [SWITCHES, "boolean"],
  ] as const) {
    for (const name of names) {
      const value = options[name];
      if (value !== undefined && typeof value !== kind) {
        throw new TypeError(`${name} must be a ${kind}, not ${value === null ? "null" : typeof value}`);
      }
    }
  }
}

function checkedTime(name: string, milliseconds: number): number {
  if (typeof milliseconds !== "number" || !(milliseconds > 0)) {
    throw new TypeError(`${name} must be more than 0 milliseconds`);
  }
  return milliseconds;
}
