/** Graphs do the same on the service as in LangGraph's memory. */

import { AIMessage, type BaseMessage, HumanMessage } from "@langchain/core/messages";
import { type LangGraphRunnableConfig, MemorySaver, MessagesAnnotation, START, StateGraph } from "@langchain/langgraph";
import { describe, expect, inject, test } from "vitest";
import { GrpcSaver, GrpcStore, PortableSerializer } from "../../src/langgraph/index.js";
import { BACKENDS, connect, newOwner } from "../support.js";
import { all, config, newThread } from "./checkpoints.js";
import { deltaGraph, SCENARIOS, type Scenario } from "./graphs.js";

const NAMED: [string, Scenario][] = Object.entries(SCENARIOS);

describe.each(BACKENDS)("%s", (backend) => {
  test.each(NAMED)("the same as in memory: %s", async (_, scenario) => {
    await using connection = connect(backend);
    const saver = new GrpcSaver({ connection, ownerId: newOwner() });
    const where = { configurable: { thread_id: newThread() } };
    expect(await scenario(saver, where)).toEqual(await scenario(new MemorySaver(), where));
    expect((await all(saver.list(where))).length).toBeGreaterThan(1);
  });

  test.each(NAMED)("the same with versions and values that Python reads: %s", async (_, scenario) => {
    await using connection = connect(backend);
    const saver = new GrpcSaver({ connection, ownerId: newOwner(), serde: new PortableSerializer() });
    const where = { configurable: { thread_id: newThread() } };
    expect(await scenario(saver, where)).toEqual(await scenario(new MemorySaver(), where));
    const [newest] = await all(saver.list(where, { limit: 1 }));
    const versions = Object.values(newest?.checkpoint.channel_versions ?? {});
    expect(versions.length).toBeGreaterThan(0);
    expect(new Set(versions.map((version) => typeof version))).toEqual(new Set(["string"]));
  });

  test.each(NAMED.filter(([name]) => name !== "subgraphs"))(
    "the same with the owner in the config: %s",
    async (_, scenario) => {
      await using connection = connect(backend);
      const where = { configurable: { thread_id: newThread(), owner_id: newOwner() } };
      expect(await scenario(new GrpcSaver({ connection }), where)).toEqual(await scenario(new MemorySaver(), where));
    },
  );

  test.each(["sync", "async", "exit"] as const)("the same however durable: %s", async (durability) => {
    await using connection = connect(backend);
    const run = async (graph: ReturnType<typeof deltaGraph>, where: ReturnType<typeof config>) => {
      for (let turn = 0; turn < 5; turn += 1) {
        await graph.invoke({ log: [`in${turn}`], rare: ["r"], turn }, { ...where, durability });
      }
      return (await graph.getState(where)).values;
    };
    const where = { configurable: { thread_id: newThread() } };
    const saver = new GrpcSaver({ connection, ownerId: newOwner() });
    expect(await run(deltaGraph(saver), where)).toEqual(await run(deltaGraph(new MemorySaver()), where));
  });

  test("another client goes on", async () => {
    const { target } = inject("servers")[backend];
    const ownerId = newOwner();
    const where = { configurable: { thread_id: newThread() } };
    const talk = (saver: GrpcSaver) =>
      new StateGraph(MessagesAnnotation)
        .addNode("answer", ({ messages }) => ({ messages: [new AIMessage(`heard ${messages.length}`)] }))
        .addEdge(START, "answer")
        .compile({ checkpointer: saver });
    let messages: BaseMessage[] = [];
    for (let turn = 0; turn < 3; turn += 1) {
      await using saver = new GrpcSaver({ target, ownerId });
      ({ messages } = await talk(saver).invoke({ messages: [new HumanMessage(`turn ${turn}`)] }, where));
    }
    expect(messages.map((message) => [message.type, message.content])).toEqual([
      ["human", "turn 0"],
      ["ai", "heard 1"],
      ["human", "turn 1"],
      ["ai", "heard 3"],
      ["human", "turn 2"],
      ["ai", "heard 5"],
    ]);
    expect(messages.every((message) => message instanceof HumanMessage || message instanceof AIMessage)).toBe(true);
  });

  test("delta channels outlive pruning and copying", async () => {
    await using connection = connect(backend);
    const saver = new GrpcSaver({ connection, ownerId: newOwner() });
    const graph = deltaGraph(saver, 3);
    const thread = newThread();
    const copy = `${thread}-copy`;
    for (let turn = 0; turn < 7; turn += 1) {
      await graph.invoke({ log: [`in${turn}`], rare: ["r"], turn }, config(thread));
    }
    const before = (await graph.getState(config(thread))).values;
    const many = (await all(saver.list(config(thread)))).length;
    await saver.copyThread(thread, copy);
    await saver.prune([thread]);
    expect((await all(saver.list(config(thread)))).length).toBeLessThan(many);
    for (const own of [thread, copy]) {
      expect((await graph.getState(config(own))).values).toEqual(before);
      const result = await graph.invoke({ log: ["more"], rare: [], turn: 8 }, config(own));
      expect(result.log.slice(0, before.log.length)).toEqual(before.log);
      expect(result.rare).toEqual(before.rare);
    }
  });

  test("nodes use the store, each owner's run its own", async () => {
    await using connection = connect(backend);
    const graph = (ownerId: string) =>
      new StateGraph(MessagesAnnotation)
        .addNode("remember", async ({ messages }, { store }: LangGraphRunnableConfig) => {
          const puts = messages.map((message, place) =>
            store?.put(["memories"], `m${place}`, { text: message.content as string }),
          );
          await Promise.all(puts);
          return {};
        })
        .addNode("recall", async (_, { store }: LangGraphRunnableConfig) => {
          const found = (await store?.search(["memories"])) ?? [];
          const one = await store?.get(["memories"], "m0");
          await store?.delete(["memories"], "m1");
          const texts = found.map((item) => item.value.text).sort();
          return { messages: [new AIMessage(`${texts.join(", ")}; first ${one?.value.text}`)] };
        })
        .addEdge(START, "remember")
        .addEdge("remember", "recall")
        .compile({
          checkpointer: new GrpcSaver({ connection, ownerId }),
          store: new GrpcStore({ connection, ownerId }),
        });
    const owners = [newOwner(), newOwner()];
    const runs = owners.map((ownerId, place) =>
      graph(ownerId).invoke(
        { messages: [new HumanMessage(`tea ${place}`), new HumanMessage(`milk ${place}`)] },
        { configurable: { thread_id: newThread() } },
      ),
    );
    const said = (await Promise.all(runs)).map(({ messages }) => messages.at(-1)?.content);
    expect(said).toEqual(["milk 0, tea 0; first tea 0", "milk 1, tea 1; first tea 1"]);
    const left = await new GrpcStore({ connection, ownerId: owners[0] }).search([]);
    expect(left.map((item) => item.key)).toEqual(["m0"]);
  });
});
