import type { MethodRules } from "../methods.js";

/** Requests above this many bytes go as plain RPCs, so that nothing large holds up the others. */
export const LARGEST = 262_144;

export interface Exchange {
  takesCalls(): boolean;
  call(
    rules: MethodRules,
    data: Uint8Array,
    idempotent: boolean,
    deadline: number,
    signal: AbortSignal | undefined,
  ): Promise<Uint8Array | undefined>;
  close(): void;
}
