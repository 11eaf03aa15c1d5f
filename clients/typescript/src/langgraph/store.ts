/** LangGraph.js's store, the long-term memory, on the storage service. */

import type { Client } from "@connectrpc/connect";
import {
  BaseStore,
  type GetOperation,
  InvalidNamespaceError,
  type Item,
  type Operation,
  type OperationResults,
  type SearchItem,
  type SearchOperation,
  validateNamespace,
} from "@langchain/langgraph-checkpoint";
import { type Connection, checkedOwner } from "../connection.js";
import { InvalidRequest, LimitReached, NotFound } from "../errors.js";
import { StoreService } from "../gen/agentstorage/v1/store_pb.js";
import { type OpeningOptions, opened, ping } from "./opening.js";
import { checkedTtl, StoreIndex, type StoreIndexConfig, type StoreTtlConfig } from "./store_index.js";
import { type Asked, limitOf, parts, type Result, ROWS, resultOf, stepOf, type TtlOptions } from "./store_steps.js";

// The service lists rows up to this offset.
const LARGEST_OFFSET = 10_000;
const OF_NAMESPACE = /(^|\.)(namespace|namespace_prefix|path)(\[\d+\])?/;

/** What a store is made with: where the service is, or an open connection, and this. */
export interface GrpcStoreOptions extends OpeningOptions {
  /** The owner of all items. Default: the connection's owner. */
  ownerId?: string | undefined;
  /** What is embedded, and with what, so that items can be searched by meaning. Without it a query is not heeded. */
  index?: StoreIndexConfig | undefined;
  /** How long items live. Default: they stay. */
  ttl?: StoreTtlConfig | undefined;
}

/**
 * LangGraph.js's long-term memory on the storage service.
 *
 *     await using store = new GrpcStore({ target: "localhost:50051", ownerId: "alice", index: { dims: 384, embeddings } });
 *     await store.put(["memories"], "tea", { text: "likes green tea" });
 *     const found = await store.search(["memories"], { query: "what to drink?" });
 *
 * Any number of calls run at once, on one connection. A graph gathers what its nodes ask in one turn into one batch by itself.
 *
 * Every method rejects with `StorageError` when the service can't do what is asked, with `InvalidNamespaceError` for a namespace that it
 * can't have, and with TypeError when no owner is named or a value is not JSON.
 *
 * The constructor throws TypeError for an option that is none, and what `Connection` throws.
 */
export class GrpcStore extends BaseStore implements AsyncDisposable {
  /** The connection, for the generated clients. */
  readonly connection: Connection;
  private readonly isOwn: boolean;
  private readonly ownerId: string | undefined;
  private readonly index: StoreIndex | undefined;
  private readonly ttl: StoreTtlConfig;

  constructor(options: GrpcStoreOptions = {}) {
    super();
    const { index, ttl, ...opening } = options;
    this.ownerId = checkedOwner(options.ownerId);
    this.ttl = checkedTtl(ttl);
    this.index = index === undefined ? undefined : new StoreIndex(index);
    const { connection, isOwn } = opened(opening);
    this.connection = connection;
    this.isOwn = isOwn;
  }

  /** Ask whether the service is there; it makes its tables itself. Programs that change stores may call it as before. */
  async setup(): Promise<void> {
    await ping(this.connection);
  }

