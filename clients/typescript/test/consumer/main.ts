// A program of a user of the packed package: what it prints last is looked at, and that it ends by itself.

import { Connection, createStorage, NotFound, newId, type Thread } from "@agentstorage/client";
import { GrpcSaver, GrpcStore, PortableSerializer } from "@agentstorage/client/langgraph";
import { OwnerService } from "@agentstorage/client/v1/owner";
import { StoreService } from "@agentstorage/client/v1/store";
import { ThreadService } from "@agentstorage/client/v1/threads";
import { emptyCheckpoint } from "@langchain/langgraph-checkpoint";

const [target, exchange] = process.argv.slice(2);
const connection = new Connection({ target, ownerId: `consumer-${newId()}`, exchange: exchange === "true" });
const storage = createStorage({ connection });
const thread: Thread = await storage.threads.create({ metadata: { big: 12345678901234567890n } });
const found = await storage.threads.get(thread.thread_id);

const { ownerId } = connection;
const absent = await connection
  .client(ThreadService)
  .getThread({ ownerId: "nobody-else", threadId: thread.thread_id })
  .catch((error: unknown) => error);
await connection.client(StoreService).putItem({ ownerId, namespace: ["a"], key: "k", value: "1" });

// A stream that is left before its end.
for (let key = 0; key < 20; key += 1) {
  const value = `"${"x".repeat(200_000)}"`;
  await connection.client(StoreService).putItem({ ownerId, namespace: ["large"], key: `${key}`, value });
}
for await (const _ of connection.client(OwnerService).exportOwner({ ownerId })) {
  break;
}

const saver = new GrpcSaver({ connection, serde: new PortableSerializer() });
const config = { configurable: { thread_id: thread.thread_id, checkpoint_ns: "" } };
const checkpoint = { ...emptyCheckpoint(), channel_values: { seen: new Set([1, 2]) }, channel_versions: { seen: 1 } };
await saver.put(config, checkpoint, { source: "input", step: -1, parents: {} }, { seen: 1 });
const tuple = await saver.getTuple(config);

const store = new GrpcStore({ connection });
await store.put(["memories"], "tea", { kind: "green" });
const item = await store.get(["memories"], "tea");

console.log(
  JSON.stringify({
    big: String(found?.metadata.big),
    absent: absent instanceof NotFound,
    seen: Array.from((tuple?.checkpoint.channel_values.seen ?? []) as Iterable<number>),
    item: item?.value,
  }),
);
// The connection stays open: it keeps no process alive.
