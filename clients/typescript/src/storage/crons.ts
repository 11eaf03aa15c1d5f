/** Crons, as the runtimes see them. */

import { isDeepStrictEqual } from "node:util";
import { create } from "@bufbuild/protobuf";
import { Resource as ResourceName } from "../gen/agentstorage/v1/common_pb.js";
import { type Cron as CronMessage, CronSchema, CronService } from "../gen/agentstorage/v1/crons_pb.js";
import { parseJson, writeJson } from "../json.js";
import { checkedObject, type Fields, flag, isId, jsonObject, type Maybe, text, time } from "./fields.js";
import { type Filter, type IfExists, type Kind, Resource } from "./resource.js";
import {
  type Cron,
  cronOf,
  MISFIRE_POLICY,
  type MisfirePolicy,
  ON_RUN_COMPLETED,
  type OnRunCompleted,
} from "./rows.js";
import type { Scope } from "./scope.js";

/** What of a cron may be changed. `""` removes an `end_time`; a time without a zone is in UTC. */
export interface CronUpdate {
  schedule?: Maybe<string>;
  timezone?: Maybe<string>;
  enabled?: Maybe<boolean>;
  end_time?: Maybe<string | Date>;
  user_id?: Maybe<string>;
  payload?: Maybe<object>;
  metadata?: Maybe<object>;
  on_run_completed?: Maybe<OnRunCompleted>;
  misfire_policy?: Maybe<MisfirePolicy>;
}

/** What a cron is made of. */
export interface CronCreate extends CronUpdate {
  assistant_id: string;
  schedule: string;
  cron_id?: Maybe<string>;
  thread_id?: Maybe<string>;
  if_exists?: Maybe<IfExists>;
}

/** Fields of a cron and the values that they must equal; undefined is no filter, null equals only null. */
export type CronFilters = { readonly [Name in keyof Cron]?: Cron[Name] | null | undefined };

const CHANGEABLE = {
  schedule: text,
  timezone: text,
  enabled: flag,
  end_time: time,
  user_id: text,
  payload: jsonObject,
  metadata: jsonObject,
  on_run_completed: ON_RUN_COMPLETED.write,
  misfire_policy: MISFIRE_POLICY.write,
};

const idIn =
  (field: string): Filter =>
  (_, value) =>
    isId(value) ? { [field]: value } : undefined;

const KIND: Kind<CronMessage, Cron> = {
  noun: "Cron",
  service: CronService,
  resource: ResourceName.CRONS,
  rowOf: cronOf,
  idFields: new Set(["cron_id"]),
  required: ["assistant_id", "schedule"],
  always: { recordOnly: true },
  created: { cron_id: text, assistant_id: text, thread_id: text, ...CHANGEABLE },
  updated: CHANGEABLE,
  // What the service can compare; the other fields are compared here.
  filters: {
    cron_id: (_, value) => (isId(value) ? { cronIds: [value] } : undefined),
    assistant_id: idIn("assistantId"),
    thread_id: idIn("threadId"),
    enabled: (_, value) => (typeof value === "boolean" ? { enabled: value } : undefined),
  },
};
const NAMES = Object.keys(cronOf(create(CronSchema)));

/**
 * Crons. `create` wants `assistant_id` and `schedule`: neither the assistant nor a thread has to exist.
 *
 * The service computes `next_run_date`. A bad schedule, timezone or end_time is `InvalidRequest`.
 */
export class Crons extends Resource<CronMessage, Cron, CronCreate> {
  /** @internal */
  constructor(scope: Scope) {
    super(scope, KIND);
  }

  /**
   * Change a cron and give it; null when the owner has none with this id.
   *
   * The keys of metadata are set and the others stay; the rest is replaced. Keys whose value is null or undefined, and other keys, are
   * ignored.
   */
  async update(cronId: string, ownerId: Maybe<string>, updates: CronUpdate): Promise<Cron | null> {
    if ((checkedObject(updates, "data") as CronUpdate).end_time === "") {
      return this.change(cronId, { ...updates, end_time: undefined }, ownerId, { clearEndTime: true });
    }
    return this.change(cronId, updates, ownerId);
  }

  /**
   * Give all crons whose fields equal the filters, newest first.
   *
   * `metadata` equals without the owner that the service stamps on it, unless the filter names one. Rejects with TypeError for a name that
   * is no field.
   */
  async list(ownerId?: Maybe<string>, filters?: Maybe<CronFilters>): Promise<Cron[]> {
    const [asked, rest] = this.split(filters);
    const crons = await this.rows(asked, ownerId, Number.MAX_SAFE_INTEGER, 0);
    return crons.filter((cron) => rest.every(([name, wanted]) => isEqual(cron, name, wanted)));
  }

  /** Count the crons that `list` would give. */
  async count(ownerId?: Maybe<string>, filters?: Maybe<CronFilters>): Promise<number> {
    const [asked, rest] = this.split(filters);
    return rest.length ? (await this.list(ownerId, filters)).length : this.countOf(asked, ownerId);
  }

  /** The filters that the service compares, and those that are compared here. */
  private split(filters: Maybe<CronFilters>): [Fields, [string, unknown][]] {
    const asked: Fields = {};
    const rest: [string, unknown][] = [];
    for (const [name, value] of Object.entries(this.given(filters, NAMES))) {
      if (KIND.filters[name]?.(name, value) === undefined) {
        rest.push([name, parseJson(writeJson(value, name))]);
      } else {
        asked[name] = value;
      }
    }
    return [asked, rest];
  }
}

function isEqual(cron: Cron, name: string, wanted: unknown): boolean {
  if (name === "metadata" && typeof wanted === "object" && wanted !== null && !Object.hasOwn(wanted, "owner")) {
    const { owner: _, ...metadata } = cron.metadata;
    return isDeepStrictEqual(metadata, wanted);
  }
  return isDeepStrictEqual(cron[name as keyof Cron], wanted);
}
