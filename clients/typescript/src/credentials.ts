/** Who calls, and how the way to the service is secured: from options, the environment and files. */

import { readFileSync } from "node:fs";
import type { ConnectionOptions } from "./connection.js";

/** What TLS connections are made with, in PEM. */
export interface TlsContext {
  ca?: string;
  cert?: string;
  key?: string;
}

const TOKEN_FILE_MS = 10_000;
const YES = new Set(["1", "true", "yes", "on"]);
const NO = new Set(["", "0", "false", "no", "off"]);

/** Whether a variable of the environment says yes. Throws TypeError for what is neither yes nor no. */
export function isYes(name: string, absent: string): boolean {
  const value = (process.env[name] || absent).trim().toLowerCase();
  if (!YES.has(value) && !NO.has(value)) {
    throw new TypeError(`${name} takes true or false`);
  }
  return YES.has(value);
}

/** What TLS is made with; undefined without TLS. Throws TypeError for a contradiction, and Error for a file that can't be read. */
export function tlsContext(options: ConnectionOptions): TlsContext | undefined {
  const { AGENTSTORAGE_TLS_CA, AGENTSTORAGE_TLS_CERT, AGENTSTORAGE_TLS_KEY } = process.env;
  const ca = options.tlsCa ?? (AGENTSTORAGE_TLS_CA || undefined);
  const cert = options.tlsCert ?? (AGENTSTORAGE_TLS_CERT || undefined);
  const key = options.tlsKey ?? (AGENTSTORAGE_TLS_KEY || undefined);
  if ((cert === undefined) !== (key === undefined)) {
    throw new TypeError("tlsCert and tlsKey go together");
  }
  if (options.tls === false && (ca ?? cert) !== undefined) {
    throw new TypeError("tls is false, but there are TLS files");
  }
  if (!(options.tls ?? isYes("AGENTSTORAGE_TLS", "")) && ca === undefined && cert === undefined) {
    return undefined;
  }
  return {
    ...(ca ? { ca: readPem("tlsCa", ca, "certificate") } : {}),
    ...(cert ? { cert: readPem("tlsCert", cert, "certificate") } : {}),
    ...(key ? { key: readPem("tlsKey", key, "key") } : {}),
  };
}

/**
 * What answers the headers with the token, the same object until the token is another one.
 *
 * Throws TypeError for what is no token, and Error for a file that can't be read.
 */
export function tokenHeaders(token: string | undefined): () => Record<string, string> {
  const { AGENTSTORAGE_TOKEN, AGENTSTORAGE_TOKEN_FILE: file } = process.env;
  if (token === undefined && AGENTSTORAGE_TOKEN && file) {
    throw new TypeError("AGENTSTORAGE_TOKEN and AGENTSTORAGE_TOKEN_FILE are both set: set one");
  }
  const known = token ?? (AGENTSTORAGE_TOKEN || undefined);
  if (known !== undefined || !file) {
    const headers = known === undefined ? {} : bearer(known);
    return () => headers;
  }
  let headers = bearer(readNamed("AGENTSTORAGE_TOKEN_FILE", file));
  let nextLook = performance.now() + TOKEN_FILE_MS;
  return () => {
    if (performance.now() >= nextLook) {
      nextLook = performance.now() + TOKEN_FILE_MS;
      try {
        const read = bearer(readFileSync(file, "utf8"));
        headers = read.authorization === headers.authorization ? headers : read;
      } catch {
        // In the middle of being replaced: the token that is known serves until the next look.
      }
    }
    return headers;
  };
}

function bearer(token: string): { authorization: string } {
  const word = token.trim();
  if (!/^[\x21-\x7e]+$/.test(word)) {
    throw new TypeError("the token must be one word of printable ASCII characters");
  }
  return { authorization: `Bearer ${word}` };
}

function readNamed(option: string, path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw new Error(`${option}: ${path} can't be read: ${(error as Error).message}`, { cause: error });
  }
}

function readPem(option: string, path: string, content: "certificate" | "key"): string {
  const text = readNamed(option, path);
  if (!(content === "key" ? /-----BEGIN [A-Z ]*KEY-----/ : /-----BEGIN CERTIFICATE-----/).test(text)) {
    throw new TypeError(`${option}: ${path} holds no ${content} as PEM`);
  }
  return text;
}