  /** Close the connection, unless it was given. */
  async close(): Promise<void> {
    if (this.isOwn) {
      await this.connection.close();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Keep what holds a store, such as a config, from showing the connection in JSON. */
  toJSON(): string {
    return "[GrpcStore]";
  }

  /** Read an item; null when there is none. `refreshTtl` is whether its time to live begins anew, by default as the store's option says. */
  override async get(
    namespace: string[],
    key: string,
    options: Pick<TtlOptions, "refreshTtl"> = {},
  ): Promise<Item | null> {
    validateNamespace(namespace, { allowEmpty: true, allowReservedRoot: true });
    const [item] = await this.batch<[GetOperation & TtlOptions]>([{ namespace, key, ...options }]);
    return item;
  }

  /** List items below a namespace: the newest first, or with a query those closest to it. */
  override async search(
    namespacePrefix: string[],
    options: Parameters<BaseStore["search"]>[1] & Pick<TtlOptions, "refreshTtl"> = {},
  ): Promise<SearchItem[]> {
    validateNamespace(namespacePrefix, { allowEmpty: true, allowReservedRoot: true });
    const [items] = await this.batch<[SearchOperation & TtlOptions]>([{ namespacePrefix, ...options }]);
    return items;
  }

  /** Create or replace an item. `ttl` is how many minutes it lives, null for ever, by default as the store's option says. */
  override async put(
    namespace: string[],
    key: string,
    value: Record<string, unknown>,
    index?: false | string[],
    options: Pick<TtlOptions, "ttl"> = {},
  ): Promise<void> {
    validateNamespace(namespace);
    await this.batch([{ namespace, key, value, ...(index === undefined ? {} : { index }), ...options }]);
  }

  /**
   * Do operations in their order and give the result of each.
   *
   * Up to 1,000 of them are one transaction: all take effect or none. A search or list of more than 1,000 rows is a call of its own, and
   * one more for each further 1,000.
   */
  override async batch<Op extends Operation[]>(operations: Op): Promise<OperationResults<Op>> {
    const ownerId = this.owner();
    const vectors = (await this.index?.embed(operations)) ?? { documents: new Map(), queries: new Map() };
    const steps = operations.map((operation) => stepOf(operation, { index: this.index, ttl: this.ttl, ...vectors }));
    const found: Result[] = [];
    try {
      for (const part of parts(steps.flatMap((step) => ("ask" in step ? [step.ask] : [])))) {
        found.push(...(await this.asked(part, ownerId)));
      }
    } catch (error) {
      if (error instanceof InvalidRequest && Object.keys(error.violations).some((path) => OF_NAMESPACE.test(path))) {
        throw Object.assign(new InvalidNamespaceError(error.message), { cause: error });
      }
      throw error;
    }
    const results = found.values();
    return steps.map((step) => ("ask" in step ? results.next().value : step.known)) as OperationResults<Op>;
  }

  private async asked(part: Asked[], ownerId: string): Promise<Result[]> {
    const [only] = part;
    if (only !== undefined && part.length === 1) {
      return [await this.alone(only, ownerId)];
    }
    const operations = part.map((operation) => ({ operation }));
    return (await this.client().batch({ ownerId, operations })).results.map(resultOf);
  }

  /** Do one operation, other than a batch of it safe to send again; a list of more rows than one call gives with several. */
  private async alone(ask: Asked, ownerId: string): Promise<Result> {
    const client = this.client();
    switch (ask.case) {
      case "put":
        await client.putItem({ ownerId, ...ask.value });
        return undefined;
      case "get":
        try {
          return resultOf({ result: { case: "get", value: await client.getItem({ ownerId, ...ask.value }) } });
        } catch (error) {
          if (error instanceof NotFound) {
            return null;
          }
          throw error;
        }
      case "delete":
        await client.deleteItem({ ownerId, ...ask.value, allowMissing: true });
        return undefined;
      case "search": {
        const page = async (limit: number, offset: number) =>
          (await client.searchItems({ ownerId, ...ask.value, limit, offset })).items;
        const items = await listed(page, ask, "items", "search below a longer prefix or with a filter");
        return resultOf({
          result: { case: "search", value: { $typeName: "agentstorage.v1.SearchItemsResponse", items } },
        });
      }
      case "listNamespaces": {
        const page = async (limit: number, offset: number) =>
          (await client.listNamespaces({ ownerId, ...ask.value, limit, offset })).namespaces;
        const found = await listed(page, ask, "namespaces", "list those below a longer prefix");
        return found.map((namespace) => namespace.labels);
      }
    }
  }

  private client(): Client<typeof StoreService> {
    return this.connection.client(StoreService);
  }

  /** The owner whose items a call is about. Throws TypeError. */
  private owner(): string {
    const owner = this.ownerId ?? this.connection.ownerId;
    if (owner === undefined) {
      throw new TypeError("no ownerId: give the store one, or its connection, or set AGENTSTORAGE_OWNER");
    }
    return owner;
  }
}

/** Ask with offset after offset, until there are as many rows as wanted, or no more. */
async function listed<T>(
  page: (limit: number, offset: number) => Promise<T[]>,
  ask: Asked,
  name: string,
  remedy: string,
): Promise<T[]> {
  const wanted = limitOf(ask);
  const first = ("offset" in ask.value ? ask.value.offset : undefined) ?? 0;
  const found: T[] = [];
  for (let size = ROWS; ; ) {
    const limit = Math.min(size, wanted - found.length);
    let rows: T[];
    try {
      rows = await page(limit, first + found.length);
    } catch (error) {
      // The page may be too large for one message.
      if (!(error instanceof LimitReached) || limit === 1) {
        throw error;
      }
      size = Math.max(1, Math.floor(limit / 8));
      continue;
    }
    found.push(...rows);
    if (rows.length < limit || found.length === wanted) {
      return found;
    }
    if (first + found.length > LARGEST_OFFSET) {
      throw new LimitReached(
        `the service lists ${name} up to number ${first + found.length}, and there are more: ${remedy}`,
        { reason: "" },
      );
    }
  }
}
