/** What tests share. */

import { randomUUID } from "node:crypto";
import { inject } from "vitest";
import { Connection, type ConnectionOptions } from "../src/index.js";

/** The backends, by name. */
export const BACKENDS = ["memory", "postgres"] as const;
export type Backend = (typeof BACKENDS)[number];

/** The ways of a call: through the exchange, and as a plain RPC. */
export const WAYS = ["exchange", "plain"] as const;
export type Way = (typeof WAYS)[number];

/** A connection to the server of a backend that all tests share. Close it. */
export function connect(backend: Backend, way: Way = "exchange", options: ConnectionOptions = {}): Connection {
  return new Connection({ target: inject("servers")[backend].target, exchange: way === "exchange", ...options });
}

/** An owner that nobody else has. */
export function newOwner(): string {
  return `owner-${randomUUID()}`;
}
