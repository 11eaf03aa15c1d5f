/** LangChain's messages in the portable format. */

import {
  AIMessage,
  AIMessageChunk,
  type BaseMessage,
  ChatMessage,
  ChatMessageChunk,
  FunctionMessage,
  FunctionMessageChunk,
  HumanMessage,
  HumanMessageChunk,
  RemoveMessage,
  SystemMessage,
  SystemMessageChunk,
  ToolMessage,
  ToolMessageChunk,
} from "@langchain/core/messages";
import { NotPortable } from "./portable_types.js";
import { isPlain, type JsonObject, writeMember } from "./portable_values.js";

interface Kind {
  readonly type: string;
  readonly chunk: boolean;
  /** The class, and what its constructor needs to make an empty one. */
  readonly of: new (
    fields: never,
  ) => BaseMessage;
}

const KINDS: Readonly<Record<string, Kind>> = {
  AIMessage: { type: "ai", chunk: false, of: AIMessage },
  AIMessageChunk: { type: "ai", chunk: true, of: AIMessageChunk },
  ChatMessage: { type: "chat", chunk: false, of: ChatMessage },
  ChatMessageChunk: { type: "chat", chunk: true, of: ChatMessageChunk },
  FunctionMessage: { type: "function", chunk: false, of: FunctionMessage },
  FunctionMessageChunk: { type: "function", chunk: true, of: FunctionMessageChunk },
  HumanMessage: { type: "human", chunk: false, of: HumanMessage },
  HumanMessageChunk: { type: "human", chunk: true, of: HumanMessageChunk },
  RemoveMessage: { type: "remove", chunk: false, of: RemoveMessage },
  SystemMessage: { type: "system", chunk: false, of: SystemMessage },
  SystemMessageChunk: { type: "system", chunk: true, of: SystemMessageChunk },
  ToolMessage: { type: "tool", chunk: false, of: ToolMessage },
  ToolMessageChunk: { type: "tool", chunk: true, of: ToolMessageChunk },
};

// What messages have in both languages. All else that one was made with goes into "extra".
const FIELDS = [
  "content",
  "additional_kwargs",
  "response_metadata",
  "name",
  "id",
  "tool_calls",
  "invalid_tool_calls",
  "usage_metadata",
  "tool_call_chunks",
  "tool_call_id",
  "artifact",
  "status",
  "role",
] as const;
const SHARED: ReadonlySet<string> = new Set(FIELDS);
// Left out where there is nothing in them.
const EMPTY: ReadonlySet<string> = new Set([
  "additional_kwargs",
  "invalid_tool_calls",
  "response_metadata",
  "tool_call_chunks",
  "tool_calls",
]);
// What constructors take beside the fields, and have made content of.
const ARGUMENTS: ReadonlySet<string> = new Set(["type", "contentBlocks", "content_blocks"]);
const NEEDED: Readonly<Record<string, string>> = {
  chat: "role",
  function: "name",
  remove: "id",
  tool: "tool_call_id",
};

function kindOf(message: BaseMessage): Kind {
  const own = Object.values(KINDS).find(({ of }) => of === message.constructor);
  // A message of another copy of @langchain/core has classes of its own, with the same names.
  const name = message.lc_id.at(-1) ?? "";
  const kind = own ?? (Object.hasOwn(KINDS, name) ? KINDS[name] : undefined);
  if (kind === undefined) {
    throw new NotPortable(`is of the class ${name}: keep a message of LangChain's own classes`);
  }
  return kind;
}

/** Make a JSON object of a message. Throws NotPortable for a class that is not LangChain's own. */
export function writeMessage(message: BaseMessage, depth: number): JsonObject {
  const kind = kindOf(message);
  const made: JsonObject = { type: kind.type, ...(kind.chunk ? { chunk: true } : {}) };
  const values = message as unknown as JsonObject;
  for (const field of FIELDS) {
    const value = values[field];
    const isEmpty = value === undefined || value === null || (EMPTY.has(field) && Object.keys(value).length === 0);
    // A RemoveMessage has no content, but each language says so in its own way.
    if (!isEmpty && !(field === "content" && kind.type === "remove")) {
      made[field] = writeMember(field, value, depth);
    }
  }
  const extra = Object.entries(message.lc_kwargs as JsonObject).filter(
    ([key, value]) => !SHARED.has(key) && !ARGUMENTS.has(key) && value !== undefined,
  );
  if (extra.length > 0) {
    made.extra = writeMember("extra", Object.fromEntries(extra), depth);
  }
  return made;
}

/** Make a message of a JSON object, as it was: LangChain's constructors would change some. */
export function readMessage(value: JsonObject): BaseMessage {
  const { type, chunk, extra, ...fields } = value;
  const kind = Object.values(KINDS).find((each) => each.type === type && each.chunk === (chunk ?? false));
  if (kind === undefined) {
    throw new NotPortable(`holds a message of the type ${JSON.stringify(type)}, which there is not`);
  }
  const unknown = Object.keys(fields).find((key) => !SHARED.has(key));
  if (unknown !== undefined) {
    throw new NotPortable(`holds a message with ${JSON.stringify(unknown)}, which messages do not have`);
  }
  const needed = NEEDED[kind.type];
  if (needed !== undefined && typeof fields[needed] !== "string") {
    throw new NotPortable(`holds a message of the type ${kind.type} without ${needed}`);
  }
  if (kind.type !== "remove" && typeof fields.content !== "string" && !Array.isArray(fields.content)) {
    throw new NotPortable("holds a message whose content is neither a text nor an array");
  }
  // Made empty, and then filled.
  const empty = { content: "", ...(needed === undefined ? {} : { [needed]: fields[needed] }) };
  const message = new kind.of(empty as never);
  const kwargs = message.lc_kwargs as JsonObject;
  for (const [key, field] of Object.entries(fields)) {
    (message as unknown as JsonObject)[key] = field;
    kwargs[key] = field;
  }
  for (const [key, field] of Object.entries(isPlain(extra) ? extra : {})) {
    Object.defineProperty(kwargs, key, { value: field, writable: true, enumerable: true, configurable: true });
    // Such as the metadata of a tool's message: but nothing takes the place of a method.
    if (Object.hasOwn(message, key) && key !== "lc_kwargs") {
      (message as unknown as JsonObject)[key] = field;
    }
  }
  return message;
}
