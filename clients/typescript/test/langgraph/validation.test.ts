/** LangGraph.js's own suite for checkpointers, on both backends. */

import { deltaChannelHistoryTests, validate } from "@langchain/langgraph-checkpoint-validation";
import { afterAll } from "vitest";
import { GrpcSaver } from "../../src/langgraph/index.js";
import { type Server, Serving } from "../serving.js";
import { BACKENDS, newOwner } from "../support.js";
import { erase } from "./checkpoints.js";

for (const backend of BACKENDS) {
  // The suite uses thread ids such as "1", so it needs a server that nobody else uses.
  const serving = new Serving();
  const owners = new Map<GrpcSaver, string>();
  let server: Server;

  const suite = {
    checkpointerName: `GrpcSaver on ${backend}`,
    createCheckpointer: async () => {
      server ??= await serving.start({ backend });
      const ownerId = newOwner();
      const saver = new GrpcSaver({ target: server.target, ownerId });
      owners.set(saver, ownerId);
      return saver;
    },
    destroyCheckpointer: async (saver: GrpcSaver) => {
      // The same thread ids come again, for another owner.
      await erase(saver.connection, owners.get(saver) ?? "");
      await saver.close();
    },
  };
  validate(suite);
  deltaChannelHistoryTests(suite);
  afterAll(() => serving.close());
}
