/** One scenario of `clients/scenarios` on its way. `tests/clients/test_scenarios.py` is its Python twin. */

import { randomBytes } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";
import { type DescMethod, fromJson, type Message, toJson } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { AssistantService } from "../src/gen/agentstorage/v1/assistants_pb.js";
import { CheckpointService } from "../src/gen/agentstorage/v1/checkpoints_pb.js";
import { CronService } from "../src/gen/agentstorage/v1/crons_pb.js";
import { OwnerService } from "../src/gen/agentstorage/v1/owner_pb.js";
import { RunService } from "../src/gen/agentstorage/v1/runs_pb.js";
import { ServerService } from "../src/gen/agentstorage/v1/server_pb.js";
import { StoreService } from "../src/gen/agentstorage/v1/store_pb.js";
import { ThreadService } from "../src/gen/agentstorage/v1/threads_pb.js";
import { Connection, type ConnectionOptions, StorageError } from "../src/index.js";
import { at, fits, type Json, mismatch, Normal, type Row } from "./scenario_json.js";
import type { Way } from "./support.js";

const DIRECTORY = new URL("../../scenarios/", import.meta.url);
const SERVICES = [
  AssistantService,
  ThreadService,
  RunService,
  StoreService,
  CronService,
  CheckpointService,
  OwnerService,
  ServerService,
];
const METHODS = new Map<string, DescMethod>(
  SERVICES.flatMap((service) => service.methods.map((method): [string, DescMethod] => [method.name, method])),
);

/** One step: a call, calls at once, the pages of a listing, or something that is done to the scenario's own server. */
interface Step {
  call?: string;
  pages?: string;
  server?: string;
  together?: Step[];
  as?: string | null;
  token?: string;
  request?: Row;
  times?: number;
  at_once?: number;
  until?: boolean;
  rows?: string;
  expect?: Json;
  error?: Row;
  save?: Record<string, string>;
  hide?: string[];
}

interface Source {
  server?: { backends: string[]; tokens?: string; environment?: Record<string, string> };
  connection?: { read_timeout: number; write_timeout: number };
  steps: Step[];
}

type Outcome = { response: Json } | { error: Row };

/** The scenarios, by name. */
export const SCENARIOS: readonly string[] = readdirSync(DIRECTORY)
  .filter((file) => file.endsWith(".json") && file !== "transcript.json")
  .map((file) => file.replace(".json", ""));

/** What each step of every scenario must come to, as the Python client wrote it. */
export function transcript(): Record<string, Json[]> {
  return JSON.parse(readFileSync(new URL("transcript.json", DIRECTORY), "utf8"));
}

/** What a scenario says. */
export function load(name: string): Source {
  return JSON.parse(readFileSync(new URL(`${name}.json`, DIRECTORY), "utf8"));
}

/** Calls a method with a request as JSON and gives its response as JSON, that of a stream as `messages`. */
export async function callAsJson(connection: Connection, name: string, fields: Row): Promise<Row> {
  const method = METHODS.get(name);
  if (method === undefined) {
    throw new Error(`no method ${name}`);
  }
  const found = (message: Message) => toJson(method.output, message, { useProtoFieldName: true }) as Row;
  // The client's type has the methods by name; here the name comes from a file.
  const client = connection.client(method.parent) as unknown as Record<
    string,
    (request: Message) => Promise<Message> & AsyncIterable<Message>
  >;
  const answer = client[method.localName]!(fromJson(method.input, fields));
  if (method.methodKind !== "server_streaming") {
    return found(await answer);
  }
  const messages: Json[] = [];
  for await (const message of answer) {
    messages.push(found(message));
  }
  return { messages };
}

/** Where a scenario runs. */
export interface Place {
  target: string;
  /** Freezes, thaws, kills or starts the scenario's own server. */
  tell(what: string): Promise<void>;
}

/** A scenario; `transcript` has what came of each step so far. */
export class Scenario implements AsyncDisposable {
  readonly steps: Step[];
  readonly transcript: Json[] = [];
  private readonly options: ConnectionOptions;
  private readonly names: Record<string, Json>;
  private readonly connections = new Map<string | undefined, Connection>();
  private readonly normal: Normal;

