/**
 * Why a call failed: one class for each reason of `ErrorReason` (`protos/agentstorage/v1/common.proto`), with the names that the
 * Python client has.
 *
 *     StorageError
 *     ├── InvalidRequest          INVALID_ARGUMENT     a field breaks its rule
 *     │   ├── InvalidPageToken
 *     │   └── OwnerRequired
 *     ├── Unauthenticated         UNAUTHENTICATED
 *     ├── PermissionDenied        PERMISSION_DENIED
 *     ├── NotFound                NOT_FOUND            absent, or another owner's
 *     ├── AlreadyExists           ALREADY_EXISTS
 *     ├── Aborted                 ABORTED
 *     │   ├── VersionMismatch
 *     │   ├── StatusMismatch
 *     │   ├── ParentMismatch
 *     │   ├── SequenceMismatch
 *     │   └── Conflict
 *     ├── FailedPrecondition      FAILED_PRECONDITION
 *     │   ├── RunEnded
 *     │   ├── ThreadBusy
 *     │   ├── LeaseLost
 *     │   └── Disabled
 *     ├── EventsDeleted           OUT_OF_RANGE         older than the server keeps them
 *     ├── LimitReached            RESOURCE_EXHAUSTED
 *     ├── Unavailable             UNAVAILABLE
 *     │   ├── Unreachable                              no server answered
 *     │   ├── DatabaseUnavailable
 *     │   └── ShuttingDown
 *     ├── DeadlineExceeded        DEADLINE_EXCEEDED
 *     ├── Unimplemented           UNIMPLEMENTED        the server has no such method
 *     └── ServerFault             INTERNAL             logged by the server under an error id
 *         └── DataLoss            DATA_LOSS
 *
 * A class with a reason is chosen by the reason that the server names; the others are chosen by the code alone.
 */

import { fromBinary } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { BadRequestSchema, ErrorInfoSchema } from "./gen/google/rpc/error_details_pb.js";

/** The domain of the reasons of this service. */
export const DOMAIN = "agentstorage";

const NO_SERVER =
  "check that the storage service runs there (start one with `storage-service serve`), that the target, from the option or " +
  "AGENTSTORAGE_TARGET, is its host:port, and that both sides use TLS or neither";
const NO_OWNER =
  "give the call or its request an owner, or the client one for all of its calls (its option ownerId, or AGENTSTORAGE_OWNER)";
// In grpc's words, as both sides say them.
const TOO_LARGE = /(?:Sent|Received) message larger than max \((\d+) vs\. (\d+)\)/;
// In connect's: of a request, and of an answer.
const TOO_LARGE_HERE = /message size (\d+) is larger than configured (write|read)MaxBytes (\d+)/;

/** What is known of a failure beside its message. */
export interface FailureDetails {
  code?: Code;
  reason?: string;
  metadata?: Record<string, string>;
  violations?: Record<string, string>;
  method?: string;
  safeToRetry?: boolean;
}

/** A call to the storage service failed. Catch this class for every failure. */
export class StorageError extends Error {
  /** The code of the class, where a failure names none. */
  static readonly code: Code = Code.Unknown;
  /** The reason of the class; `""` for one that is chosen by its code. */
  static readonly reason: string = "";

  /** The gRPC status code. */
  readonly code: Code;
  /** The name of the reason without its prefix, such as `"NOT_FOUND"`; `""` when the server named none. */
  readonly reason: string;
  /** Ids and values that belong to the reason, such as `resource` and `id`, `current` or `error_id`. */
  readonly metadata: Record<string, string>;
  /** For a request that breaks rules, the path of each bad field and what is wrong with it. */
  readonly violations: Record<string, string>;
  /** The full name of the method that was called; `""` when it is not known. */
  readonly method: string;
  /**
   * Whether the same call may be sent again: it may help and can do no harm. When this is false after `Unavailable` or
   * `DeadlineExceeded`, the call may or may not have taken effect.
   */
  readonly safeToRetry: boolean;

  constructor(message: string, details: FailureDetails = {}) {
    super(message);
    const own = new.target as typeof StorageError;
    this.name = own.name;
    this.code = details.code ?? own.code;
    this.reason = details.reason ?? own.reason;
    this.metadata = details.metadata ?? {};
    this.violations = details.violations ?? {};
    this.method = details.method ?? "";
    this.safeToRetry = details.safeToRetry ?? false;
  }
}

/** A field of the request breaks its rule; `violations` names the fields. */
export class InvalidRequest extends StorageError {
  static override readonly code: Code = Code.InvalidArgument;
  static override readonly reason: string = "INVALID_REQUEST";
}

/** The page token was not made for this owner, method and filter. */
export class InvalidPageToken extends InvalidRequest {
  static override readonly reason: string = "INVALID_PAGE_TOKEN";
}

/** The call names no owner and its credential has no right to leave it out. */
export class OwnerRequired extends InvalidRequest {
  static override readonly reason: string = "OWNER_REQUIRED";
}

