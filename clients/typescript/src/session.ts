/** An HTTP/2 connection to one address, made when it is needed and again when it has gone. */

import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  constants,
  type OutgoingHttpHeaders,
} from "node:http2";
import type { Socket } from "node:net";
import { Code, ConnectError } from "@connectrpc/connect";

// Milliseconds: without a word while calls are at work before a ping, and for its answer; for that of a connection that is doubted.
const PING_EVERY = 10_000;
const PING_ANSWER = 3_000;
const DOUBT_ANSWER = 1_000;
// Bytes that may be on their way to a call, and to all of them. The defaults of 64 KiB make a large answer wait again and again.
const STREAM_WINDOW = 1 << 20;
const CONNECTION_WINDOW = 1 << 22;
// Megabytes that Node may hold for a connection; it opens no stream beyond.
const SESSION_MEMORY = 1024;

/** What a session is made with. */
export interface SessionParts {
  /** The scheme, host and port. */
  authority: string;
  /** Begins a connection. */
  dial: () => Socket;
  /** Milliseconds that making one may take. */
  limit: () => number;
  /** Whether a call keeps the process alive; otherwise `hold` says when. */
  holds: boolean;
}

/**
 * The connection under connect's transport. In place of its own session manager, since that takes a server for connected that accepts and
 * says nothing, does not let go of a connection that is still being made, and keeps to itself the session of a stream.
 */
export class Session {
  readonly authority: string;
  private current: ClientHttp2Session | undefined;
  private dialing: Promise<ClientHttp2Session> | undefined;
  private checking: Promise<boolean> | undefined;
  private readonly sockets = new Set<Socket>();
  private readonly streams = new WeakMap<ClientHttp2Session, number>();
  private heard = 0;
  private isDoubted = false;
  private isOver = false;

  constructor(private readonly parts: SessionParts) {
    this.authority = parts.authority;
  }

  /** Whether no connection is open or being made. */
  get isClosed(): boolean {
    return this.sockets.size === 0;
  }

  /** Make sure that there is a connection to a server that answers. Rejects with ConnectError (UNAVAILABLE). */
  async connect(): Promise<void> {
    await this.ready();
  }

  /** Begin a request, as connect's transport asks for it. */
  async request(
    method: string,
    path: string,
    headers: OutgoingHttpHeaders,
    options: object,
  ): Promise<ClientHttp2Stream> {
    const connection = await this.ready();
    const stream = connection.request({ ...headers, ":method": method, ":path": path }, options);
    this.count(connection, 1);
    stream.once("close", () => this.count(connection, -1));
    return stream;
  }

  /** Take note of an answer. */
  notifyResponseByteRead(): void {
    this.heard = performance.now();
  }

  /** Have the server answer a ping before the next call goes to it. */
  doubt(): void {
    this.isDoubted = true;
  }

  /** Keep the process alive, or not. */
  hold(isNeeded: boolean): void {
    if (this.current !== undefined && !this.current.destroyed) {
      if (isNeeded) {
        this.current.ref();
      } else {
        this.current.unref();
      }
    }
  }

  /** End it with all of its calls, for good. */
  abort(): void {
    this.isOver = true;
    this.current?.destroy(undefined, constants.NGHTTP2_CANCEL);
    for (const socket of this.sockets) {
      socket.destroy();
    }
  }

  private async ready(): Promise<ClientHttp2Session> {
    const connection = this.current;
    if (connection !== undefined && isUsable(connection) && (!this.isDoubted || (await this.check(connection)))) {
      return connection;
    }
    if (this.isOver) {
      throw new ConnectError("the connection is closed", Code.Canceled);
    }
    this.dialing ??= this.dial().finally(() => {
      this.dialing = undefined;
    });
    return await this.dialing;
  }

  private dial(): Promise<ClientHttp2Session> {
    const limit = this.parts.limit();
    const socket = this.parts.dial();
    this.sockets.add(socket);
    socket.once("close", () => this.sockets.delete(socket));
    const connection = connect(this.authority, {
      createConnection: () => socket,
      settings: { initialWindowSize: STREAM_WINDOW },
      maxSessionMemory: SESSION_MEMORY,
    });
    return new Promise((resolve, reject) => {
      const fail = (error?: Error) => {
        clearTimeout(timer);
        connection.destroy();
        socket.destroy();
        const text = error?.message || "the connection was closed";
        reject(new ConnectError(text, Code.Unavailable, undefined, undefined, error));
      };
      let isMade = false;
      // What has come while the event loop was busy counts.
      const expire = () => setImmediate(() => isMade || fail(new Error(`no answer within ${limit} ms`)));
      const timer = setTimeout(expire, limit);
      // What breaks it later its calls tell: to fail is nothing then.
      connection.on("error", fail);
      connection.once("close", fail);
      connection.once("remoteSettings", () => {
        isMade = true;
        clearTimeout(timer);
        connection.off("close", fail);
        this.use(connection);
        resolve(connection);
      });
    });
  }

  private use(connection: ClientHttp2Session): void {
    this.current = connection;
    this.heard = performance.now();
    this.isDoubted = false;
    // Bun (1.4) stops reading after that.
    if (!process.versions.bun) {
      connection.setLocalWindowSize(CONNECTION_WINDOW);
    }
    if (this.parts.holds) {
      connection.unref();
    }
    const pinging = setInterval(() => {
      if (this.streams.get(connection) && performance.now() - this.heard >= PING_EVERY) {
        void this.ping(connection, PING_ANSWER);
      }
    }, PING_EVERY).unref();
    connection.once("close", () => clearInterval(pinging));
  }

  private count(connection: ClientHttp2Session, change: number): void {
    const before = this.streams.get(connection) ?? 0;
    this.streams.set(connection, before + change);
    if (this.parts.holds && !connection.destroyed) {
      if (before === 0) {
        connection.ref();
      } else if (before + change === 0) {
        connection.unref();
      }
    }
  }

  private async check(connection: ClientHttp2Session): Promise<boolean> {
    this.checking ??= this.ping(connection, DOUBT_ANSWER).finally(() => {
      this.checking = undefined;
    });
    return await this.checking;
  }

  /** Whether the server answers within so many milliseconds; if not, the connection ends. */
  private async ping(connection: ClientHttp2Session, limit: number): Promise<boolean> {
    const isAnswered = await new Promise<boolean>((resolve) => {
      const timer = setTimeout(() => setImmediate(() => resolve(false)), limit);
      const answered = (error: Error | null) => {
        clearTimeout(timer);
        resolve(error === null);
      };
      if (!isUsable(connection) || !connection.ping(answered)) {
        clearTimeout(timer);
        resolve(false);
      }
    });
    if (isAnswered) {
      this.heard = performance.now();
      this.isDoubted = false;
    } else {
      // With an error its streams fail too: without one, those that wait for an answer would wait on.
      connection.destroy(new Error("the server did not answer a ping"), constants.NGHTTP2_CANCEL);
    }
    return isAnswered;
  }
}

function isUsable(connection: ClientHttp2Session): boolean {
  return !connection.closed && !connection.destroyed;
}