  constructor(
    name: string,
    way: Way,
    private readonly place: Place,
  ) {
    const source = load(name);
    const run = randomBytes(6).toString("hex");
    this.steps = source.steps;
    this.options = { target: place.target, exchange: way === "exchange" };
    if (source.connection) {
      this.options.readTimeoutMs = source.connection.read_timeout * 1000;
      this.options.writeTimeoutMs = source.connection.write_timeout * 1000;
    }
    this.names = { run, alice: `alice-${run}`, bob: `bob-${run}`, carol: `carol-${run}` };
    this.normal = new Normal(run, readFileSync(new URL(`${name}.json`, DIRECTORY), "utf8"), place.target);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.connections.values()].map((connection) => connection.close()));
  }

  /** Takes one step. Throws when what comes of it is not what the scenario expects. */
  async take(step: Step): Promise<void> {
    if (step.server !== undefined) {
      await this.place.tell(step.server);
    } else if (step.pages !== undefined) {
      await this.takePages(step, step.pages);
    } else if (step.together !== undefined) {
      const found = await Promise.all(step.together.map((part) => this.outcomes(part)));
      step.together.forEach((part, place) => {
        this.finish(part, found[place]!);
      });
    } else if (step.call !== undefined) {
      this.finish(step, await this.outcomes(step));
    } else {
      throw new Error("a step without a call");
    }
  }

  private finish(step: Step, [first, ...others]: Outcome[]): void {
    if (first === undefined || step.call === undefined) {
      throw new Error("a call that is never sent");
    }
    for (const outcome of [first, ...others]) {
      this.check(step, outcome);
      if (!isDeepStrictEqual(outcome, first)) {
        throw new Error(`not the same answer: ${JSON.stringify(outcome)}, ${JSON.stringify(first)}`);
      }
    }
    for (const [name, path] of Object.entries(step.save ?? {})) {
      this.names[name] = at((first as { response: Json }).response, path);
    }
    this.transcript.push({ call: step.call, ...(this.normal.of(first as unknown as Row, step.hide) as Row) });
  }

  /** What came of each sending of a call: one, several after another or at once, or as many as it takes. */
  private async outcomes(step: Step): Promise<Outcome[]> {
    if (step.at_once !== undefined) {
      return Promise.all(Array.from({ length: step.at_once }, () => this.outcome(step)));
    }
    if (step.until) {
      const end = Date.now() + 10_000;
      for (;;) {
        const outcome = await this.outcome(step);
        if (fits(() => this.check(step, outcome)) || Date.now() > end) {
          return [outcome];
        }
        await sleep(10);
      }
    }
    const outcomes: Outcome[] = [];
    for (let sent = 0; sent < (step.times ?? 1); sent += 1) {
      outcomes.push(await this.outcome(step));
    }
    return outcomes;
  }

  private async outcome(step: Step): Promise<Outcome> {
    try {
      return { response: await this.call(step, step.call ?? "") };
    } catch (error) {
      if (error instanceof StorageError) {
        return { error: described(error) };
      }
      throw error;
    }
  }

  private async call(step: Step, name: string, more: Row = {}): Promise<Json> {
    const fields: Row = { ...(this.filled(step.request ?? {}) as Row), ...more };
    const who = step.as === undefined ? "alice" : step.as;
    if (who !== null && !("owner_id" in fields)) {
      fields.owner_id = this.names[who] ?? who;
    }
    return callAsJson(this.connection(step.token), name, fields);
  }

  private connection(token: string | undefined): Connection {
    let connection = this.connections.get(token);
    if (connection === undefined) {
      connection = new Connection({ ...this.options, token });
      this.connections.set(token, connection);
    }
    return connection;
  }

  private async takePages(step: Step, name: string): Promise<void> {
    const [rows = "", field = ""] = (step.rows ?? "").split(".");
    const pages: Json[][] = [];
    let token = "";
    do {
      const answer = (await this.call(step, name, { page_token: token })) as Row;
      pages.push(((answer[rows] ?? []) as Json[]).map((row) => at(row, field)));
      token = (answer.next_page_token ?? "") as string;
      if (pages.length > 100) {
        throw new Error("the pages have no end");
      }
    } while (token);
    const wanted = this.filled(step.expect ?? []);
    if (!isDeepStrictEqual(pages, wanted)) {
      throw new Error(`${JSON.stringify(pages)}, not ${JSON.stringify(wanted)}`);
    }
    this.transcript.push({ pages: name, rows: this.normal.of(pages) });
  }

  private check(step: Step, outcome: Outcome): void {
    if (step.error === undefined) {
      if (!("response" in outcome)) {
        throw new Error(JSON.stringify(outcome));
      }
      mismatch(outcome.response, this.filled(step.expect ?? {}), "response");
      return;
    }
    if (!("error" in outcome)) {
      throw new Error(`no failure: ${JSON.stringify(outcome)}`);
    }
    // Whatever a scenario leaves out must be as it mostly is.
    const usual = { metadata: {}, violations: [], safe_to_retry: false };
    const wanted: Row = { ...usual, ...(this.filled(step.error) as Row) };
    const error = outcome.error;
    const found: Row = { ...error, violations: Object.keys(error.violations as Row).sort() };
    for (const [name, value] of Object.entries(wanted)) {
      if (!isDeepStrictEqual(found[name], value)) {
        throw new Error(`${name} is not ${JSON.stringify(value)}: ${JSON.stringify(error)}`);
      }
    }
  }

  /** A value of the scenario with its names filled in and its long texts and lists made. */
  private filled(value: Json, index?: number): Json {
    if (typeof value === "string") {
      return value.replace(/\$\{([a-z_0-9]+)\}/g, (_, name: string) => String(name === "i" ? index : this.named(name)));
    }
    if (Array.isArray(value)) {
      return value.map((item) => this.filled(item, index));
    }
    if (typeof value !== "object" || value === null) {
      return value;
    }
    if (value.$text !== undefined) {
      return (value.$text as [string, number][]).map(([text, times]) => text.repeat(times)).join("");
    }
    const repeated = value.$list;
    if (repeated !== undefined) {
      return Array.from({ length: value.times as number }, (_, place) => this.filled(repeated, place));
    }
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, this.filled(item, index)]));
  }

  private named(name: string): Json {
    const value = this.names[name];
    if (value === undefined) {
      throw new Error(`nothing is saved as ${name}`);
    }
    return value;
  }
}

/** A failure as both clients have it. What a message says of its language, after a semicolon, is left out. */
function described(error: StorageError): Row {
  return {
    class: error.constructor.name,
    code: Code[error.code]!.replace(/(?<=[a-z])(?=[A-Z])/g, "_").toUpperCase(),
    reason: error.reason,
    metadata: error.metadata,
    violations: error.violations,
    method: error.method,
    safe_to_retry: error.safeToRetry,
    message: error.message.split(";")[0]!.split(" (")[0]!,
  };
}