/** The token is missing or not known to the server. */
export class Unauthenticated extends StorageError {
  static override readonly code: Code = Code.Unauthenticated;
  static override readonly reason: string = "UNAUTHENTICATED";
}

/** The token does not allow to act for this owner, or lacks the right that the method needs. */
export class PermissionDenied extends StorageError {
  static override readonly code: Code = Code.PermissionDenied;
  static override readonly reason: string = "PERMISSION_DENIED";
}

/** No such row for this owner; `metadata` has `resource` and `id`. */
export class NotFound extends StorageError {
  static override readonly code: Code = Code.NotFound;
  static override readonly reason: string = "NOT_FOUND";
}

/** The id is taken; `metadata` has `resource` and `id`. The message: `"<Resource> <id> already exists"`. */
export class AlreadyExists extends StorageError {
  static override readonly code: Code = Code.AlreadyExists;
  static override readonly reason: string = "ALREADY_EXISTS";
}

/** Another call got in the way. */
export class Aborted extends StorageError {
  static override readonly code: Code = Code.Aborted;
}

/** The version is not the expected one; `metadata.current` is what it is. */
export class VersionMismatch extends Aborted {
  static override readonly reason: string = "VERSION_MISMATCH";
}

/** The status is none of the expected ones; `metadata.current` is what it is. */
export class StatusMismatch extends Aborted {
  static override readonly reason: string = "STATUS_MISMATCH";
}

/** The newest checkpoint is not the expected one; `metadata.current` is its id, `""` for none. */
export class ParentMismatch extends Aborted {
  static override readonly reason: string = "PARENT_MISMATCH";
}

/** The events do not follow the run's last one; `metadata.current` is the sequence of that. */
export class SequenceMismatch extends Aborted {
  static override readonly reason: string = "SEQUENCE_MISMATCH";
}

/** Concurrent calls collided more often than the server retries. Nothing was written: safe to retry. */
export class Conflict extends Aborted {
  static override readonly reason: string = "CONFLICT";
}

/** The state of the service does not allow the call. */
export class FailedPrecondition extends StorageError {
  static override readonly code: Code = Code.FailedPrecondition;
}

/** The run's status is final; `metadata.current` is what it is. */
export class RunEnded extends FailedPrecondition {
  static override readonly reason: string = "RUN_ENDED";
}

/** The thread has a run in flight; `metadata.run_ids` names the first few, joined by commas. */
export class ThreadBusy extends FailedPrecondition {
  static override readonly reason: string = "THREAD_BUSY";
}

/** The lease token is stale: the run's lease has lapsed, was given back, or is another worker's by now. */
export class LeaseLost extends FailedPrecondition {
  static override readonly reason: string = "LEASE_LOST";
}

/** A setting of the server switches this off. */
export class Disabled extends FailedPrecondition {
  static override readonly reason: string = "DISABLED";
}

/** Events after the place were deleted with age; `metadata.first` is the place after which all are there. */
export class EventsDeleted extends StorageError {
  static override readonly code: Code = Code.OutOfRange;
  static override readonly reason: string = "EVENTS_DELETED";
}

/** A limit is reached: size of a message, calls in flight, connections, disk. */
export class LimitReached extends StorageError {
  static override readonly code: Code = Code.ResourceExhausted;
  static override readonly reason: string = "LIMIT_REACHED";
}

/** No answer can be had now. Whether a write happened is not known. */
export class Unavailable extends StorageError {
  static override readonly code: Code = Code.Unavailable;
}

/** No server answered at the target, or the connection broke. */
export class Unreachable extends Unavailable {}

/** The server cannot reach its database, or the database is not ready. */
export class DatabaseUnavailable extends Unavailable {
  static override readonly reason: string = "DATABASE_UNAVAILABLE";
}

/** The server is stopping. */
export class ShuttingDown extends Unavailable {
  static override readonly reason: string = "SHUTTING_DOWN";
}

/** The time of the call is over. Whether a write happened is not known. */
export class DeadlineExceeded extends StorageError {
  static override readonly code: Code = Code.DeadlineExceeded;
  static override readonly reason: string = "DEADLINE_EXCEEDED";
}

/** The server has no such method: it is older than this client, or it is not a storage service. */
export class Unimplemented extends StorageError {
  static override readonly code: Code = Code.Unimplemented;
}

/** A fault of the server, which logged it under `metadata.error_id`. */
export class ServerFault extends StorageError {
  static override readonly code: Code = Code.Internal;
  static override readonly reason: string = "INTERNAL";
}

/** A stored row is damaged; the server logged it under `metadata.error_id`. */
export class DataLoss extends ServerFault {
  static override readonly code: Code = Code.DataLoss;
  static override readonly reason: string = "DATA_LOSS";
}

