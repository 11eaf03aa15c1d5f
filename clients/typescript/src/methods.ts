/** What the client must know of each method: its deadline and when it may be sent again, both read from the protos. */

import { type DescMessage, type DescMethod, getOption } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel as Level } from "@bufbuild/protobuf/wkt";
import { admission } from "./gen/agentstorage/v1/options_pb.js";

// These are idempotent when they carry an id; a call without one is given one before it is sent.
const IDS: Record<string, string> = {
  CreateAssistant: "assistantId",
  CreateThread: "threadId",
  CreateRun: "runId",
  CreateCron: "cronId",
  AddThreadState: "checkpointId",
};
// These are idempotent unless they say what they expect to find: sent again they would find their own effect.
const EXPECTATIONS: Record<string, string> = {
  PutItem: "expectedVersion",
  UpdateThread: "expectedStatus",
  UpdateRun: "expectedStatus",
};
// What the service takes for waitSeconds at most.
const LONGEST_WAIT = 3600;

type Fields = Record<string, unknown>;

/** One method of the service. */
export interface MethodRules {
  /** The full name, such as `"/agentstorage.v1.ThreadService/GetThread"`. */
  readonly path: string;
  /** Whether it has no side effects. */
  readonly reads: boolean;
  /** Whether any of its calls may be sent again. */
  readonly idempotent: boolean;
  /** The field that must hold an id for that; `""` for none. */
  readonly idField: string;
  /** The field whose absence makes a call idempotent; `""` for none. */
  readonly expectation: string;
  /** Whether it waits for something to happen, for up to the `waitSeconds` of its request. */
  readonly waits: boolean;
}

const known = new WeakMap<DescMethod, MethodRules>();

/** The rules of a method. */
export function rulesOf(method: DescMethod): MethodRules {
  let rules = known.get(method);
  if (rules === undefined) {
    const reads = method.idempotency === Level.NO_SIDE_EFFECTS;
    rules = {
      path: `/${method.parent.typeName}/${method.name}`,
      reads,
      idempotent: reads || method.idempotency === Level.IDEMPOTENT,
      idField: IDS[method.name] ?? "",
      expectation: EXPECTATIONS[method.name] ?? "",
      waits: getOption(method, admission).waits,
    };
    known.set(method, rules);
  }
  return rules;
}

/** How many milliseconds a call waits by its request; what is no such time the server refuses at once. */
export function waitOf(rules: MethodRules, request: object): number {
  const { waitSeconds } = request as Fields;
  const isTime = rules.waits && typeof waitSeconds === "number" && waitSeconds > 0 && waitSeconds <= LONGEST_WAIT;
  return isTime ? waitSeconds * 1000 : 0;
}

/** Whether a call may be sent again. */
export function isIdempotent(rules: MethodRules, request: DescMessage | object): boolean {
  return rules.idempotent || (rules.expectation !== "" && !isPresent((request as Fields)[rules.expectation]));
}

function isPresent(value: unknown): boolean {
  return Array.isArray(value) ? value.length > 0 : value !== undefined;
}

/** The request with an id, where the method wants one to be idempotent and the request has none. */
export function withId<T extends object>(rules: MethodRules, request: T): T {
  const fields = request as Fields;
  if (rules.idField === "" || fields[rules.idField] || fields.requestId) {
    return request;
  }
  return { ...request, [rules.idField]: newId() };
}

/** A new id as the server makes them: a UUID of version 7 (RFC 9562) as 32 hex digits, which sorts by the millisecond of its making. */
export function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  new DataView(bytes.buffer).setBigUint64(
    0,
    (BigInt(Date.now()) << 16n) | (BigInt(bytes[6]!) << 8n) | BigInt(bytes[7]!),
  );
  bytes[6] = 0x70 | (bytes[6]! & 0x0f);
  bytes[8] = 0x80 | (bytes[8]! & 0x3f);
  return Buffer.from(bytes).toString("hex");
}
