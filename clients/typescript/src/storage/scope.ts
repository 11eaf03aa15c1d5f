/** What all resources share: the connection, whose rows are meant, and how answers of several pages are read. */

import type { DescService } from "@bufbuild/protobuf";
import { type Connection, checkedOwner } from "../connection.js";
import { InvalidRequest, LimitReached, NotFound } from "../errors.js";
import type { Resource } from "../gen/agentstorage/v1/common_pb.js";
import { ServerService } from "../gen/agentstorage/v1/server_pb.js";
import type { Fields, Maybe } from "./fields.js";

/** The largest page of the service, and the largest offset that it takes. */
export const PAGE = 1_000;
export const LARGEST_OFFSET = 10_000;

/** A unary call whose method is chosen by name. */
export type Call = (request: Fields) => Promise<Fields>;

/** The connection, and the owner of calls that name none. */
export class Scope {
  constructor(
    readonly connection: Connection,
    private readonly ownerId: string | undefined,
  ) {}

  /** The owner that a call acts for; undefined is an unscoped call. Throws TypeError for what is no owner. */
  owner(ownerId: Maybe<string>): string | undefined {
    return checkedOwner(ownerId) ?? this.ownerId;
  }

  /** A method by its name in the generated client. */
  method(service: DescService, name: string): Call {
    // The names are put together of a verb and a resource, which the types of the generated client can't follow.
    return (this.connection.client(service) as unknown as Record<string, Call>)[name] as Call;
  }

  /** Delete every row of these resources, of all owners. */
  async truncate(resources: Resource[]): Promise<void> {
    await this.connection.client(ServerService).truncate({ resources });
  }
}

/** Await a call; null when it fails because there is no such row, or because no row can have such an id. */
export async function orNull<T>(call: Promise<T>, idFields: ReadonlySet<string>): Promise<T | null> {
  try {
    return await call;
  } catch (error) {
    if (isAbsence(error, idFields)) {
      return null;
    }
    throw error;
  }
}

/** Whether an error says that there is no such row, or that none of these fields can be an id. */
export function isAbsence(error: unknown, idFields: ReadonlySet<string>): boolean {
  if (error instanceof InvalidRequest) {
    const paths = Object.keys(error.violations);
    return paths.length > 0 && paths.every((path) => idFields.has(path.replace(/\[.*$/, "")));
  }
  return error instanceof NotFound;
}

/**
 * Send a request for page after page by page token, until there are `limit` rows after the first `skip`, or no more.
 *
 * A page that is too large for one message is asked for in smaller ones.
 */
export async function paged<Message, Row>(
  call: Call,
  request: Fields,
  field: string,
  rowOf: (message: Message) => Row,
  limit: number,
  skip = 0,
): Promise<Row[]> {
  const rows: Row[] = [];
  let rest = Math.max(0, skip - LARGEST_OFFSET);
  let place: Fields = { offset: skip - rest };
  let size = PAGE;
  for (;;) {
    const wanted = Math.min(size, rest + limit - rows.length);
    let reply: Fields;
    try {
      reply = await call({ ...request, ...place, pageSize: wanted });
    } catch (error) {
      if (!(error instanceof LimitReached) || wanted === 1) {
        throw error;
      }
      size = Math.max(1, Math.floor(wanted / 8));
      continue;
    }
    const found = reply[field] as Message[];
    const dropped = Math.min(rest, found.length);
    rest -= dropped;
    for (const message of found.slice(dropped)) {
      rows.push(rowOf(message));
    }
    if (!reply.nextPageToken || rows.length >= limit) {
      return rows;
    }
    place = { pageToken: reply.nextPageToken };
  }
}

/**
 * Send a request for page after page by offset, until there are `limit` rows, or no more.
 *
 * Throws LimitReached, with the remedy, when there are more than the service lists.
 */
export async function listed<Message>(
  call: Call,
  request: Fields,
  field: string,
  limit: number,
  offset: number,
  remedy: string,
): Promise<Message[]> {
  const found: Message[] = [];
  let size = PAGE;
  for (;;) {
    const wanted = Math.min(size, limit - found.length);
    let page: Message[];
    try {
      page = (await call({ ...request, limit: wanted, offset: offset + found.length }))[field] as Message[];
    } catch (error) {
      if (!(error instanceof LimitReached) || wanted === 1) {
        throw error;
      }
      size = Math.max(1, Math.floor(wanted / 8));
      continue;
    }
    found.push(...page);
    if (page.length < wanted || found.length === limit) {
      return found;
    }
    if (offset + found.length > LARGEST_OFFSET) {
      throw new LimitReached(
        `the service lists ${field} up to number ${offset + found.length}, and there are more: ${remedy}`,
      );
    }
  }
}
