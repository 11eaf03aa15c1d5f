/** Savers and stores are made, closed, and keep no process alive. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { describe, expect, inject, test } from "vitest";
import { Connection } from "../../src/index.js";
import { GrpcSaver, GrpcStore } from "../../src/langgraph/index.js";
import { BACKENDS, newOwner } from "../support.js";
import { config, newThread, put } from "./checkpoints.js";

const target = "127.0.0.1:1";

describe.each(BACKENDS)("%s", (backend) => {
  test("a given connection stays open", async () => {
    const ownerId = newOwner();
    const thread = newThread();
    await using connection = new Connection({ target: inject("servers")[backend].target });
    for (const round of [1, 2]) {
      await using saver = new GrpcSaver({ connection, ownerId });
      await using store = new GrpcStore({ connection, ownerId });
      expect(saver.connection).toBe(connection);
      await put(saver, thread, { round });
      await store.put(["a"], "k", { round });
    }
    await using saver = new GrpcSaver({ connection, ownerId });
    expect((await saver.get(config(thread)))?.channel_values).toEqual({ round: 2 });
  });

  test("what is closed is closed", async () => {
    const { target } = inject("servers")[backend];
    const saver = new GrpcSaver({ target, ownerId: newOwner() });
    const store = new GrpcStore({ target, ownerId: newOwner() });
    await saver.getTuple(config(newThread()));
    await store.get(["a"], "k");
    for (const used of [saver, store]) {
      await used.close();
      await used.close();
    }
    await expect(saver.getTuple(config(newThread()))).rejects.toThrow("closed");
    await expect(store.get(["a"], "k")).rejects.toThrow("closed");
  });

  // Compiled by the transformer that comes with vitest, so that it is a process of its own with nothing else in it.
  test.each(["closed", "left open", "in a list"])("no process is kept alive: %s", async (way) => {
    const code = `
      import { createServer } from "vite";
      const server = await createServer({ configFile: false, server: { middlewareMode: true, hmr: false, watch: null }, appType: "custom", logLevel: "error" });
      const { GrpcSaver, GrpcStore } = await server.ssrLoadModule("/src/langgraph/index.ts");
      await server.close();
      const [target, ownerId, thread] = process.argv.slice(1);
      const saver = new GrpcSaver({ target, ownerId });
      const store = new GrpcStore({ target, ownerId });
      const config = { configurable: { thread_id: thread, checkpoint_ns: "" } };
      const checkpoint = { v: 4, id: "1", ts: "", channel_values: {}, channel_versions: {}, versions_seen: {} };
      await saver.put(config, checkpoint, { source: "loop", step: 0, parents: {} }, {});
      await store.put(["a"], "k", {});
      const listed = saver.list(config);
      await listed.next();
      if (${JSON.stringify(way)} !== "in a list") {
        await listed.return();
      }
      if (${JSON.stringify(way)} === "closed") {
        await saver.close();
        await store.close();
      }
      console.log("end");
    `;
    const parameters = [inject("servers")[backend].target, newOwner(), newThread()];
    const child = spawn(process.execPath, ["--input-type=module", "-e", code, ...parameters], { timeout: 60_000 });
    let output = "";
    let errors = "";
    child.stdout.on("data", (data) => {
      output += data;
    });
    child.stderr.on("data", (data) => {
      errors += data;
    });
    let ended = 0;
    child.stdout.once("data", () => {
      ended = performance.now();
    });
    const [status] = await once(child, "close");
    expect([status, output, errors]).toEqual([0, "end\n", ""]);
    expect(performance.now() - ended).toBeLessThan(10_000);
  });
});

test("options that are none are named", async () => {
  await using connection = new Connection({ target });
  const options = { owner: "alice" } as object;
  for (const Made of [GrpcSaver, GrpcStore]) {
    expect(() => new Made({ target, ...options })).toThrow('no option "owner"');
    expect(() => new Made({ connection, token: "secret" })).toThrow(
      "beside an open connection there are no options such as token",
    );
    expect(() => new Made({ connection: "localhost" as unknown as Connection })).toThrow("must be a Connection");
  }
});

test("what holds a saver or a store can be shown as JSON", async () => {
  await using saver = new GrpcSaver({ target, ownerId: "alice" });
  await using store = new GrpcStore({ connection: saver.connection, ownerId: "alice" });
  expect(JSON.stringify({ saver, store })).toBe('{"saver":"[GrpcSaver]","store":"[GrpcStore]"}');
});
