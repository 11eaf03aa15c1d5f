/** The lease of a run: it is renewed while the run is at work, and with it ends all that is said about the run. */

import type { CallOptions, Client } from "@connectrpc/connect";
import type { Connection } from "../connection.js";
import { FailedPrecondition, LeaseLost, NotFound } from "../errors.js";
import { CancelAction as Action, type ClaimedRun, RunService } from "../gen/agentstorage/v1/runs_pb.js";
import type { CancelAction } from "./records.js";
import { isEndedHere, isRefusal, mayPass, Pauses, pause } from "./retrying.js";

// Milliseconds: the most for one call about a run; the least and the most for a heartbeat, as the lease has room.
const CALL = 10_000;
const SHORTEST_BEAT = 1_000;
const LONGEST_BEAT = 5_000;
// Milliseconds before a run is followed to hear that it is to stop: shorter ones are not worth a stream.
const FIRST_LOOK = 100;
// After so many milliseconds a stream that ended had been there.
const LIVED = 10_000;
// A place that no event has: who is told of a stop alone need not get the events that it has just sent.
const BEYOND = 2n ** 62n;

/** What every call about a leased run names. */
export interface Leased {
  ownerId: string | undefined;
  runId: string;
  leaseToken: bigint;
}

/** Who is told what becomes of a lease. */
export interface LeaseListener {
  /** The run is to stop. May come several times. */
  asked(action: CancelAction): void;
  /** The run is another worker's by now, or may be. Comes once. */
  lost(failure: LeaseLost): void;
}

/** The lease of one run. */
export class Lease {
  readonly named: Leased;
  readonly client: Client<typeof RunService>;
  private until: number;
  private loss: LeaseLost | undefined;
  private expiry: NodeJS.Timeout | undefined;
  private next: NodeJS.Timeout | undefined;
  private isBeating = false;
  private isAgain = false;
  private readonly pauses: Pauses;
  // Of every call about the run; of the heartbeats; of the stream that tells that it is to stop.
  private readonly ended = new AbortController();
  private readonly renewing = new AbortController();
  private readonly watching = new AbortController();

  constructor(
    connection: Connection,
    { run, ownerId, leaseToken }: ClaimedRun,
    private readonly milliseconds: number,
    private readonly listener: LeaseListener,
  ) {
    // A run without an owner is nobody's, whoever the connection calls for.
    this.named = { ownerId: ownerId || undefined, runId: run?.runId ?? "", leaseToken };
    this.client = connection.client(RunService);
    this.until = performance.now() + milliseconds;
    this.pauses = new Pauses(milliseconds / 6);
  }

  /** Whether the run is another worker's by now, or may be. */
  get isLost(): boolean {
    return this.loss !== undefined;
  }

  /** Milliseconds until the lease lapses unless it is renewed. */
  get left(): number {
    return this.until - performance.now();
  }

  /** Begin to renew it, and to hear whether the run is to stop. */
  begin(): void {
    this.arm();
    this.beatIn(this.milliseconds / 3);
    void this.watch();
  }

  /** Renew it no more: what is left of it is the time to say how the run ended. */
  rest(): void {
    clearTimeout(this.next);
    this.renewing.abort();
    this.watching.abort();
  }

  /** End it here, with every call about the run. */
  end(): void {
    this.rest();
    clearTimeout(this.expiry);
    this.ended.abort();
  }

  /** Make a call about the run once. Rejects with StorageError, with LeaseLost when the lease is lost or over. */
  async call<T>(make: (options: CallOptions) => Promise<T>): Promise<T> {
    return await this.made(make, this.ended.signal, CALL);
  }

  /** Make a call about the run until it goes through, the lease is over, or it is one that can't go through. Rejects as `call` does. */
  async insist<T>(make: (options: CallOptions) => Promise<T>): Promise<T> {
    const pauses = new Pauses(Math.min(1_000, this.milliseconds / 6));
    for (;;) {
      try {
        return await this.call(make);
      } catch (error) {
        if (this.isLost || this.ended.signal.aborted || isRefusal(error)) {
          throw error;
        }
      }
      await pause(Math.min(pauses.next(), Math.max(0, this.left)), this.ended.signal);
    }
  }

