/** The addresses of the service: which are there, and who gets the next call. */

import { connect as connectTcp, isIP } from "node:net";
import { connect as connectTls } from "node:tls";
import { Code, ConnectError, type Transport } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import type { TlsContext } from "./credentials.js";
import { Session } from "./session.js";
import { type Address, resolve, type Target } from "./target.js";

// The server's limit of 64 MiB, and room for what surrounds a payload of that size.
const MESSAGE_BYTES = 64 * 1024 * 1024 + 64 * 1024;
// How long an address that could not be reached is left alone, at first and at most, and how often names are looked up, in milliseconds.
const FIRST_REST = 100;
const LONGEST_REST = 2_000;
const LOOKUP_EVERY = 5_000;
// How long making a connection may take, where there is no other address and where there are, in milliseconds.
const CONNECT_ALONE = 5_000;
const CONNECT = 1_000;

/** A connection and the RPCs over it. */
export interface Opened {
  session: Session;
  transport: Transport;
}

/** One address with the connection to it. */
export class Endpoint {
  readonly session: Session;
  /** Plain RPCs over that connection. */
  readonly transport: Transport;
  private failures = 0;
  private restsUntil = 0;

  /** `limit` says how many milliseconds making a connection may take. */
  constructor(
    readonly address: Address,
    private readonly secure: TlsContext | undefined,
    private readonly limit: () => number,
  ) {
    const { session, transport } = this.open(true);
    this.session = session;
    this.transport = transport;
  }

  /** Another connection to the same address, for the caller to close. */
  open(holds = false): Opened {
    const { host, port, path, serverName } = this.address;
    const name = host.includes(":") ? `[${host}]` : host || "localhost";
    const baseUrl = `${this.secure ? "https" : "http"}://${name}${port ? `:${port}` : ""}`;
    const where = path ? { path } : { host, port };
    // An IP address is no name to ask a server for.
    const asked = isIP(serverName) ? {} : { servername: serverName };
    const dial = () =>
      this.secure
        ? connectTls({ ...where, ...this.secure, ...asked, ALPNProtocols: ["h2"] })
        : connectTcp({ ...where, noDelay: true });
    const session = new Session({ authority: new URL(baseUrl).origin, dial, limit: this.limit, holds });
    const limits = { readMaxBytes: MESSAGE_BYTES, writeMaxBytes: MESSAGE_BYTES };
    return { session, transport: createGrpcTransport({ baseUrl, sessionManager: session, ...limits }) };
  }

  /** Milliseconds until it is worth another try; 0 for now. */
  rest(now: number): number {
    return Math.max(0, this.restsUntil - now);
  }

  /** Take note that it has answered, or could not be reached or was silent for all of a call's time. */
  answered(yes: boolean): void {
    if (!yes) {
      this.session.doubt();
    }
    this.failures = yes ? 0 : this.failures + 1;
    this.restsUntil = yes ? 0 : performance.now() + Math.min(LONGEST_REST, FIRST_REST * 2 ** (this.failures - 1));
  }
}

/** All addresses of a target. */
export class Endpoints {
  private found: Endpoint[] = [];
  private readonly known = new Map<string, Endpoint>();
  private readonly opened = new Set<Session>();
  private lookedUp = Number.NEGATIVE_INFINITY;
  private looking: Promise<void> | undefined;
  private turn = Math.floor(Math.random() * 1000);
  private closed = false;

  constructor(
    readonly target: Target,
    private readonly secure: TlsContext | undefined,
  ) {}

  /**
   * The address that gets the next call, connected: each in its turn, without those that could not be reached a moment ago.
   *
   * Throws what connecting to the last of them threw when none can be reached.
   */
  async pick(): Promise<Endpoint> {
    return await this.inTurn(async (endpoint) => {
      await endpoint.session.connect();
      return endpoint;
    });
  }

  /** A connection of its own, for the caller to close, to the address whose turn it is. Throws as `pick` does. */
  async open(): Promise<Opened> {
    return await this.inTurn(async (endpoint) => {
      const opened = endpoint.open();
      this.opened.add(opened.session);
      try {
        await opened.session.connect();
        endpoint.answered(true);
      } catch (error) {
        this.leave(opened.session);
        throw error;
      }
      return opened;
    });
  }

  /** Close a connection that was opened. */
  leave(session: Session): void {
    this.opened.delete(session);
    session.abort();
  }

  private async inTurn<T>(connect: (endpoint: Endpoint) => Promise<T>): Promise<T> {
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
        return await connect(endpoint);
      } catch (error) {
        failure = error;
        endpoint.answered(false);
      }
    }
    this.lookedUp = Math.min(this.lookedUp, performance.now() - LOOKUP_EVERY);
    throw failure;
  }

  private get limit(): number {
    return this.found.length > 1 ? CONNECT : CONNECT_ALONE;
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
      const known = this.known.get(key(address)) ?? new Endpoint(address, this.secure, () => this.limit);
      this.known.set(key(address), known);
      return known;
    });
    // What is not among the addresses any more goes on with the calls that it has.
    for (const [name, endpoint] of this.known) {
      if (endpoint.session.isClosed && !this.found.includes(endpoint)) {
        this.known.delete(name);
      }
    }
  }

  /** End every connection. */
  close(): void {
    this.closed = true;
    for (const session of [...this.opened, ...[...this.known.values()].map((endpoint) => endpoint.session)]) {
      session.abort();
    }
  }
}
