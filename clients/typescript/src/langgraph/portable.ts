/** A serializer whose values TypeScript and Python both read. docs/portable.md describes the format. */

import { JsonPlusSerializer, type SerializerProtocol } from "@langchain/langgraph-checkpoint";
import { parseJson } from "../json.js";
import { NotPortable } from "./portable_types.js";
import { readValue, writeValue } from "./portable_values.js";

export { ExactDate, NotPortable, type PortableKind, PortableValue } from "./portable_types.js";

/** The type of the values in this format. Other versions of it will have other types. */
export const PORTABLE = "portable.v1";

/**
 * Writes values that the Python client's `PortableSerializer` reads, and reads what that one writes.
 *
 * ```ts
 * const saver = new GrpcSaver({ target: "localhost:50051", ownerId: "alice", serde: new PortableSerializer() });
 * ```
 *
 * Carried are LangChain's messages and documents, what LangGraph itself keeps, and JSON values, bytes, dates, sets, maps, integers of
 * any size, and Python's other simple values as {@link PortableValue}. All else is refused with {@link NotPortable}, which says where it
 * is. Values of LangGraph.js's default serializer are read too, so that a thread may be continued with this one.
 */
export class PortableSerializer implements SerializerProtocol {
  private readonly own = new JsonPlusSerializer();

  /**
   * Make bytes of a value, with the type that says how.
   *
   * @throws {NotPortable} For a value that another language could not read.
   */
  async dumpsTyped(data: unknown): Promise<[string, Uint8Array]> {
    if (data instanceof Uint8Array) {
      return ["bytes", data];
    }
    // An error is kept as its text, as it is in Python.
    const value = data instanceof Error ? `${data.name}: ${data.message}` : data;
    return [PORTABLE, new TextEncoder().encode(JSON.stringify(writeValue(value)))];
  }

  /**
   * Make a value of bytes.
   *
   * @throws {NotPortable} For what something else has written, and for what is broken.
   */
  async loadsTyped(type: string, data: Uint8Array | string): Promise<unknown> {
    switch (type) {
      case PORTABLE:
        return readValue(parsed(typeof data === "string" ? data : new TextDecoder().decode(data)));
      // An empty value of Python's default serializer, and its bytes.
      case "null":
        return null;
      case "bytearray":
        return this.own.loadsTyped("bytes", data);
      case "bytes":
      case "json":
        return this.own.loadsTyped(type, data);
      default:
        throw new NotPortable(unread(type));
    }
  }
}

function parsed(text: string): unknown {
  try {
    return parseJson(text);
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof RangeError) {
      throw new NotPortable(`is not in the portable format: ${error.message}`);
    }
    throw error;
  }
}

/** What is wrong with a type that this serializer does not read. */
function unread(type: string): string {
  const name = JSON.stringify(type);
  if (type.includes("+")) {
    return `of the type ${name} is encrypted, by a serializer of another language or another one than this: use the one that wrote it`;
  }
  if (type === "msgpack" || type === "pickle") {
    return (
      `of the type ${name} is of LangGraph's default serializer for Python, which only Python reads: continue this thread in Python, ` +
      "or begin threads there with PortableSerializer"
    );
  }
  return (
    `of the type ${name} is not one that this PortableSerializer reads: it reads ${PORTABLE} and what LangGraph.js's default ` +
    "serializer writes. Use the serializer that wrote it; a newer portable format needs a newer @agentstorage/client"
  );
}
