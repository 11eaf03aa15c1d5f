/**
 * Runs as a queue: a worker that executes runs, and whoever submits one, follows it as it goes, and cancels another.
 *
 *     make serve                                                          # in the project's root
 *     npm run build && npx tsc -p examples && node dist/examples/queue-worker.js
 *
 * With `work` it is a worker alone, until Ctrl-C or SIGTERM; with `ask`, in another terminal or on another machine, only who submits.
 */

import { setTimeout as pause } from "node:timers/promises";
import { type ClaimedRun, Connection, createStorage, type RunResult, Worker } from "@agentstorage/client";

const ASSISTANT = "example-poet";
const LINES = ["An old silent pond", "A frog jumps into the pond", "Splash! Silence again."];

/** Write a poem, line by line, as slowly as a model would. It stops where it is told to, and a later attempt begins anew. */
async function poet(run: ClaimedRun): Promise<RunResult> {
  const lines: string[] = [];
  for (const line of LINES) {
    await pause(Number(run.kwargs.pauseMs ?? 100), undefined, { signal: run.signal });
    lines.push(line);
    await run.emit("line", line);
  }
  return { values: { poem: lines.join("\n"), attempt: run.attempt } };
}

/** Submit a run and show what comes of it; submit another and cancel it. */
async function ask(connection: Connection): Promise<void> {
  const storage = createStorage({ connection });
  await storage.assistants.create({ assistant_id: ASSISTANT, graph_id: "poet", if_exists: "do_nothing" });
  const { thread_id } = await storage.threads.create({});
  const run = await storage.runs.submit({ thread_id, assistant_id: ASSISTANT });
  for await (const event of storage.runs.events(run.run_id)) {
    console.log(event.end === undefined ? `  ${event.text()}` : `ended: ${event.end}`);
  }
  const thread = await storage.threads.get(thread_id);
  console.log(
    `the thread is ${thread?.status} and keeps: ${Object.keys(thread?.values as object)
      .sort()
      .join(", ")}`,
  );

  const slow = await storage.runs.submit({ thread_id, assistant_id: ASSISTANT, kwargs: { pauseMs: 60_000 } });
  const { stopped, asked } = await storage.runs.cancel(slow.run_id);
  const ended = await storage.runs.wait(slow.run_id, 30_000);
  console.log(`cancelled ${stopped.length + asked.length} run: ${ended?.status}`);
}

const [part = "both"] = process.argv.slice(2);
await using connection = new Connection({ ownerId: "example-user" });
const worker = new Worker(connection, poet, { concurrency: 4 });
if (part === "work") {
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.once(signal, () => void worker.stop());
  }
  await worker.run();
} else if (part === "ask") {
  await ask(connection);
} else {
  const working = worker.run();
  await ask(connection);
  await worker.stop();
  await working;
}
