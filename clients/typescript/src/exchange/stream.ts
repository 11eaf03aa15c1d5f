/** One stream of an exchange, to one process of the service, on a connection of its own. */

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { isBroken } from "../broken.js";
import type { Endpoints } from "../endpoints.js";
import { ExchangeRequestSchema, type ExchangeResponse, ExchangeService } from "../gen/agentstorage/v1/exchange_pb.js";
import type { Session } from "../session.js";
import { type ExchangedCall, LARGEST } from "./call.js";
import type { Exchange } from "./index.js";

/** Milliseconds without a word before a server with calls at work is asked whether it is there, and again before it is taken for frozen. */
export const SILENCE = 1000;

// The process of the service that a stream has come to, and how many calls and bytes at once it takes, in the metadata that begins it.
const INSTANCE = "agentstorage-instance";
const ROOM = "agentstorage-exchange-calls";
const BYTES = "agentstorage-exchange-bytes";
const DEFAULT_ROOM = 100;
const DEFAULT_BYTES = 67_108_864;
// How often a connection is asked for another process: over several addresses, the streams go round.
const TRIES = 3;
const LONGEST_MS = 2 ** 32 - 1;

type Request = MessageInitShape<typeof ExchangeRequestSchema>;

/** One stream. */
export class Stream {
  readonly calls = new Map<bigint, ExchangedCall>();
  /** The process at its other end. */
  instance = "";
  /** The headers that it carries, of which the token is one. */
  readonly headers: Record<string, string>;
  readonly since = performance.now();
  hasBegun = false;
  isOpen = false;
  isSuspect = false;
  /** Whether the server has said that it answers what it has and refuses the rest. */
  isDraining = false;
  private heard = performance.now();
  private asked = 0;
  private asks = false;
  private isRetired = false;
  private isAbandoned = false;
  private lastId = 0n;
  private readonly unsent = new Map<bigint, ExchangedCall>();
  private cancels: bigint[] = [];
  private wake: (() => void) | undefined;
  private session: Session | undefined;
  private abort = new AbortController();
  // A session holds the process from its first stream on.
  private isHolding = true;
  // How many further calls the server takes now, and how many bytes are in those that it has.
  private room = 0;
  private bytes = 0;
  private mostBytes = DEFAULT_BYTES / 2;

  constructor(
    private readonly exchange: Exchange,
    private readonly endpoints: Endpoints,
  ) {
    this.headers = exchange.headers();
  }

  /** Send a call with the next message. */
  send(call: ExchangedCall): void {
    this.lastId += 1n;
    call.id = this.lastId;
    call.stream = this;
    call.since = performance.now();
    this.calls.set(call.id, call);
    this.unsent.set(call.id, call);
    this.hold();
    this.wakeUp();
  }

  /** Tell the server that nobody waits for a call. */
  cancel(call: ExchangedCall): void {
    if (!this.calls.delete(call.id)) {
      return;
    }
    if (call.isSent) {
      this.free(call);
      this.cancels.push(call.id);
    } else {
      this.unsent.delete(call.id);
    }
    this.hold();
    this.wakeUp();
  }

  /** Take no more calls, hand on those that are not sent, and end when those at work are answered. */
  retire(): void {
    this.isRetired = true;
    this.isOpen = false;
    this.exchange.retired(this);
    const unsent = [...this.unsent.values()];
    this.unsent.clear();
    for (const call of unsent) {
      this.calls.delete(call.id);
      this.exchange.send(call);
    }
    this.wakeUp();
  }

  /** End now, and whatever is at work on it. */
  abandon(): void {
    this.isAbandoned = true;
    this.exchange.retired(this);
    this.leave();
    this.wakeUp();
  }

  /** Whether a server with calls at work has said nothing for long, not even when asked. */
  isFrozen(now: number): boolean {
    const [oldest] = this.calls.values();
    const silent = now - Math.max(this.heard, oldest?.since ?? now);
    if (silent < SILENCE) {
      return false;
    }
    if (this.asked <= this.heard) {
      this.asks = true;
      this.asked = now;
      this.wakeUp();
    }
    this.isSuspect ||= now - this.asked >= SILENCE;
    return this.isSuspect;
  }

