/** The addresses of the service: which are there, and who gets the next call. */

import { readFileSync } from "node:fs";
import type { ClientSessionOptions, Http2Session, SecureClientSessionOptions } from "node:http2";
import { connect as connectSocket } from "node:net";
import { Code, ConnectError, type Transport } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { type Address, resolve, type Target } from "./target.js";

/** What TLS needs; files in PEM. */
export interface TlsFiles {
  ca?: string | undefined;
  cert?: string | undefined;
  key?: string | undefined;
}

// The server's limit of 64 MiB, and room for what surrounds a payload of that size.
const MESSAGE_BYTES = 64 * 1024 * 1024 + 64 * 1024;
const KEEPALIVE = { pingIntervalMs: 10_000, pingTimeoutMs: 3_000 };
// How long an address that could not be reached is left alone, at first and at most, and how often names are looked up, in milliseconds.
const FIRST_REST = 100;
const LONGEST_REST = 2_000;
const LOOKUP_EVERY = 5_000;
// How long making a connection may take, where there is no other address and where there are, in milliseconds.
const CONNECT_ALONE = 5_000;
const CONNECT = 1_000;

/** The connection to one address, which tells its HTTP/2 session. */
export class Session extends Http2SessionManager {
  /** The session of the newest request. */
  http2: Http2Session | undefined;

  override async request(...args: Parameters<Http2SessionManager["request"]>) {
    const stream = await super.request(...args);
    this.http2 = stream.session;
    return stream;
  }
}

/** The text of a file that an option names. Throws Error, naming the option, when it can't be read. */
export function readNamed(option: string, path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw new Error(`${option}: ${path} can't be read: ${(error as Error).message}`, { cause: error });
  }
}

/** A connection and the RPCs over it. */
export interface Opened {
  session: Session;
  transport: Transport;
}

/** Connect, or give up after so many milliseconds: an address that swallows packets answers nothing for minutes. */
async function reach(session: Session, limit: number): Promise<void> {
  const late = new ConnectError(`no connection within ${limit} ms`, Code.Unavailable);
  const timer = setTimeout(() => session.abort(late), limit);
  try {
    if ((await session.connect()) === "error") {
      throw session.error() ?? late;
    }
  } finally {
    clearTimeout(timer);
  }
}

/** One address with the connection to it. */
export class Endpoint {
  readonly session: Session;
  /** Plain RPCs over that connection. */
  readonly transport: Transport;
  private failures = 0;
  private restsUntil = 0;

  constructor(
    readonly address: Address,
    private readonly secure: SecureClientSessionOptions | undefined,
  ) {
    const { session, transport } = this.open();
    this.session = session;
    this.transport = transport;
  }

  /** Another connection to the same address, for the caller to close. */
  open(): Opened {
    const { host, port, path, serverName } = this.address;
    const name = host.includes(":") ? `[${host}]` : host || "localhost";
    const baseUrl = `${this.secure ? "https" : "http"}://${name}${port ? `:${port}` : ""}`;
    const options: ClientSessionOptions | SecureClientSessionOptions = {
      // The default of 64 KiB makes a large answer wait for the client again and again.
      settings: { initialWindowSize: 1 << 20 },
      maxSessionMemory: 1024,
      ...(this.secure ? { ...this.secure, servername: serverName } : {}),
      ...(path ? { createConnection: () => connectSocket(path) } : {}),
    };
    const session = new Session(baseUrl, KEEPALIVE, options);
    const limits = { readMaxBytes: MESSAGE_BYTES, writeMaxBytes: MESSAGE_BYTES };
    return { session, transport: createGrpcTransport({ baseUrl, sessionManager: session, ...limits }) };
  }

  /** Milliseconds until it is worth another try; 0 for now. */
  rest(now: number): number {
    return Math.max(0, this.restsUntil - now);
  }

  /** Take note that it has answered, or could not be reached or was silent for all of a call's time. */
  answered(yes: boolean): void {
    this.failures = yes ? 0 : this.failures + 1;
    this.restsUntil = yes ? 0 : performance.now() + Math.min(LONGEST_REST, FIRST_REST * 2 ** (this.failures - 1));
  }
}

