import { describe, expect, test } from "vitest";
import { ThreadService } from "../src/gen/agentstorage/v1/threads_pb.js";
import { NotFound, Unreachable } from "../src/index.js";
import { BACKENDS, connect, newOwner, WAYS } from "./support.js";

describe.each(BACKENDS)("%s", (backend) => {
  describe.each(WAYS)("%s", (way) => {
    test("what is created is there", async () => {
      await using connection = connect(backend, way);
      const threads = connection.client(ThreadService);
      const ownerId = newOwner();
      const { thread } = await threads.createThread({ ownerId, metadata: '{"a": 12345678901234567890}' });
      const found = await threads.getThread({ ownerId, threadId: thread!.threadId });
      expect(found.thread).toEqual(thread);
      const failed = threads.getThread({ ownerId: newOwner(), threadId: thread!.threadId });
      await expect(failed).rejects.toThrow(NotFound);
    });
  });
});

test("a server that is away is named", async () => {
  await using connection = connect("memory", "plain", { target: "127.0.0.1:1" });
  const failed = connection.client(ThreadService).getThread({ ownerId: "a", threadId: "t" });
  await expect(failed).rejects.toThrow(Unreachable);
  await expect(failed).rejects.toThrow(/cannot reach 127.0.0.1:1 .*storage-service serve/);
});
