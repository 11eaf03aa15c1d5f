/** How LangGraph's operations on a store become operations of the service, and results of its answers. */

import type { DescMessage, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import {
  type GetOperation,
  InvalidNamespaceError,
  type Item,
  type ListNamespacesOperation,
  type Operation,
  type PutOperation,
  type SearchItem,
  type SearchOperation,
} from "@langchain/langgraph-checkpoint";
import {
  type DeleteOperationSchema,
  FilterOperator,
  type GetOperationSchema,
  type ListNamespacesOperationSchema,
  type Item as Message,
  NamespaceMatchType,
  type OperationResult,
  type PutOperationSchema,
  type SearchOperationSchema,
} from "../gen/agentstorage/v1/store_pb.js";
import { parseJson, writeJson } from "../json.js";
import type { StoreIndex, StoreTtlConfig, Vectors } from "./store_index.js";

/** Rows that one call of the service gives at most. */
export const ROWS = 1_000;
// Operations that one call of the service takes at most.
const OPERATIONS = 1_000;
const OPERATORS = {
  $eq: FilterOperator.EQ,
  $ne: FilterOperator.NE,
  $gt: FilterOperator.GT,
  $gte: FilterOperator.GTE,
  $lt: FilterOperator.LT,
  $lte: FilterOperator.LTE,
} as const;
const MATCH_TYPES = { prefix: NamespaceMatchType.PREFIX, suffix: NamespaceMatchType.SUFFIX } as const;
const LONE_SURROGATE = /\p{Surrogate}/u;

/** What an operation may say beyond LangGraph's type, as Python's operations do. */
export interface TtlOptions {
  /** Of a put: minutes that the item lives; null for an item that stays. Default: the store's `defaultTtl`. */
  ttl?: number | null | undefined;
  /** Of a get or a search: whether the times of the items begin anew. Default: the store's `refreshOnRead`. */
  refreshTtl?: boolean | undefined;
}

/** The result of one operation. */
export type Result = Item | SearchItem[] | string[][] | null | undefined;

/** An operation of the service with its fields, or a result that is known without asking. */
export type Step = { ask: Asked } | { known: Result };
/** The fields of an operation. */
type Fields<S extends DescMessage> = Exclude<MessageInitShape<S>, MessageShape<S>>;
/** One operation of a batch. */
export type Asked =
  | { case: "put"; value: Fields<typeof PutOperationSchema> }
  | { case: "get"; value: Fields<typeof GetOperationSchema> }
  | { case: "delete"; value: Fields<typeof DeleteOperationSchema> }
  | { case: "search"; value: Fields<typeof SearchOperationSchema> }
  | { case: "listNamespaces"; value: Fields<typeof ListNamespacesOperationSchema> };

/** What steps are made with. */
export interface Settings {
  index: StoreIndex | undefined;
  ttl: StoreTtlConfig;
  /** Vectors of the texts of puts, and of queries. */
  documents: Vectors;
  queries: Vectors;
}

/** Give the step of an operation. Throws InvalidNamespaceError, and TypeError for what the service has no form for. */
export function stepOf(operation: Operation & TtlOptions, settings: Settings): Step {
  if (typeof operation !== "object" || operation === null) {
    throw new TypeError(`not an operation of a store: ${typeof operation}`);
  }
  if ("namespacePrefix" in operation) {
    return searchStep(operation, settings);
  }
  if ("namespace" in operation && "key" in operation) {
    return "value" in operation ? putStep(operation, settings) : getStep(operation, settings);
  }
  if ("matchConditions" in operation || "limit" in operation || "maxDepth" in operation) {
    return listStep(operation);
  }
  throw new TypeError(`not an operation of a store: an object with ${Object.keys(operation).join(", ") || "nothing"}`);
}

/** Divide what is asked into what one call can do: a batch, or one alone that wants more rows than a batch gives. */
export function parts(asked: readonly Asked[]): Asked[][] {
  const found: Asked[][] = [];
  let part: Asked[] = [];
  for (const ask of asked) {
    const before = part.at(-1);
    if (before === undefined || limitOf(ask) > ROWS || limitOf(before) > ROWS || part.length === OPERATIONS) {
      part = [];
      found.push(part);
    }
    part.push(ask);
  }
  return found;
}

/** How many rows are wanted, at most. */
export function limitOf(ask: Asked): number {
  return (ask.case === "search" || ask.case === "listNamespaces" ? ask.value.limit : undefined) ?? 0;
}

/** Give the result from the answer to an operation. */
export function resultOf({ result }: Pick<OperationResult, "result">): Result {
  switch (result.case) {
    case "get":
      return result.value.item === undefined ? null : itemOf(result.value.item);
    case "search":
      return result.value.items.map(searchItemOf);
    case "listNamespaces":
      return result.value.namespaces.map((namespace) => namespace.labels);
    default:
      return undefined;
  }
}

function putStep(operation: PutOperation & TtlOptions, { index, ttl, documents }: Settings): Step {
  const { namespace, key, value } = operation;
  if (value === null) {
    // No item is at the root: nothing to delete.
    return namespace.length === 0
      ? { known: undefined }
      : { ask: { case: "delete", value: { namespace: labels(namespace), key: text(key) } } };
  }
  if (namespace.length === 0) {
    throw new InvalidNamespaceError("Namespace cannot be empty.");
  }
  if (typeof value !== "object" || Array.isArray(value)) {
    throw new TypeError(`value must be an object, not ${Array.isArray(value) ? "an array" : typeof value}`);
  }
  const put: Fields<typeof PutOperationSchema> = {
    namespace: labels(namespace),
    key: text(key),
    value: writeJson(value),
  };
  const minutes = operation.ttl === undefined ? ttl.defaultTtl : operation.ttl;
  if (minutes !== undefined && minutes !== null) {
    put.ttlMinutes = minutes;
  }
  if (index !== undefined) {
    put.vectors = index
      .texts(operation)
      .map(({ field, text }) => ({ field, values: [...(documents.get(text) ?? [])] }));
  }
  return { ask: { case: "put", value: put } };
}

function getStep(operation: GetOperation & TtlOptions, { ttl }: Settings): Step {
  const { namespace, key } = operation;
  if (namespace.length === 0) {
    return { known: null };
  }
  const refreshTtl = operation.refreshTtl ?? ttl.refreshOnRead ?? true;
  return { ask: { case: "get", value: { namespace: labels(namespace), key: text(key), refreshTtl } } };
}

function searchStep(operation: SearchOperation & TtlOptions, { index, ttl, queries }: Settings): Step {
  const { namespacePrefix, filter = {}, limit = 10, offset = 0, query } = operation;
  const search: Fields<typeof SearchOperationSchema> = {
    namespacePrefix: labels(namespacePrefix),
    filters: Object.entries(filter).flatMap(([key, wanted]) => filters(key, wanted)),
    limit: count(limit, "limit"),
    offset: count(offset, "offset"),
    refreshTtl: operation.refreshTtl ?? ttl.refreshOnRead ?? true,
  };
  if (index !== undefined && query) {
    search.vector = [...(queries.get(query) ?? [])];
    search.distance = index.distance;
  }
  // The service takes 0 for its default.
  return limit === 0 ? { known: [] } : { ask: { case: "search", value: search } };
}

function filters(key: string, wanted: unknown): { key: string; operator: FilterOperator; operand: string }[] {
  const isComparison =
    typeof wanted === "object" && wanted !== null && Object.keys(wanted).some((name) => name.startsWith("$"));
  return Object.entries(isComparison ? wanted : { $eq: wanted }).map(([name, operand]) => {
    if (!Object.hasOwn(OPERATORS, name)) {
      throw new TypeError(
        `the filter of "${key}" has the operator "${name}"; there are ${Object.keys(OPERATORS).join(", ")}`,
      );
    }
    return { key, operator: OPERATORS[name as keyof typeof OPERATORS], operand: writeJson(operand, "filter") };
  });
}

function listStep(operation: ListNamespacesOperation): Step {
  const { matchConditions = [], maxDepth, limit = 100, offset = 0 } = operation;
  const list: Fields<typeof ListNamespacesOperationSchema> = {
    matches: matchConditions.flatMap(({ matchType, path }) => {
      if (!Object.hasOwn(MATCH_TYPES, matchType)) {
        throw new TypeError(`matchType must be prefix or suffix, not "${matchType}"`);
      }
      return path.length === 0 ? [] : [{ matchType: MATCH_TYPES[matchType], path: labels(path) }];
    }),
    limit: count(limit, "limit"),
    offset: count(offset, "offset"),
  };
  if (maxDepth !== undefined) {
    if (!(maxDepth >= 1)) {
      throw new TypeError("maxDepth must be 1 or more");
    }
    list.maxDepth = count(maxDepth, "maxDepth");
  }
  return limit === 0 ? { known: [] } : { ask: { case: "listNamespaces", value: list } };
}

/** Give the labels of a namespace; throws InvalidNamespaceError for what is no text. What a text may be, the service says. */
function labels(namespace: readonly unknown[]): string[] {
  return namespace.map((label) => {
    if (typeof label !== "string") {
      throw new InvalidNamespaceError(`a label of the namespace ${namespace} is no text but a ${typeof label}`);
    }
    if (LONE_SURROGATE.test(label)) {
      throw new InvalidNamespaceError(`a label of the namespace ${namespace} holds a lone surrogate`);
    }
    return label;
  });
}

/** Give a key. Throws TypeError for what is no text, and for a lone surrogate, which would become another text on its way. */
function text(key: unknown): string {
  if (typeof key !== "string") {
    throw new TypeError(`key must be a string, not ${typeof key}`);
  }
  if (LONE_SURROGATE.test(key)) {
    throw new TypeError("key holds a lone surrogate");
  }
  return key;
}

function count(number: unknown, name: string): number {
  if (typeof number !== "number" || !Number.isInteger(number)) {
    throw new TypeError(`${name} must be an integer`);
  }
  return number;
}

function itemOf({ namespace, key, value, createdAt, updatedAt }: Message): Item {
  return {
    namespace,
    key,
    value: parseJson(value) as Record<string, unknown>,
    // The service sends both with every item.
    createdAt: timestampDate(createdAt!),
    updatedAt: timestampDate(updatedAt!),
  };
}

function searchItemOf(message: Message): SearchItem {
  const item: SearchItem = itemOf(message);
  if (message.score !== undefined) {
    item.score = message.score;
  }
  return item;
}
