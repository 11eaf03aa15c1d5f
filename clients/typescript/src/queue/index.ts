/**
 * Runs as a queue: workers that execute them, the events that they leave, and waiting for their end. They are queued by the storage's
 * `runs.submit`.
 */

export { ClaimedRun, type RunHandler, type RunResult, RunStopped, type StopReason } from "./claimed.js";
export {
  type FollowOptions,
  followRun,
  followThread,
  type RunEvents,
  type WaitOptions,
  waitRun,
} from "./following.js";
export { type CancelAction, type QueuedRun, RunEvent } from "./records.js";
export { Worker, type WorkerOptions } from "./worker.js";
