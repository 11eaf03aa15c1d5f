/** Where the service is: the target of a connection, and the addresses that it stands for. */

import { lookup } from "node:dns/promises";
import { isIP } from "node:net";

/** The target where neither an option nor `AGENTSTORAGE_TARGET` names one. */
export const DEFAULT_TARGET = "localhost:50051";

const LARGEST_PORT = 65535;
const HOST_PORT = /^(\[[^\]]+\]|[^:/\s[\],]+):(\d+)$/;

/** One address of the service. */
export interface Address {
  /** A name, an IP address, or `""` for a socket. */
  host: string;
  port: number;
  /** The path of a Unix socket. */
  path?: string;
  /** The name under which the server is known to TLS. */
  serverName: string;
}

/** A target that was read. */
export interface Target {
  text: string;
  addresses: Address[];
  /** Whether every address is this machine's own. */
  isLocal: boolean;
}

/**
 * Read a target: `host:port`, `dns:///host:port`, `ipv4:host:port,host:port`, `ipv6:[host]:port,...` or `unix:path`.
 *
 * Throws TypeError for what is none.
 */
export function readTarget(text: string): Target {
  const socket = /^unix:(.+)$/.exec(text);
  if (socket) {
    const path = socket[1]!.replace(/^\/\/(?=\/)/, "");
    return { text, addresses: [{ host: "", port: 0, path, serverName: "localhost" }], isLocal: true };
  }
  const scheme = /^(dns|ipv4|ipv6):(.+)$/.exec(text);
  // After dns: there may be the server to ask, which is not supported, and the name.
  const list = scheme ? scheme[2]!.replace(/^\/\/\//, "") : text;
  const addresses = list.split(",").map((one): Address => {
    const found = HOST_PORT.exec(one);
    if (!found || (!scheme && list.includes(","))) {
      // A connection string of a database has a password before the @.
      const shown = text.replace(/^.*@/, "...@");
      throw new TypeError(
        `target must be "host:port", such as "${DEFAULT_TARGET}", or a gRPC target, not "${shown}"; it has no http:// before it`,
      );
    }
    const port = Number(found[2]);
    if (port < 1 || port > LARGEST_PORT) {
      throw new TypeError(`target "${text}": a port is from 1 to ${LARGEST_PORT}, not ${found[2]}`);
    }
    const host = found[1]!.replace(/^\[|\]$/g, "");
    return { host, port, serverName: host };
  });
  return { text, addresses, isLocal: addresses.every(({ host }) => isLocalHost(host)) };
}

function isLocalHost(host: string): boolean {
  return host === "localhost" || (isIP(host) !== 0 && (host === "::1" || host.startsWith("127.")));
}

/** The addresses behind a name, those of one family, since the other leads to the same servers. Throws what the lookup throws. */
export async function resolve(address: Address): Promise<Address[]> {
  const { host } = address;
  // Node itself tries both families of this machine's own.
  if (!host || host === "localhost" || isIP(host)) {
    return [address];
  }
  const found = await lookup(host, { all: true });
  return found.filter(({ family }) => family === found[0]?.family).map(({ address: ip }) => ({ ...address, host: ip }));
}