  private async made<T>(make: (options: CallOptions) => Promise<T>, signal: AbortSignal, most: number): Promise<T> {
    if (this.loss === undefined && this.left <= 0) {
      this.lose(this.lapsed());
    }
    if (this.loss !== undefined) {
      throw this.loss;
    }
    try {
      return await make({ signal, timeoutMs: Math.max(1, Math.min(this.left, most)) });
    } catch (error) {
      // What is known by now of a call that nobody waits for says nothing of the lease.
      const found = signal.aborted ? undefined : this.lossBy(error);
      if (this.loss === undefined && found !== undefined) {
        this.lose(found);
      }
      throw this.loss ?? error;
    }
  }

  private lossBy(error: unknown): LeaseLost | undefined {
    if (error instanceof LeaseLost) {
      return error;
    }
    const { runId } = this.named;
    if (error instanceof NotFound) {
      return new LeaseLost(`run ${runId} is deleted`, { method: error.method });
    }
    const isLost = error instanceof FailedPrecondition || isEndedHere(error);
    return isLost ? new LeaseLost(`run ${runId} can't be kept: ${error}`) : undefined;
  }

  private lapsed(): LeaseLost {
    return new LeaseLost(`the lease of run ${this.named.runId} is over: no heartbeat was answered in time`);
  }

  private lose(failure: LeaseLost): void {
    this.loss = failure;
    this.end();
    this.listener.lost(failure);
  }

  /** Have an eye on its end. */
  private arm(): void {
    clearTimeout(this.expiry);
    if (this.ended.signal.aborted) {
      return;
    }
    this.expiry = setTimeout(() => (this.left > 0 ? this.arm() : this.lose(this.lapsed())), this.left + 1);
  }

  private beatIn(milliseconds: number): void {
    clearTimeout(this.next);
    if (!this.renewing.signal.aborted) {
      this.next = setTimeout(() => void this.beat(), Math.max(0, milliseconds));
    }
  }

  /** Renew it once more as soon as may be, to see how it stands. */
  private look(): void {
    if (this.isBeating) {
      this.isAgain = true;
    } else {
      this.beatIn(0);
    }
  }

  private async beat(): Promise<void> {
    this.isBeating = true;
    this.isAgain = false;
    const sent = performance.now();
    const leaseSeconds = this.milliseconds / 1000;
    const most = Math.min(Math.max(this.milliseconds / 6, SHORTEST_BEAT), LONGEST_BEAT);
    try {
      const beat = (options: CallOptions) => this.client.heartbeatRun({ ...this.named, leaseSeconds }, options);
      const { cancel } = await this.made(beat, this.renewing.signal, most);
      // It was renewed after it was asked for, whenever that was.
      this.until = sent + this.milliseconds;
      this.pauses.reset();
      this.arm();
      if (cancel) {
        this.asked(cancel);
      }
      this.beatIn(sent + this.milliseconds / 3 - performance.now());
    } catch {
      // Whatever it is, only the end of the lease ends the attempts.
      this.beatIn(this.pauses.next());
    }
    this.isBeating = false;
    if (this.isAgain) {
      this.beatIn(0);
    }
  }

  private asked(cancel: Action): void {
    this.watching.abort();
    if (!this.renewing.signal.aborted) {
      this.listener.asked(cancel === Action.ROLLBACK ? "rollback" : "interrupt");
    }
  }

  /** Hear at once that the run is to stop. Where that fails for good the heartbeats tell, later. */
  private async watch(): Promise<void> {
    const { signal } = this.watching;
    const { ownerId, runId } = this.named;
    const request = { ownerId, runId, after: BEYOND };
    const pauses = new Pauses();
    let isGoingOn = await pause(FIRST_LOOK, signal);
    while (isGoingOn) {
      const began = performance.now();
      try {
        for await (const { cancel, run } of this.client.streamRunEvents(request, { signal })) {
          if (cancel) {
            this.asked(cancel);
          }
          if (run !== undefined) {
            // Somebody else ended it: ask what that means for the lease.
            this.look();
            return;
          }
        }
      } catch (error) {
        if (error instanceof NotFound) {
          this.look();
        }
        if (!mayPass(error)) {
          return;
        }
      }
      if (performance.now() - began > LIVED) {
        pauses.reset();
      }
      isGoingOn = await pause(pauses.next(), signal);
    }
  }
}
