/** Graphs, and what is done with them: each scenario tells all that its user sees, in words that no run changes. */

import type { RunnableConfig } from "@langchain/core/runnables";
import {
  Annotation,
  type BaseCheckpointSaver,
  Command,
  DeltaChannel,
  END,
  entrypoint,
  interrupt,
  Overwrite,
  Send,
  START,
  StateGraph,
  type StateSnapshot,
  task,
} from "@langchain/langgraph";

/** Does something with graphs on a checkpointer and a thread, and tells what came of it. */
export type Scenario = (saver: BaseCheckpointSaver, config: RunnableConfig) => Promise<unknown>;

const joined = Annotation<unknown[]>({ reducer: (a, b) => [...a, ...b], default: () => [] });
const State = Annotation.Root({ log: joined, answer: Annotation<string>, items: Annotation<number[]> });

interface Looked {
  getStateHistory(config: RunnableConfig, options?: object): AsyncIterable<StateSnapshot>;
}

/** A snapshot without ids and times. */
export function told(snapshot: StateSnapshot): Record<string, unknown> {
  return {
    values: snapshot.values,
    next: snapshot.next,
    source: snapshot.metadata?.source,
    step: snapshot.metadata?.step,
    hasParent: snapshot.parentConfig !== undefined,
    tasks: snapshot.tasks.map(({ name, error, interrupts, state }) => ({
      name,
      error: String(error),
      interrupts: interrupts.map(({ value }) => value),
      state: state !== undefined && "values" in state ? told(state) : state !== undefined,
    })),
  };
}

/** All that a thread went through, and which checkpoint came from which. */
export async function history(graph: Looked, config: RunnableConfig, options?: object): Promise<unknown> {
  const found: StateSnapshot[] = [];
  for await (const snapshot of graph.getStateHistory(config, options)) {
    found.push(snapshot);
  }
  const ids = found.map((snapshot) => snapshot.config.configurable?.checkpoint_id as string);
  const parents = found.map((snapshot) => ids.indexOf(snapshot.parentConfig?.configurable?.checkpoint_id));
  return found.map((snapshot, place) => ({ ...told(snapshot), parent: parents[place] }));
}

/** What a run gave, its interrupts by their values alone. */
function seen(result: object): object {
  const asked = "__interrupt__" in result ? (result.__interrupt__ as { value: unknown }[]) : [];
  return { ...result, __interrupt__: asked.map(({ value }) => value) };
}

/** A node asks twice, beside another one that asks once; the answers come one after another. */
const interrupts: Scenario = async (saver, config) => {
  const graph = new StateGraph(State)
    .addNode("ask", () => ({ log: [interrupt("name?"), interrupt({ age: "?" })] }))
    .addNode("other", () => ({ log: [`other ${interrupt("other?")}`] }))
    .addNode("end", () => ({ answer: "done" }))
    .addEdge(START, "ask")
    .addEdge(START, "other")
    .addEdge(["ask", "other"], "end")
    .addEdge("end", END)
    .compile({ checkpointer: saver });
  const results: unknown[] = [seen(await graph.invoke({ log: ["begin"] }, config))];
  const state = await graph.getState(config);
  results.push(told(state));
  const asked = state.tasks.flatMap((one) => one.interrupts);
  const answers = Object.fromEntries(asked.map(({ id, value }) => [id, `to ${value}`]));
  results.push(seen(await graph.invoke(new Command({ resume: answers }), config)));
  results.push(told(await graph.getState(config)));
  results.push(seen(await graph.invoke(new Command({ resume: 7 }), config)));
  return [results, await history(graph, config)];
};