  /** Live: begin, carry calls, end. */
  async run(): Promise<void> {
    // What is not answered may have been run, unless something better is known.
    let error: ConnectError | undefined = new ConnectError("the stream ended", Code.Unavailable);
    try {
      const begun = await this.begin();
      this.hasBegun = true;
      this.instance = begun.header.get(INSTANCE) ?? "";
      // However little a server says that it takes, there is always room for one call.
      this.room = Math.max(1, Number(begun.header.get(ROOM) ?? DEFAULT_ROOM));
      // Half of what the server takes, since others' answers count there too.
      this.mostBytes = Math.max(1, Number(begun.header.get(BYTES) ?? DEFAULT_BYTES) / 2);
      this.hold();
      if (!this.exchange.opened(this)) {
        error = undefined;
        return;
      }
      for await (const response of begun.messages) {
        this.take(response);
      }
      if (this.isDraining) {
        error = undefined;
      }
    } catch (failure) {
      error = ConnectError.from(failure);
      if (isBroken(error)) {
        error = new ConnectError(error.rawMessage, Code.Unavailable);
      }
    } finally {
      this.isOpen = false;
      this.leave();
      this.wakeUp();
      this.exchange.ended(this, error);
    }
  }

  /** Begin, at a process that has no stream yet where there is one to offer. */
  private async begin(): Promise<{ header: Headers; messages: AsyncIterable<ExchangeResponse> }> {
    for (let left = TRIES - 1; ; left -= 1) {
      const { session, transport } = await this.endpoints.open();
      this.session = session;
      this.abort = new AbortController();
      if (this.isAbandoned) {
        throw new ConnectError("nobody waits for the stream", Code.Canceled);
      }
      const requests = this.requests();
      const { exchange } = ExchangeService.method;
      const begun = await transport.stream(exchange, this.abort.signal, undefined, this.headers, requests);
      const instance = begun.header.get(INSTANCE);
      if (!instance) {
        // A stream that is refused ends here with why. What goes on is no exchange.
        for await (const _ of begun.message) {
          break;
        }
        throw new ConnectError("what answered is no exchange", Code.Unimplemented);
      }
      if (left === 0 || !this.exchange.knows(instance)) {
        return { header: begun.header, messages: begun.message };
      }
      this.leave();
    }
  }

  private leave(): void {
    this.abort.abort();
    if (this.session !== undefined) {
      this.endpoints.leave(this.session);
    }
  }

  private take(response: ExchangeResponse): void {
    this.heard = performance.now();
    this.isSuspect = false;
    if (response.draining && !this.isDraining) {
      this.isDraining = true;
      if (!this.isRetired) {
        this.retire();
      }
    }
    for (const reply of response.replies) {
      const call = this.calls.get(reply.id);
      if (call === undefined) {
        continue;
      }
      if (reply.more) {
        if (reply.outcome.case === "response") {
          call.parts.push(reply.outcome.value);
        }
        continue;
      }
      this.calls.delete(reply.id);
      this.free(call);
      this.exchange.replied(call, reply, this);
    }
    this.exchange.wasHeard();
    this.hold();
    if (this.unsent.size || (this.isRetired && !this.calls.size)) {
      this.wakeUp();
    }
  }

  /** What is written: whatever has gathered since the last message. Ends when a retired stream has no more calls. */
  private async *requests(): AsyncGenerator<Request> {
    const { signal } = this.abort;
    while (!signal.aborted && !(this.isRetired && !this.calls.size && !this.cancels.length)) {
      const isDue = (this.unsent.size > 0 && this.hasRoom()) || this.cancels.length > 0 || this.asks;
      if (this.hasBegun && isDue) {
        yield this.next();
      } else {
        await new Promise<void>((resolve) => {
          this.wake = resolve;
        });
        // Whoever else calls in this turn of the event loop goes along.
        await new Promise<void>((resolve) => setImmediate(resolve));
      }
    }
  }

  private wakeUp(): void {
    this.wake?.();
    this.wake = undefined;
  }

  private hasRoom(): boolean {
    return this.room > 0 && this.bytes < this.mostBytes;
  }

  private free(call: ExchangedCall): void {
    this.room += 1;
    this.bytes -= call.data.length;
  }

  private next(): Request {
    const cancels = this.cancels;
    this.cancels = [];
    this.asks = false;
    const calls: { id: bigint; method: string; request: Uint8Array; timeoutMs: number }[] = [];
    const now = performance.now();
    let size = 0;
    for (const [id, call] of this.unsent) {
      if (!this.hasRoom() || size >= LARGEST) {
        break;
      }
      this.unsent.delete(id);
      call.isSent = true;
      this.room -= 1;
      size += call.data.length;
      this.bytes += call.data.length;
      const timeoutMs = Math.ceil(Math.min(Math.max(call.deadline - now, 1), LONGEST_MS));
      calls.push({ id, method: call.rules.path, request: call.data, timeoutMs });
    }
    return create(ExchangeRequestSchema, { calls, cancels, inFlight: this.calls.size });
  }

  /** Keep the process alive while calls are in flight, and only then. */
  private hold(): void {
    const isNeeded = this.calls.size > 0;
    if (this.hasBegun && isNeeded !== this.isHolding) {
      this.isHolding = isNeeded;
      this.session?.hold(isNeeded);
    }
  }
}
