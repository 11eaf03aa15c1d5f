/** What a failure of connect's transport says of the connection. */

import { Code, type ConnectError } from "@connectrpc/connect";

// What Node says of a request that it has not sent.
const UNSENT: ReadonlySet<string> = new Set(["ECONNREFUSED", "ERR_HTTP2_GOAWAY_SESSION", "ERR_HTTP2_INVALID_SESSION"]);

/** Whether a call ended with its connection: told as CANCELLED by nobody's status, or as whatever Node's error stands for. */
export function isBroken(error: ConnectError): boolean {
  if (error.metadata.has("grpc-status") || error.code === Code.DeadlineExceeded) {
    return false;
  }
  return error.code === Code.Canceled || nodeCode(error) !== "";
}

/** Whether a server has certainly not begun a call: it refused the stream, or the connection was on its end. */
export function isRefused(error: ConnectError): boolean {
  return /NGHTTP2_REFUSED_STREAM/.test(error.rawMessage) || UNSENT.has(nodeCode(error));
}

/** The code of the error of Node that is behind another; `""` where none is. */
function nodeCode(error: Error): string {
  const { cause } = error;
  return cause instanceof Error && "code" in cause && typeof cause.code === "string" ? cause.code : "";
}