/** A graph stops before and after nodes, and its state is changed meanwhile. */
const breakpoints: Scenario = async (saver, config) => {
  const graph = new StateGraph(State)
    .addNode("a", () => ({ log: ["a"], answer: "a" }))
    .addNode("b", () => ({ log: ["b"], answer: "b" }))
    .addNode("c", () => ({ log: ["c"], answer: "c" }))
    .addEdge(START, "a")
    .addEdge("a", "b")
    .addEdge("b", "c")
    .compile({ checkpointer: saver, interruptBefore: ["b"], interruptAfter: ["b"] });
  const results: unknown[] = [await graph.invoke({ log: ["begin"] }, config), told(await graph.getState(config))];
  await graph.updateState(config, { log: ["changed"] }, "a");
  results.push(await graph.invoke(null, config), await graph.invoke(null, config));
  const updates = await history(graph, config, { filter: { source: "update" }, limit: 1 });
  return [results, await history(graph, config), updates];
};

/** A subgraph that asks, inside of another, and one that remembers from run to run. */
const subgraphs: Scenario = async (saver, config) => {
  const inner = new StateGraph(State)
    .addNode("deep", () => ({ log: ["deep"] }))
    .addNode("ask", () => ({ log: [interrupt("deep?")] }))
    .addEdge(START, "deep")
    .addEdge("deep", "ask")
    .compile();
  const middle = new StateGraph(State).addNode("inner", inner).addEdge(START, "inner").compile();
  const memory = new StateGraph(State)
    .addNode("count", (state) => ({ log: [state.log.length] }))
    .addEdge(START, "count")
    .compile({ checkpointer: true });
  const graph = new StateGraph(State)
    .addNode("middle", middle)
    .addNode("memory", memory)
    .addEdge(START, "middle")
    .addEdge("middle", "memory")
    .compile({ checkpointer: saver });
  const results: unknown[] = [];
  for (const run of [0, 1]) {
    await graph.invoke({ log: [`run ${run}`] }, config);
    results.push(told(await graph.getState(config, { subgraphs: true })));
    results.push(await graph.invoke(new Command({ resume: `answer ${run}` }), config));
  }
  return [results, await history(graph, config)];
};

/** A thread goes on from an earlier checkpoint, once as it was and once changed; what was there before stays as it was. */
const timeTravel: Scenario = async (saver, config) => {
  const graph = new StateGraph(State)
    .addNode("a", (state) => ({ log: [`a${state.log.length}`] }))
    .addNode("b", (state) => ({ log: [`b${state.answer ?? ""}`] }))
    .addEdge(START, "a")
    .addEdge("a", "b")
    .compile({ checkpointer: saver });
  const results: unknown[] = [
    await graph.invoke({ log: ["one"] }, config),
    await graph.invoke({ log: ["two"] }, config),
  ];
  const past: StateSnapshot[] = [];
  for await (const snapshot of graph.getStateHistory(config)) {
    past.push(snapshot);
  }
  const beforeB = past.filter((snapshot) => snapshot.next[0] === "b").at(-1)!;
  results.push(await graph.invoke(null, beforeB.config));
  const fork = await graph.updateState(beforeB.config, { answer: "!" });
  results.push(await graph.invoke(null, fork), told(await graph.getState(beforeB.config)));
  for (const snapshot of past) {
    results.push(told(await graph.getState(snapshot.config)));
  }
  return [results, await history(graph, config)];
};

/** One of three parallel tasks fails when the others have ended; what they did is not done again. */
const errors: Scenario = async (saver, config) => {
  const done: string[] = [];
  const areKept = async () => {
    const found = await saver.getTuple(config);
    const logged = found?.pendingWrites?.filter(([, channel]) => channel === "log").map(([, , value]) => String(value));
    return logged?.includes("a") && logged.includes("c");
  };
  const node = (name: string) => async () => {
    done.push(name);
    if (name === "b" && done.filter((one) => one === "b").length === 1) {
      while (!(await areKept())) {
        await new Promise((later) => setTimeout(later, 10));
      }
      throw new Error("b fails once");
    }
    return { log: [name] };
  };
  const graph = new StateGraph(State)
    .addNode("a", node("a"))
    .addNode("b", node("b"))
    .addNode("c", node("c"))
    .addNode("end", () => ({ answer: "done" }))
    .addEdge(START, "a")
    .addEdge(START, "b")
    .addEdge(START, "c")
    .addEdge(["a", "b", "c"], "end")
    .compile({ checkpointer: saver });
  const failure = await graph.invoke({ log: ["begin"] }, config).then(
    () => "no failure",
    (error: Error) => error.message,
  );
  const state = told(await graph.getState(config));
  const result = await graph.invoke(null, config);
  return [failure, state, result, done.sort(), await history(graph, config)];
};

