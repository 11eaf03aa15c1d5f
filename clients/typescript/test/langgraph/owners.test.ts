/** Whose checkpoints a call is about: never guessed, and never another's. */

import { describe, expect, test } from "vitest";
import { NotFound } from "../../src/index.js";
import { GrpcSaver } from "../../src/langgraph/index.js";
import { BACKENDS, connect, newOwner } from "../support.js";
import { all, checkpoint, config, idOf, metadata, newThread, put, tupleAt } from "./checkpoints.js";

describe.each(BACKENDS)("%s", (backend) => {
  test("nothing crosses", async () => {
    await using connection = connect(backend);
    const mine = new GrpcSaver({ connection, ownerId: newOwner() });
    const theirs = new GrpcSaver({ connection, ownerId: newOwner() });
    const thread = newThread();
    const where = await put(mine, thread, { a: "mine", l: ["mine"] }, { run_id: "r1" });
    await mine.putWrites(where, [["w", "mine"]], "t1");
    await put(mine, where, {});
    const before = await all(mine.list(config(thread)));
    expect(before).toHaveLength(2);

    const made = checkpoint({ a: "theirs" }, undefined, idOf(where));
    const refused = theirs.put(config(thread), made, metadata(), made.channel_versions);
    await expect(refused).rejects.toThrow(NotFound);
    await expect(refused).rejects.toThrow(`the thread id "${thread}" is not this owner's to write`);
    await expect(theirs.putWrites(where, [["w", "theirs"]], "t2")).rejects.toThrow(NotFound);
    expect(await theirs.getTuple(where)).toBeUndefined();
    expect(await theirs.getTuple(config(thread))).toBeUndefined();
    expect(await all(theirs.list(config(thread)))).toEqual([]);
    expect(await all(theirs.list({}))).toEqual([]);
    const history = await theirs.getDeltaChannelHistory({ config: config(thread), channels: ["w", "l"] });
    expect(history).toEqual({ w: { writes: [] }, l: { writes: [] } });
    await theirs.deleteThread(thread);
    await theirs.deleteForRuns(["r1"]);
    await theirs.prune([thread], { strategy: "delete" });
    await theirs.prune([thread]);
    await theirs.copyThread(thread, `${thread}-copy`);
    expect(await all(theirs.list(config(`${thread}-copy`)))).toEqual([]);
    await put(theirs, `${thread}-own`, { a: "theirs" });
    await expect(theirs.copyThread(`${thread}-own`, thread)).rejects.toThrow(NotFound);

    expect(await all(mine.list(config(thread)))).toEqual(before);
    expect(await all(mine.list({}))).toHaveLength(2);
  });

  test("the owner may come from the config", async () => {
    await using connection = connect(backend);
    const saver = new GrpcSaver({ connection });
    const thread = newThread();
    const owner = { owner_id: newOwner() };
    const where = await put(saver, config(thread, undefined, owner), { a: [1] });
    // What LangGraph makes of this config must find the owner again.
    expect(where).toEqual(config(thread, idOf(where), owner));
    const second = await put(saver, where, { a: [2] });
    await saver.putWrites(second, [["a", 1]], "t");
    const found = await tupleAt(saver, config(thread, undefined, owner));
    expect([found.config, found.parentConfig]).toEqual([second, where]);
    for (const asked of [config(thread, undefined, owner), { configurable: owner }]) {
      expect((await all(saver.list(asked))).map((item) => item.config)).toEqual([second, where]);
    }
    expect(await saver.getTuple(config(thread, undefined, { owner_id: newOwner() }))).toBeUndefined();
    const history = await saver.getDeltaChannelHistory({ config: second, channels: ["a"] });
    expect(history).toEqual({ a: { writes: [], seed: [1] } });
  });

  test("no owner is no guess", async () => {
    await using connection = connect(backend);
    const saver = new GrpcSaver({ connection });
    const thread = newThread();
    const calls = [
      () => saver.getTuple(config(thread)),
      () => put(saver, thread, {}),
      () => saver.putWrites(config(thread, "c"), [["a", 1]], "t"),
      () => all(saver.list(config(thread))),
      () => all(saver.list({})),
      () => saver.deleteThread(thread),
      () => saver.deleteForRuns(["r"]),
      () => saver.copyThread(thread, "other"),
      () => saver.prune([thread]),
      () => saver.getDeltaChannelHistory({ config: config(thread), channels: ["a"] }),
    ];
    for (const call of calls) {
      await expect(call()).rejects.toThrow(/no ownerId: give the saver one, .*AGENTSTORAGE_OWNER/);
    }
    for (const ownerId of ["", 7 as unknown as string]) {
      expect(() => new GrpcSaver({ connection, ownerId })).toThrow(TypeError);
      await expect(saver.getTuple(config(thread, undefined, { owner_id: ownerId }))).rejects.toThrow(
        "config.configurable.owner_id",
      );
    }
  });

  test("a config does not change the saver's owner", async () => {
    await using connection = connect(backend);
    const ownerId = newOwner();
    const saver = new GrpcSaver({ connection, ownerId });
    const thread = newThread();
    const where = await put(saver, thread, {});
    await expect(saver.getTuple(config(thread, undefined, { owner_id: newOwner() }))).rejects.toThrow(
      "not the ownerId",
    );
    const found = await tupleAt(saver, config(thread, undefined, { owner_id: ownerId }));
    expect(idOf(found.config)).toBe(idOf(where));
  });

  test("a connection's owner is the last choice", async () => {
    await using connection = connect(backend, "exchange", { ownerId: newOwner() });
    const saver = new GrpcSaver({ connection });
    const thread = newThread();
    const where = await put(saver, thread, {});
    expect(where).toEqual(config(thread, idOf(where)));
    const other = newOwner();
    expect(await saver.getTuple(where)).toBeDefined();
    expect(await saver.getTuple(config(thread, undefined, { owner_id: other }))).toBeUndefined();
    expect(await new GrpcSaver({ connection, ownerId: other }).getTuple(where)).toBeUndefined();
  });
});
