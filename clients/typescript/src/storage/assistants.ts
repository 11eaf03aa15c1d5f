/** Assistants, as the runtimes see them. */

import {
  type Assistant as AssistantMessage,
  AssistantService,
  AssistantSortSchema,
} from "../gen/agentstorage/v1/assistants_pb.js";
import { Resource as ResourceName } from "../gen/agentstorage/v1/common_pb.js";
import { jsonObject, type Maybe, text, Words } from "./fields.js";
import { anyId, containing, exactly, type IfExists, type Kind, type Page, Resource } from "./resource.js";
import { type Assistant, assistantOf } from "./rows.js";
import type { Scope } from "./scope.js";

/** What of an assistant may be changed. `""` removes a name or a description. */
export interface AssistantUpdate {
  graph_id?: Maybe<string>;
  name?: Maybe<string>;
  description?: Maybe<string>;
  config?: Maybe<object>;
  context?: Maybe<object>;
  metadata?: Maybe<object>;
}

/** What an assistant is made of. */
export interface AssistantCreate extends AssistantUpdate {
  graph_id: string;
  assistant_id?: Maybe<string>;
  if_exists?: Maybe<IfExists>;
}

/** Which assistants: those that match all that is given. */
export interface AssistantFilters {
  /** One of these ids. */
  ids?: Maybe<readonly string[]>;
  /** Metadata that contains this object, however deep. */
  metadata?: Maybe<object>;
  graph_id?: Maybe<string>;
  /** A name that contains this text, whatever its case. */
  name?: Maybe<string>;
}

/** What a search for assistants may say. */
export interface AssistantSearch
  extends AssistantFilters,
    Page<"created_at" | "updated_at" | "name" | "graph_id" | "assistant_id"> {}

const CHANGEABLE = {
  graph_id: text,
  name: text,
  description: text,
  config: jsonObject,
  context: jsonObject,
  metadata: jsonObject,
};

const SORT_BY = new Words(AssistantSortSchema);

const KIND: Kind<AssistantMessage, Assistant> = {
  noun: "Assistant",
  service: AssistantService,
  resource: ResourceName.ASSISTANTS,
  rowOf: assistantOf,
  idFields: new Set(["assistant_id"]),
  required: ["graph_id"],
  always: {},
  created: { assistant_id: text, ...CHANGEABLE },
  updated: CHANGEABLE,
  filters: {
    ids: anyId("assistantIds"),
    metadata: containing,
    graph_id: exactly,
    name: (name, value) => ({ name: text(name, value) }),
  },
};

/** Assistants. `create` wants `graph_id`. Those of the owner `"system"` are readable by every owner. */
export class Assistants extends Resource<AssistantMessage, Assistant, AssistantCreate> {
  /** @internal */
  constructor(scope: Scope) {
    super(scope, KIND);
  }

  /** Give the assistants that match the filters, those of the owner `"system"` among them. */
  async search(filters?: Maybe<AssistantSearch>, ownerId?: Maybe<string>): Promise<Assistant[]> {
    return this.searchFor(filters, ownerId, SORT_BY);
  }

  /** Count the assistants that match the filters. */
  async count(filters?: Maybe<AssistantFilters>, ownerId?: Maybe<string>): Promise<number> {
    return this.countOf(filters, ownerId);
  }

  /**
   * Change an assistant, which adds a version, and give it; null when the owner has none with this id.
   *
   * config and context are replaced; the keys of metadata are set and the others stay. Keys whose value is null or undefined, and other
   * keys, are ignored.
   */
  async update(id: string, data: AssistantUpdate, ownerId?: Maybe<string>): Promise<Assistant | null> {
    return this.change(id, data, ownerId);
  }
}