/** A node starts as many tasks as there are items. */
const sends: Scenario = async (saver, config) => {
  const graph = new StateGraph(State)
    .addNode("work", (item: { number: number }) => ({ log: [item.number ** 2] }))
    .addNode("end", (state) => ({ answer: state.log.join(" ") }))
    .addConditionalEdges(START, (state) => state.items.map((number) => new Send("work", { number })), ["work"])
    .addEdge("work", "end")
    .compile({ checkpointer: saver });
  const result = await graph.invoke({ items: Array.from({ length: 15 }, (_, number) => number) }, config);
  return [result, await history(graph, config)];
};

/** The functional API: tasks that call tasks, an answer from outside, and what is kept from run to run. */
const functions: Scenario = async (saver, config) => {
  const double = task("double", async (number: number) => number * 2);
  const quadruple = task("quadruple", async (number: number) => double(await double(number)));
  const run = entrypoint({ name: "run", checkpointer: saver }, async (name: string) => {
    const number = await quadruple(5);
    const answer = interrupt(`${name}?`);
    return entrypoint.final({ value: [number, answer], save: { number, name } });
  });
  const results: unknown[] = [];
  for (const name of ["first", "second"]) {
    results.push(seen(await run.invoke(name, config)));
    results.push(await run.invoke(new Command({ resume: `answer to ${name}` }), config));
  }
  return results;
};

const added = (state: unknown[], writes: unknown[][]) => [...state, ...writes.flat()];
const delta = (snapshotFrequency: number) => () =>
  new DeltaChannel<unknown[], unknown[]>(added, { snapshotFrequency, initialValueFactory: () => [] });

/** A graph whose channels keep what is added to them. */
export function deltaGraph(saver: BaseCheckpointSaver, rare = 1000) {
  const Delta = Annotation.Root({ log: delta(4), rare: delta(rare), turn: Annotation<number> });
  const both = (name: string) => (state: typeof Delta.State) => ({
    log: [`${name}${state.turn}:${state.log.length}`],
    rare: state.turn % 2 === 1 ? [name] : [],
  });
  return new StateGraph(Delta)
    .addNode("a", both("a"))
    .addNode("b", both("b"))
    .addNode("c", both("c"))
    .addEdge(START, "a")
    .addEdge(START, "b")
    .addEdge(["a", "b"], "c")
    .compile({ checkpointer: saver });
}

/** Channels that keep what is added to them, with a snapshot now and then: run, look back, fork, change. */
const deltas: Scenario = async (saver, config) => {
  const graph = deltaGraph(saver);
  const results: unknown[] = [];
  for (let turn = 0; turn < 6; turn += 1) {
    results.push(await graph.invoke({ log: [`in${turn}`], rare: ["r"], turn }, config));
  }
  const past: StateSnapshot[] = [];
  for await (const snapshot of graph.getStateHistory(config)) {
    past.push(snapshot);
  }
  for (const snapshot of [past[3]!, past[9]!, past.at(-2)!]) {
    results.push(told(await graph.getState(snapshot.config)));
  }
  const fork = await graph.updateState(past[5]!.config, { log: ["forked"] }, "c");
  results.push(told(await graph.getState(fork)));
  results.push(await graph.invoke({ log: ["on"], turn: 9 }, fork));
  await graph.updateState(config, { log: new Overwrite(["over"]) }, "c");
  results.push(await graph.invoke({ log: ["end"], turn: 10 }, config));
  return [results, await history(graph, config)];
};

export const SCENARIOS = { interrupts, breakpoints, subgraphs, timeTravel, errors, sends, functions, deltas };