/** All addresses of a target. */
export class Endpoints {
  private readonly secure: SecureClientSessionOptions | undefined;
  private found: Endpoint[] = [];
  private readonly known = new Map<string, Endpoint>();
  private lookedUp = Number.NEGATIVE_INFINITY;
  private looking: Promise<void> | undefined;
  private turn = Math.floor(Math.random() * 1000);
  private closed = false;

  /** Throws Error for a file that can't be read. */
  constructor(
    readonly target: Target,
    tls: TlsFiles | undefined,
  ) {
    this.secure = tls && {
      ...(tls.ca ? { ca: readNamed("tlsCa", tls.ca) } : {}),
      ...(tls.cert ? { cert: readNamed("tlsCert", tls.cert) } : {}),
      ...(tls.key ? { key: readNamed("tlsKey", tls.key) } : {}),
    };
  }

  /**
   * The address that gets the next call, connected: each in its turn, without those that could not be reached a moment ago.
   *
   * Throws what connecting to the last of them threw when none can be reached.
   */
  async pick(): Promise<Endpoint> {
    return await this.inTurn(async (endpoint, limit) => {
      await reach(endpoint.session, limit);
      return endpoint;
    });
  }

  /** A connection of its own, for the caller to close, to the address whose turn it is. Throws as `pick` does. */
  async open(): Promise<Opened> {
    return await this.inTurn(async (endpoint, limit) => {
      const opened = endpoint.open();
      try {
        await reach(opened.session, limit);
      } catch (error) {
        opened.session.abort();
        throw error;
      }
      return opened;
    });
  }

  private async inTurn<T>(connect: (endpoint: Endpoint, limit: number) => Promise<T>): Promise<T> {
    await this.lookUp();
    if (this.closed) {
      throw new ConnectError("the connection is closed", Code.Canceled);
    }
    const now = performance.now();
    this.turn += 1;
    const turns = this.found.map((_, index) => this.found[(this.turn + index) % this.found.length] as Endpoint);
    // Those that rest come last, the one that has rested longest first: a client with nobody else to ask does not wait.
    const fit = turns.filter((one) => one.rest(now) === 0);
    const unfit = turns.filter((one) => one.rest(now) > 0).sort((a, b) => a.rest(now) - b.rest(now));
    let failure: unknown;
    for (const endpoint of [...fit, ...unfit]) {
      try {
        return await connect(endpoint, turns.length > 1 ? CONNECT : CONNECT_ALONE);
      } catch (error) {
        failure = error;
        endpoint.answered(false);
      }
    }
    this.lookedUp = Math.min(this.lookedUp, performance.now() - LOOKUP_EVERY);
    throw failure;
  }

  private async lookUp(): Promise<void> {
    if (performance.now() - this.lookedUp > LOOKUP_EVERY && this.looking === undefined && !this.closed) {
      const isNamed = this.target.addresses.some(({ host, serverName }) => host === serverName);
      if (!this.found.length || isNamed) {
        this.looking = this.lookUpAll().finally(() => {
          this.looking = undefined;
        });
      }
    }
    if (!this.found.length) {
      await this.looking;
    } else {
      // What is known serves meanwhile, and when the lookup fails.
      this.looking?.catch(() => undefined);
    }
  }

  private async lookUpAll(): Promise<void> {
    const addresses = (await Promise.all(this.target.addresses.map(resolve))).flat();
    this.lookedUp = performance.now();
    const key = ({ host, port, path }: Address) => `${path ?? ""} ${host} ${port}`;
    this.found = addresses.map((address) => {
      const known = this.known.get(key(address)) ?? new Endpoint(address, this.secure);
      // What is not among the addresses any more goes on with the calls that it has.
      this.known.set(key(address), known);
      return known;
    });
  }

  /** End every connection. */
  close(): void {
    this.closed = true;
    for (const endpoint of this.known.values()) {
      endpoint.session.abort();
    }
  }
}
