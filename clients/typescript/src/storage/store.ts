/** The long-term store, as the runtimes see it. */

import { Resource as ResourceName } from "../gen/agentstorage/v1/common_pb.js";
import {
  type Item as ItemMessage,
  ItemSort,
  type Namespace as NamespaceMessage,
  StoreService,
} from "../gen/agentstorage/v1/store_pb.js";
import { writeJson } from "../json.js";
import { checkedCount, checkedText, type Fields, jsonObject, type Maybe } from "./fields.js";
import { type Item, itemOf } from "./rows.js";
import { listed, orNull, type Scope } from "./scope.js";

/** A namespace: a list of labels, or the labels joined by `"."`. */
export type Namespace = string | readonly string[];

// The fields whose violation means that there is no such item.
const ID_FIELDS = new Set(["key", "namespace", "namespace_prefix"]);
const LARGEST_INT32 = 2 ** 31 - 1;

/**
 * Items under (owner, namespace, key).
 *
 * A namespace is a list of labels or a text of labels joined by `"."` (`["a", "b"]` and `"a.b"` are the same), and comes back joined.
 * `ownerId` is as for the other resources; without any owner, items without an owner are meant.
 */
export class Store {
  /** @internal */
  constructor(private readonly scope: Scope) {}

  /**
   * Create or replace an item and give it.
   *
   * `value` is any JSON value. A replaced item keeps its `created_at` and, without `metadata`, its metadata; `{}` empties it.
   */
  async put(
    namespace: Namespace,
    key: string,
    value: unknown,
    ownerId?: Maybe<string>,
    metadata?: Maybe<object>,
  ): Promise<Item> {
    const request = { ...this.one(namespace, key, ownerId), value: writeJson(value, "value") };
    const labels = metadata === undefined || metadata === null ? "" : jsonObject("metadata", metadata);
    const reply = await this.call("putItem", { ...request, metadata: labels });
    return itemOf(reply.item as ItemMessage);
  }

  /** Give an item; null when there is none. */
  async get(namespace: Namespace, key: string, ownerId?: Maybe<string>): Promise<Item | null> {
    const reply = await orNull(this.call("getItem", this.one(namespace, key, ownerId)), ID_FIELDS);
    return reply === null ? null : itemOf(reply.item as ItemMessage);
  }

  /** Delete an item; false when there is none. */
  async delete(namespace: Namespace, key: string, ownerId?: Maybe<string>): Promise<boolean> {
    return (await orNull(this.call("deleteItem", this.one(namespace, key, ownerId)), ID_FIELDS)) !== null;
  }

  /**
   * Give items of exactly this namespace, ordered by key.
   *
   * @param namespace The namespace; items of namespaces below it are not listed.
   * @param ownerId The owner.
   * @param prefix Only keys that begin with this text, literally.
   * @param limit The most items, 10 by default; a number below 1 counts as 1. Above 1,000 they are read page by page, so that items which
   *   are put or deleted meanwhile may be listed twice or not at all.
   * @param offset Items to leave out first, up to 10,000; a negative number counts as 0.
   *
   * Rejects with LimitReached when there are more items than the service lists, which is the first 11,000: use a prefix.
   */
  async search(
    namespace: Namespace,
    ownerId?: Maybe<string>,
    prefix?: Maybe<string>,
    limit?: Maybe<number>,
    offset?: Maybe<number>,
  ): Promise<Item[]> {
    const request = {
      ownerId: this.scope.owner(ownerId),
      namespacePrefix: labelsOf(namespace),
      exactNamespace: true,
      keyPrefix: checkedText(prefix ?? "", "prefix"),
      sortBy: ItemSort.KEY,
    };
    const most = Math.max(1, checkedCount(limit ?? 10, "limit"));
    const skip = Math.min(Math.max(0, checkedCount(offset ?? 0, "offset")), LARGEST_INT32);
    if (!request.namespacePrefix.length) {
      return [];
    }
    const search = (page: Fields) => this.call("searchItems", page);
    const items = listed<ItemMessage>(search, request, "items", most, skip, "search with a prefix");
    return ((await orNull(items, ID_FIELDS)) ?? []).map(itemOf);
  }

  /**
   * Give the namespaces that hold items, each joined by `"."`, in order.
   *
   * Rejects with LimitReached when there are more than 11,000: list below a prefix with `StoreService.listNamespaces` then.
   */
  async listNamespaces(ownerId?: Maybe<string>): Promise<string[]> {
    const request = { ownerId: this.scope.owner(ownerId) };
    const list = (page: Fields) => this.call("listNamespaces", page);
    const remedy = "list those below a prefix with StoreService.listNamespaces";
    const found = await listed<NamespaceMessage>(list, request, "namespaces", Number.MAX_SAFE_INTEGER, 0, remedy);
    return found.map(({ labels }) => labels.join(".")).sort(byCodePoint);
  }

  /** Delete every item, of all owners. For tests: the server must allow it, and the token too. */
  async clear(): Promise<void> {
    await this.scope.truncate([ResourceName.ITEMS]);
  }

  /** The fields that name one item. */
  private one(namespace: Namespace, key: string, ownerId: Maybe<string>): Fields {
    return { ownerId: this.scope.owner(ownerId), namespace: labelsOf(namespace), key: checkedText(key, "key") };
  }

  private call(method: string, request: Fields): Promise<Fields> {
    return this.scope.method(StoreService, method)(request);
  }
}

function labelsOf(namespace: Namespace): string[] {
  if (!(typeof namespace === "string" || Array.isArray(namespace))) {
    throw new TypeError(`namespace must be an array of strings or a string, not ${typeof namespace}`);
  }
  // Labels hold no "."; a list of one joined text, as some callers have it, means the same as its labels.
  const joined =
    typeof namespace === "string" ? namespace : namespace.map((label) => checkedText(label, "namespace")).join(".");
  return joined ? joined.split(".") : [];
}

/** The order of the service and of every other client; that of JavaScript is by UTF-16. */
function byCodePoint(one: string, other: string): number {
  return Buffer.compare(Buffer.from(one), Buffer.from(other));
}
