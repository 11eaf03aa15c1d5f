/** What the stores of assistants, threads, runs and crons have in common. */

import type { DescService } from "@bufbuild/protobuf";
import { IfExistsSchema, type Resource as ResourceName, SortOrderSchema } from "../gen/agentstorage/v1/common_pb.js";
import { newId } from "../methods.js";
import {
  checkedArray,
  checkedCount,
  checkedObject,
  checkedText,
  type Fields,
  fieldName,
  isId,
  jsonObject,
  type Maybe,
  meantBy,
  Words,
  type Writer,
  written,
} from "./fields.js";
import { orNull, paged, type Scope } from "./scope.js";

export type SortOrder = "asc" | "desc";
/** What a create does when the id is taken: reject, or give the owner's row that has it already. */
export type IfExists = "raise" | "do_nothing";

/** The keys of a search that say which of the matching rows are returned, and in which order. */
export interface Page<Sort extends string> {
  /** The most rows, 10 by default; a number below 1 counts as 1. Any number is met, page by page. */
  limit?: Maybe<number>;
  /** Rows to leave out first; a negative number counts as 0. */
  offset?: Maybe<number>;
  /** By default `"created_at"`. */
  sort_by?: Maybe<Sort>;
  /** By default `"desc"`: the newest first. */
  sort_order?: Maybe<SortOrder>;
}

/** Gives the fields of a request that ask for a value; undefined when no row, or no field, can say that. */
export type Filter = (name: string, value: unknown) => Fields | undefined;

/** How the rows of one resource are read and written. */
export interface Kind<Message, Row> {
  /** The name of one row, as in the names of the methods. */
  noun: string;
  service: DescService;
  resource: ResourceName;
  rowOf: (message: Message) => Row;
  /** The fields whose violation means that there is no such row. */
  idFields: ReadonlySet<string>;
  /** The keys that a create must have. */
  required: readonly string[];
  /** What every create says. */
  always: Fields;
  created: Readonly<Record<string, Writer>>;
  updated: Readonly<Record<string, Writer>>;
  filters: Readonly<Record<string, Filter>>;
}

export const IF_EXISTS = new Words<IfExists>(IfExistsSchema);
const SORT_ORDER = new Words<SortOrder>(SortOrderSchema);
const PAGE_KEYS = ["limit", "offset", "sort_by", "sort_order"];

/**
 * The rows of one resource.
 *
 * `ownerId` is the owner that a call acts for; without one it is the storage's or the connection's, and without that the call is unscoped,
 * which the server may refuse (`OwnerRequired`). Another owner's row is absent. Absent means null or false.
 *
 * Every method rejects with StorageError when the service cannot do what is asked, with TypeError naming the argument that is wrong.
 */
export class Resource<Message, Row, Created extends object> {
  private readonly field: string;

  constructor(
    protected readonly scope: Scope,
    protected readonly kind: Kind<Message, Row>,
  ) {
    this.field = kind.noun.toLowerCase();
  }

  /**
   * Create a row and give it.
   *
   * `data` holds fields of the result, the id among them if the caller has one, and `if_exists`: `"raise"` (the default) or
   * `"do_nothing"`, which gives the owner's row that has the id already. Other keys are ignored.
   *
   * Rejects with AlreadyExists, `"<Resource> <id> already exists"`, when the id is taken; with TypeError, `"<key> is required"`, when a key
   * that is needed is missing.
   */
  async create(data: Created, ownerId?: Maybe<string>): Promise<Row> {
    checkedObject(data, "data");
    for (const name of this.kind.required) {
      if (!(data as Fields)[name]) {
        throw new TypeError(`${name} is required`);
      }
    }
    const fields = written(data, { ...this.kind.created, if_exists: IF_EXISTS.write });
    // The requestId tells a create that is sent again from a second create with the same id.
    const request = { ...this.kind.always, ...fields, requestId: newId(), ownerId: this.scope.owner(ownerId) };
    const id = fieldName(`${this.field}_id`);
    return this.rowIn(await this.call("create", { ...request, [id]: fields[id] || newId() }));
  }

  /** Give one row; null when the owner has none with this id. */
  async get(id: string, ownerId?: Maybe<string>): Promise<Row | null> {
    return this.rowOrNull(this.call("get", this.one(id, ownerId)));
  }

  /** Delete one row with all that belongs to it; false when the owner has none with this id. */
  async delete(id: string, ownerId?: Maybe<string>): Promise<boolean> {
    return (await this.orNull(this.call("delete", this.one(id, ownerId)))) !== null;
  }

  /** Delete every row of this resource, of all owners. For tests: the server must allow it, and the token too. */
  async clear(): Promise<void> {
    await this.scope.truncate([this.kind.resource]);
  }

  /** Change the fields that `data` names. */
  protected async change(id: string, data: object, ownerId: Maybe<string>, more: Fields = {}): Promise<Row | null> {
    const fields = written(data, this.kind.updated);
    return this.rowOrNull(this.call("update", { ...fields, ...more, ...this.one(id, ownerId) }));
  }

