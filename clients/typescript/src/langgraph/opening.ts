/** What the saver and the store do with the options that they are made with. */

import { Connection, type ConnectionOptions } from "../connection.js";
import { ServerService } from "../gen/agentstorage/v1/server_pb.js";

/** How to reach the service: the options of a connection, or an open one. */
export interface OpeningOptions extends ConnectionOptions {
  /** An open connection, which stays open when its user is closed. Not together with the options of a connection. */
  connection?: Connection | undefined;
}

/**
 * Give the connection that a user is made with, and whether it is the user's own to close.
 *
 * Throws TypeError for an option that is none, or that belongs to the connection which is given.
 */
export function opened(options: OpeningOptions): { connection: Connection; isOwn: boolean } {
  if (typeof options !== "object" || options === null) {
    throw new TypeError('the options are an object, such as { target: "localhost:50051" }');
  }
  const { connection, ownerId: _, ...settings } = options;
  if (connection === undefined) {
    return { connection: new Connection(settings), isOwn: true };
  }
  if (!(connection instanceof Connection)) {
    throw new TypeError("connection must be a Connection");
  }
  const given = Object.entries(settings).flatMap(([name, value]) => (value === undefined ? [] : [name]));
  if (given.length > 0) {
    throw new TypeError(`beside an open connection there are no options such as ${given.join(", ")}`);
  }
  return { connection, isOwn: false };
}

/** Ask whether the service is there. Rejects with StorageError when it does not answer. */
export async function ping(connection: Connection): Promise<void> {
  await connection.client(ServerService).getServerInfo({});
}
