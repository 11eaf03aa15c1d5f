/** When a call is sent again: the policy of the service config that gRPC's own clients have. */

/** Sendings of one call, the first included. */
export const ATTEMPTS = 4;

// The pause before the second sending and the longest pause, in milliseconds, and the factor from one to the next.
const FIRST_PAUSE = 50;
const LONGEST_PAUSE = 1000;
const PAUSE_FACTOR = 2;
const TOKENS = 100;
const TOKEN_RATIO = 0.1;

/** The pause after so many sendings in milliseconds, spread so that callers keep apart. */
export function pauseAfter(attempts: number): number {
  return (
    (0.8 + 0.4 * Math.random()) * Math.min(FIRST_PAUSE * PAUSE_FACTOR ** Math.min(attempts - 1, 10), LONGEST_PAUSE)
  );
}

/** gRPC's retryThrottling: no call is sent again while fewer than half of the tokens are left. */
export class Throttle {
  private tokens = TOKENS;

  /** Take note of a success. */
  succeeded(): void {
    this.tokens = Math.min(TOKENS, this.tokens + TOKEN_RATIO);
  }

  /** Take note of a failure. */
  failed(): void {
    this.tokens = Math.max(0, this.tokens - 1);
  }

  /** Whether a call may be sent again. */
  get allows(): boolean {
    return this.tokens > TOKENS / 2;
  }
}