  /** Give the rows that match filters, a page of them in the order that these words name. */
  protected async searchFor(filters: Maybe<object>, ownerId: Maybe<string>, sortBy: Words<string>): Promise<Row[]> {
    const wanted = withoutNull(this.given(filters, [...Object.keys(this.kind.filters), ...PAGE_KEYS]));
    const { limit = 10, offset = 0, sort_by, sort_order, ...others } = wanted;
    const sorted: Fields = {};
    if (sort_by !== undefined) {
      sorted.sortBy = sortBy.write("sort_by", sort_by);
    }
    if (sort_order !== undefined) {
      sorted.sortOrder = SORT_ORDER.write("sort_order", sort_order);
    }
    return this.rows(others, ownerId, limit, offset, sorted);
  }

  /** Count the rows that match filters. */
  protected async countOf(filters: Maybe<object>, ownerId: Maybe<string>): Promise<number> {
    const asked = this.asked(withoutNull(this.given(filters, Object.keys(this.kind.filters))));
    const owner = this.scope.owner(ownerId);
    if (asked === undefined) {
      return 0;
    }
    const { count } = await this.call("count", { ...asked, ownerId: owner }, "s");
    return Number(count);
  }

  /** Give a page of the rows that match filters which are known to be ones. */
  protected async rows(
    filters: Fields,
    ownerId: Maybe<string>,
    limit: unknown,
    offset: unknown,
    more: Fields = {},
  ): Promise<Row[]> {
    const most = Math.max(1, checkedCount(limit, "limit"));
    const skip = Math.max(0, checkedCount(offset, "offset"));
    const asked = this.asked(filters);
    const owner = this.scope.owner(ownerId);
    if (asked === undefined) {
      return [];
    }
    const search = (request: Fields) => this.call("search", request, "s");
    const request = { ...asked, ...more, ownerId: owner };
    return paged(search, request, `${this.field}s`, this.kind.rowOf, most, skip);
  }

  /** The filters that are not undefined. Throws TypeError for a name that is none. */
  protected given(filters: Maybe<object>, names: readonly string[]): Fields {
    const found: Fields = {};
    for (const [name, value] of Object.entries(checkedObject(filters ?? {}, "filters"))) {
      if (!names.includes(name)) {
        const row = `${/^[aeiou]/.test(this.field) ? "an" : "a"} ${this.field}`;
        const meant = meantBy(name, names);
        const advice = meant === undefined ? "" : `; did you mean ${meant}?`;
        throw new TypeError(`${name} is no attribute of ${row} to filter by${advice}`);
      }
      if (value !== undefined) {
        found[name] = value;
      }
    }
    return found;
  }

  /** The fields that ask for what matches filters; undefined when nothing can. */
  private asked(filters: Fields): Fields | undefined {
    let isPossible = true;
    const request: Fields = {};
    for (const [name, value] of Object.entries(filters)) {
      const fields = this.kind.filters[name]?.(name, value);
      isPossible &&= fields !== undefined;
      Object.assign(request, fields);
    }
    return isPossible ? request : undefined;
  }

  /** The fields that name one row. */
  protected one(id: string, ownerId: Maybe<string>): Fields {
    const name = `${this.field}_id`;
    return { ownerId: this.scope.owner(ownerId), [fieldName(name)]: checkedText(id, name) };
  }

  protected call(verb: string, request: Fields, plural = ""): Promise<Fields> {
    return this.scope.method(this.kind.service, `${verb}${this.kind.noun}${plural}`)(request);
  }

  protected rowIn(reply: Fields): Row {
    return this.kind.rowOf(reply[this.field] as Message);
  }

  protected async rowOrNull(call: Promise<Fields>): Promise<Row | null> {
    const reply = await this.orNull(call);
    return reply === null ? null : this.rowIn(reply);
  }

  protected orNull<T>(call: Promise<T>): Promise<T | null> {
    return orNull(call, this.kind.idFields);
  }
}

function withoutNull(filters: Fields): Fields {
  return Object.fromEntries(Object.entries(filters).filter(([, value]) => value !== null));
}

/** Asks for one of these ids, in this field of the request. Without any that can be one, no row matches. */
export function anyId(field: string): Filter {
  return (name, value) => {
    const ids = checkedArray(name, value).filter((id) => isId(checkedText(id, name)));
    return ids.length ? { [field]: ids } : undefined;
  };
}

/** Asks for a text that is never empty. */
export const exactly: Filter = (name, value) => (checkedText(value, name) ? { [fieldName(name)]: value } : undefined);

/** Asks for rows that contain a JSON object, however deep. */
export const containing: Filter = (name, value) => ({ [fieldName(name)]: jsonObject(name, value) });

/** Asks for the status that a word names. */
export function statusIn(words: Words<string>): Filter {
  return (name, value) => {
    const number = words.numberOf(checkedText(value, name));
    return number === undefined ? undefined : { statuses: [number] };
  };
}