const CLASSES: (typeof StorageError)[] = [
  InvalidRequest,
  InvalidPageToken,
  OwnerRequired,
  Unauthenticated,
  PermissionDenied,
  NotFound,
  AlreadyExists,
  VersionMismatch,
  StatusMismatch,
  ParentMismatch,
  SequenceMismatch,
  Conflict,
  RunEnded,
  ThreadBusy,
  LeaseLost,
  Disabled,
  EventsDeleted,
  LimitReached,
  DatabaseUnavailable,
  ShuttingDown,
  DeadlineExceeded,
  ServerFault,
  DataLoss,
];
const BY_REASON = new Map(CLASSES.map((cls) => [cls.reason, cls]));
const BY_CODE = new Map<Code, typeof StorageError>([
  [Code.InvalidArgument, InvalidRequest],
  [Code.OutOfRange, InvalidRequest],
  [Code.Unauthenticated, Unauthenticated],
  [Code.PermissionDenied, PermissionDenied],
  [Code.NotFound, NotFound],
  [Code.AlreadyExists, AlreadyExists],
  [Code.Aborted, Aborted],
  [Code.FailedPrecondition, FailedPrecondition],
  [Code.ResourceExhausted, LimitReached],
  [Code.Unavailable, Unreachable],
  // A server that stops answers it to the calls that were still queued in it.
  [Code.Canceled, Unavailable],
  [Code.DeadlineExceeded, DeadlineExceeded],
  [Code.Unimplemented, Unimplemented],
  [Code.Internal, ServerFault],
  [Code.DataLoss, DataLoss],
]);

/** A detail of a status: the full name of its message, and that message serialised. */
export interface Detail {
  type: string;
  value: Uint8Array;
}

/** What a call was, for the failure that it ended with. */
export interface About {
  /** The full name of the method, such as `"/agentstorage.v1.ThreadService/GetThread"`. */
  method: string;
  /** The target of the connection. */
  target: string;
  /** Whether sending the same request twice does no more than sending it once. */
  idempotent: boolean;
}

/** Make the error that fits a status with its details. */
export function failureOf(code: Code, message: string, details: Iterable<Detail>, about: About): StorageError {
  const { method, target, idempotent } = about;
  const read = readDetails(details);
  const found = BY_REASON.get(read.reason) ?? BY_CODE.get(code) ?? StorageError;
  let text = message || Code[code] || "unknown";
  if (found === AlreadyExists && "resource" in read.metadata && "id" in read.metadata) {
    const resource = read.metadata.resource as string;
    text = `${resource.charAt(0).toUpperCase()}${resource.slice(1)} ${read.metadata.id} already exists`;
  } else if (found === OwnerRequired) {
    text = `${text}; ${NO_OWNER}`;
  } else if (found === LimitReached && !read.reason) {
    text = tooLarge(text, method);
  } else if (found === Unreachable) {
    text = `cannot reach ${target} (${text}); ${NO_SERVER}`;
  } else if (found === DeadlineExceeded && !read.reason) {
    // The client's own clock ended the call, so the server's text is not there to say what was called.
    text = `${method} got no answer from ${target} in time`;
  } else if (found === Unimplemented) {
    text = `${target} does not know ${method} (${text}); is it older than this client?`;
  }
  return new found(text, {
    code,
    reason: read.reason,
    metadata: read.metadata,
    violations: read.violations,
    method,
    safeToRetry: found === Conflict || (idempotent && (isA(found, Unavailable) || isA(found, DeadlineExceeded))),
  });
}

function tooLarge(text: string, method: string): string {
  const [, size, limit] = TOO_LARGE.exec(text) ?? [];
  const [, sizeHere, way, limitHere] = TOO_LARGE_HERE.exec(text) ?? [];
  if (way === "read") {
    return (
      `the answer of ${method} has ${sizeHere} bytes, more than the ${limitHere} that this client takes: ask for fewer rows at a time, ` +
      "or for fewer fields"
    );
  }
  if (!size && !sizeHere) {
    return text;
  }
  const side = size
    ? `${limit} that the server takes (its setting STORAGE_MESSAGE_BYTES)`
    : `${limitHere} that this client sends`;
  return (
    `the request of ${method} has ${size ?? sizeHere} bytes, more than the ${side}: split it, or keep large data elsewhere and store ` +
    "where it is"
  );
}

function isA(found: typeof StorageError, kind: typeof StorageError): boolean {
  return found === kind || found.prototype instanceof kind;
}

function readDetails(details: Iterable<Detail>) {
  let reason = "";
  let metadata: Record<string, string> = {};
  const violations: Record<string, string> = {};
  try {
    for (const { type, value } of details) {
      if (type === ErrorInfoSchema.typeName) {
        const info = fromBinary(ErrorInfoSchema, value);
        if (info.domain === DOMAIN) {
          reason = info.reason.replace(/^ERROR_REASON_/, "");
          metadata = info.metadata;
        }
      } else if (type === BadRequestSchema.typeName) {
        for (const { field, description } of fromBinary(BadRequestSchema, value).fieldViolations) {
          violations[field] = description;
        }
      }
    }
  } catch {
    // A proxy may cut or rewrite trailers; the code still says what is needed.
    return { reason: "", metadata: {}, violations: {} };
  }
  return { reason, metadata, violations };
}
