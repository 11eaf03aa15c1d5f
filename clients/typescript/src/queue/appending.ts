/** Gathers the events of a run and appends them in order, each once whatever happens on the way. */

import { ServerFault } from "../errors.js";
import { mayPass, Pauses, pause } from "./retrying.js";

// Milliseconds that events gather, and the longest pause before a call is made again.
const GATHER = 50;
const LONGEST_PAUSE = 1_000;
// The most events of a call, and the most bytes in those of several events: what is larger is no call of the exchange.
const MOST_OF_CALL = 1_000;
const BYTES_OF_CALL = 196_608;
// So many faults of the server say that these events meet them again and again.
const MOST_FAULTS = 5;
// So many events, or bytes of them, may wait to be appended before those who emit have to wait.
const MOST = 2_000;
const MOST_BYTES = 4_194_304;
// What an event counts beside its data.
const ENTRY = 32;

/** An event on its way to the log. */
export interface NewEvent {
  type: string;
  data: Uint8Array;
}

/** Appends events from a sequence on; rejects with StorageError. */
export type Append = (firstSequence: bigint, events: NewEvent[]) => Promise<unknown>;

interface Waiter {
  /** How many events must be appended for it to go on. */
  count: number;
  resolve: () => void;
  reject: (failure: unknown) => void;
}

/** The events of one run on their way to its log. */
export class Appender {
  // Those that are not appended, the ones of the call that is made now at the front.
  private waiting: NewEvent[] = [];
  private bytes = 0;
  // How many were added, and how many of them are appended.
  private added = 0;
  private appended = 0;
  private waiters: Waiter[] = [];
  private timer: NodeJS.Timeout | undefined;
  private isSending = false;
  private isFlushing = false;
  private failure: unknown;
  private readonly closed = new AbortController();

  /** `append` is called again with the same events and sequence until it says how it went. */
  constructor(
    private readonly append: Append,
    private sequence: bigint,
  ) {}

  /** Add an event, and wait where too many wait. Rejects with what the run's events failed with. */
  async add(type: string, data: Uint8Array): Promise<void> {
    this.check();
    this.waiting.push({ type, data });
    this.bytes += ENTRY + data.length;
    this.added += 1;
    if (this.isFull(MOST_OF_CALL, BYTES_OF_CALL)) {
      this.send();
    } else {
      this.timer ??= setTimeout(() => this.send(), GATHER);
    }
    if (this.isFull(MOST, MOST_BYTES)) {
      await this.until(this.added - Math.floor(this.waiting.length / 2));
    }
  }

  /** Wait until all that was added is appended. Rejects with what the run's events failed with. */
  async flush(): Promise<void> {
    this.check();
    if (this.appended < this.added) {
      const appended = this.until(this.added);
      this.isFlushing = true;
      this.send();
      await appended;
    }
  }

  /** Append no more, of what was added either; who waits, or comes, is rejected with this. */
  close(failure: unknown): void {
    this.failure ??= failure;
    clearTimeout(this.timer);
    this.closed.abort();
    for (const { reject } of this.waiters.splice(0)) {
      reject(this.failure);
    }
  }

  private check(): void {
    if (this.failure !== undefined) {
      throw this.failure;
    }
  }

  private isFull(events: number, bytes: number): boolean {
    return this.waiting.length >= events || this.bytes >= bytes;
  }

  private until(count: number): Promise<void> {
    return new Promise((resolve, reject) => this.waiters.push({ count, resolve, reject }));
  }

  private send(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    if (!this.isSending && this.failure === undefined) {
      this.isSending = true;
      void this.sendAll();
    }
  }

  /** Append what is due: all of it once somebody flushes, else what makes a full call. */
  private async sendAll(): Promise<void> {
    try {
      do {
        const batch = this.next();
        await this.untilAppended(batch);
        this.waiting.splice(0, batch.length);
        this.bytes -= sizeOf(batch);
        this.sequence += BigInt(batch.length);
        this.appended += batch.length;
        this.tell();
      } while (this.isDue());
    } catch (failure) {
      this.close(failure);
    }
    this.isSending = false;
    if (this.waiting.length && this.failure === undefined) {
      // What came meanwhile gathers too.
      this.timer ??= setTimeout(() => this.send(), GATHER);
    }
  }

  private isDue(): boolean {
    const isWanted = this.isFlushing || this.isFull(MOST_OF_CALL, BYTES_OF_CALL);
    return isWanted && this.waiting.length > 0 && this.failure === undefined;
  }

  private tell(): void {
    const [met, others] = [[] as Waiter[], [] as Waiter[]];
    for (const waiter of this.waiters) {
      (waiter.count <= this.appended ? met : others).push(waiter);
    }
    this.waiters = others;
    this.isFlushing &&= others.length > 0;
    for (const { resolve } of met) {
      resolve();
    }
  }

  private next(): NewEvent[] {
    let [count, size] = [0, 0];
    for (const { data } of this.waiting) {
      size += ENTRY + data.length;
      if (count && (size > BYTES_OF_CALL || count === MOST_OF_CALL)) {
        break;
      }
      count += 1;
    }
    return this.waiting.slice(0, count);
  }

  private async untilAppended(batch: NewEvent[]): Promise<void> {
    const pauses = new Pauses(LONGEST_PAUSE);
    for (let faults = 0; ; ) {
      try {
        await this.append(this.sequence, batch);
        return;
      } catch (failure) {
        faults += failure instanceof ServerFault ? 1 : 0;
        if (!mayPass(failure) || faults === MOST_FAULTS) {
          throw failure;
        }
      }
      if (!(await pause(pauses.next(), this.closed.signal))) {
        throw this.failure;
      }
    }
  }
}

function sizeOf(events: NewEvent[]): number {
  return events.reduce((size, { data }) => size + ENTRY + data.length, 0);
}
