/** The TypeScript client of the agent storage service. */

export { Code } from "@connectrpc/connect";
export { Connection, type ConnectionOptions, READ_TIMEOUT_MS, STREAMS, WRITE_TIMEOUT_MS } from "./connection.js";
export * from "./errors.js";
export { parseJson, writeJson } from "./json.js";
export { newId } from "./methods.js";
export * from "./queue/index.js";
export * from "./storage/index.js";
export type { Cancelled, IfNotExists, RunCancel, RunSubmit } from "./storage/runs.js";
export { DEFAULT_TARGET } from "./target.js";
