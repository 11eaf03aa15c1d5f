/** A graph with joins, sent tasks, interrupts and a deferred node, whose threads Python and TypeScript continue in turn. */

import { execFile } from "node:child_process";
import { randomUUID } from "node:crypto";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Annotation, Command, END, interrupt, Overwrite, Send, START, StateGraph } from "@langchain/langgraph";
import { describe, expect, inject, it } from "vitest";
import { GrpcSaver } from "../../src/langgraph/index.js";
import { PortableSerializer } from "../../src/langgraph/portable.js";
import { BACKENDS, newOwner } from "../support.js";

const ROOT = fileURLToPath(new URL("../../../../", import.meta.url));

interface Shown {
  log: string[];
  next: string[];
}

/** Go on with a thread: begin with a word, or answer with it what waits. */
type Half = (target: string, owner: string, thread: string, word: string) => Promise<Shown>;

const State = Annotation.Root({
  log: Annotation<string[]>({ reducer: (before, more) => before.concat(more), default: () => [] }),
});

/** The graph of tests/langgraph/portable_graph.py. */
function said(name: string): { log: string[] } {
  return { log: [`${name} in typescript`] };
}

function builder() {
  return new StateGraph(State)
    .addNode("left", () => said("left"))
    .addNode("right", () => said("right"))
    .addNode("ask", () => said(`ask ${interrupt("ask?")}`))
    .addNode("both", () => said("both"))
    .addNode("work", ({ number }: { number: number }) =>
      said(`work ${number}${number === 2 ? interrupt("work?") : ""}`),
    )
    .addNode("last", ({ log }) => ({ log: new Overwrite([...log, "last in typescript"]) }), { defer: true })
    .addEdge(START, "left")
    .addEdge(START, "right")
    .addEdge("right", "ask")
    .addEdge(["left", "ask"], "both")
    .addConditionalEdges("both", () => [0, 1, 2].map((number) => new Send("work", { number })), ["work"])
    .addEdge("work", "last")
    .addEdge("last", END);
}

const typescript: Half = async (target, ownerId, thread, word) => {
  await using saver = new GrpcSaver({ target, ownerId, serde: new PortableSerializer() });
  const graph = builder().compile({ checkpointer: saver });
  const config = { configurable: { thread_id: thread } };
  const waits = (await graph.getState(config)).next.length > 0;
  await graph.invoke(waits ? new Command({ resume: word }) : { log: [word] }, config);
  const { values, next } = await graph.getState(config);
  return { log: values.log, next };
};

const python: Half = async (...args) => {
  const { stdout } = await promisify(execFile)(
    `${ROOT}.venv/bin/python`,
    ["-m", "tests.langgraph.portable_graph", ...args],
    { cwd: ROOT },
  );
  return JSON.parse(stdout);
};

const HALVES = { python, typescript };
type Language = keyof typeof HALVES;

describe.each(BACKENDS)("on %s", (backend) => {
  it.each<[Language, Language, Language]>([
    ["python", "typescript", "python"],
    ["typescript", "python", "typescript"],
    ["python", "python", "typescript"],
    ["typescript", "typescript", "python"],
  ])("%s begins, %s goes on, %s ends", { timeout: 60_000 }, async (first, second, third) => {
    const { target } = inject("servers")[backend];
    const place = [target, newOwner(), randomUUID()] as const;

    const begun = await HALVES[first](...place, "go");
    const start = ["go", `left in ${first}`, `right in ${first}`];
    expect(begun).toEqual({ log: start, next: ["ask"] });

    // The one start of the join that was there before is not forgotten.
    const middle = await HALVES[second](...place, "yes");
    const joined = [...start, `ask yes in ${second}`, `both in ${second}`];
    const finished = [0, 1].map((number) => `work ${number} in ${second}`);
    expect(middle).toEqual({ log: [...joined, ...finished], next: ["work"] });

    // What had finished in the interrupted step is found by its own language alone; in the other it runs again.
    const ended = await HALVES[third](...place, "!");
    const works = [0, 1].map((number) => `work ${number} in ${third}`);
    expect(ended).toEqual({
      log: [...joined, ...works, `work 2! in ${third}`, `last in ${third}`],
      next: [],
    });
  });
});
