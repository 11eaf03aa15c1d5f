/** The drop-in interface for runs. */

import { expect, test } from "vitest";
import { AlreadyExists, NotFound } from "../../src/errors.js";
import type { RunCreate, RunStatus } from "../../src/storage/index.js";
import { INSTANT, inOrder, onBackends, times } from "./support.js";

onBackends((stage) => {
  const create = (data: Partial<RunCreate> = {}, owner = stage.alice) =>
    stage.storage.runs.create({ thread_id: `t-${stage.alice}`, assistant_id: "a", ...data }, owner);

  test("create only writes the row", async () => {
    const run = await create({ thread_id: "no such thread" });
    expect(run).toStrictEqual({
      run_id: expect.stringMatching(/^[0-9a-f]{32}$/),
      thread_id: "no such thread",
      assistant_id: "a",
      status: "pending",
      metadata: { owner: stage.alice },
      kwargs: {},
      multitask_strategy: "reject",
      created_at: expect.stringMatching(INSTANT),
      updated_at: run.created_at,
    });
    expect(await stage.storage.runs.get(run.run_id, stage.alice)).toStrictEqual(run);
  });

  test("nothing is rejected and the thread stays as it is", async () => {
    const { threads, runs } = stage.storage;
    const { thread_id } = await threads.create({}, stage.alice);
    for (const multitask_strategy of ["reject", "enqueue", "interrupt", "rollback", "reject"] as const) {
      const run = await create({ thread_id, multitask_strategy, status: "running" });
      expect(run).toMatchObject({ multitask_strategy, status: "running" });
    }
    expect(await runs.countByThread(thread_id, stage.alice)).toBe(5);
    expect((await threads.get(thread_id, stage.alice))?.status).toBe("idle");
  });

  test("create takes everything", async () => {
    const data = {
      run_id: `r-${stage.alice}`,
      status: "timeout" as const,
      kwargs: { input: { n: 2n ** 65n }, command: null },
      multitask_strategy: "enqueue" as const,
    };
    const run = await create({ ...data, metadata: { m: 1, owner: stage.bob }, ...{ other: "ignored" } });
    expect(run).toMatchObject(data);
    expect(run.metadata).toEqual({ m: 1, owner: stage.alice });
    const again = create({ run_id: data.run_id });
    await expect(again).rejects.toThrow(AlreadyExists);
    await expect(again).rejects.toThrow(new RegExp(`^Run ${data.run_id} already exists$`));
    expect(await create({ run_id: data.run_id, if_exists: "do_nothing" })).toStrictEqual(run);
  });

  test("create wants a thread and an assistant", async () => {
    for (const name of ["thread_id", "assistant_id"]) {
      for (const value of [undefined, ""]) {
        await expect(create({ [name]: value })).rejects.toThrow(new RegExp(`^${name} is required$`));
      }
    }
  });

  test("a foreign thread or assistant is not found", async () => {
    const { thread_id } = await stage.storage.threads.create({}, stage.alice);
    const { assistant_id } = await stage.storage.assistants.create({ graph_id: "g" }, stage.alice);
    await expect(create({ thread_id }, stage.bob)).rejects.toThrow(NotFound);
    await expect(create({ thread_id: "t", assistant_id }, stage.bob)).rejects.toThrow(NotFound);
    expect(await stage.storage.runs.countByThread(thread_id, stage.alice)).toBe(0);
  });

  test("absent and foreign are null", async () => {
    const { runs } = stage.storage;
    const run = await create();
    const cases = [
      [run.thread_id, run.run_id, stage.bob],
      ["other", run.run_id, stage.alice],
      [run.thread_id, "absent", stage.alice],
      ["", run.run_id, stage.alice],
      [run.thread_id, "", stage.alice],
      ["\0", run.run_id, stage.alice],
    ] as const;
    for (const [threadId, runId, owner] of cases) {
      expect(await runs.getByThread(threadId, runId, owner)).toBeNull();
      expect(await runs.deleteByThread(threadId, runId, owner)).toBe(false);
    }
    for (const [id, owner] of [
      [run.run_id, stage.bob],
      ["absent", stage.alice],
      ["", stage.alice],
    ] as const) {
      expect(await runs.get(id, owner)).toBeNull();
      expect(await runs.update(id, { metadata: {} }, owner)).toBeNull();
      expect(await runs.updateStatus(id, "error", owner)).toBeNull();
      expect(await runs.delete(id, owner)).toBe(false);
    }
    for (const [threadId, owner] of [
      [run.thread_id, stage.bob],
      ["", stage.alice],
      ["absent", stage.alice],
      ["x".repeat(300), stage.alice],
    ] as const) {
      expect(await runs.getActiveRun(threadId, owner)).toBeNull();
      expect(await runs.listByThread(threadId, 10, 0, null, owner)).toEqual([]);
      expect(await runs.countByThread(threadId, owner)).toBe(0);
    }
    expect(await runs.getByThread(run.thread_id, run.run_id, stage.alice)).toStrictEqual(run);
    expect(await runs.deleteByThread(run.thread_id, run.run_id, stage.alice)).toBe(true);
    expect(await runs.delete(run.run_id, stage.alice)).toBe(false);
  });

  test("listByThread", async () => {
    const { runs } = stage.storage;
    const thread = `t-${stage.alice}`;
    const made = await inOrder(12, (index) => create({ status: index % 2 ? "success" : "pending" }));
    await create({ thread_id: `other-${stage.alice}` });
    const newest = made.reverse();
    const list = (limit?: number, offset?: number, status?: RunStatus) =>
      runs.listByThread(thread, limit, offset, status, stage.alice);
    expect(await list()).toStrictEqual(newest.slice(0, 10));
    expect(await list(5, 2)).toStrictEqual(newest.slice(2, 7));
    expect(await list(0)).toStrictEqual(newest.slice(0, 1));
    expect(await list(5_000, -1)).toStrictEqual(newest);
    expect(await list(10, 20_000)).toEqual([]);
    expect(await list(100, 0, "success")).toStrictEqual(newest.filter(({ status }) => status === "success"));
    expect(await list(100, 0, "nonsense" as never)).toEqual([]);
    expect(await runs.countByThread(thread, stage.alice)).toBe(12);
    await expect(list("5" as never)).rejects.toThrow("limit must be an integer, not string");
    await expect(list(5, "0" as never)).rejects.toThrow("offset must be an integer, not string");
    await expect(runs.listByThread(5 as never, 1, 0, null, stage.alice)).rejects.toThrow("thread_id must be a string");
  });

  test("listByThread goes on past the largest page", async () => {
    const { runs } = stage.storage;
    const thread = `t-${stage.alice}`;
    await times(1_010, () => create());
    const all = await runs.listByThread(thread, 5_000, 0, null, stage.alice);
    expect(new Set(all.map(({ run_id }) => run_id)).size).toBe(1_010);
    expect(await runs.listByThread(thread, 1_005, 0, null, stage.alice)).toStrictEqual(all.slice(0, 1_005));
    expect(await runs.listByThread(thread, 5_000, 3, null, stage.alice)).toStrictEqual(all.slice(3));
  });

  test("the active run is the newest that has not ended", async () => {
    const { runs } = stage.storage;
    const thread = `t-${stage.alice}`;
    expect(await runs.getActiveRun(thread, stage.alice)).toBeNull();
    await create();
    const newer = await create({ status: "running" });
    await create({ status: "error" });
    expect(await runs.getActiveRun(thread, stage.alice)).toStrictEqual(newer);
  });

  test("update", async () => {
    const { runs } = stage.storage;
    const run = await create({ metadata: { a: 1 }, kwargs: { x: 1 } });
    const changed = await runs.update(run.run_id, { metadata: { b: 2 }, status: "running" }, stage.alice);
    expect(changed).toStrictEqual({
      ...run,
      metadata: { a: 1, b: 2, owner: stage.alice },
      status: "running",
      updated_at: expect.stringMatching(INSTANT),
    });
    const again = await runs.update(run.run_id, { kwargs: { y: 2 }, status: null, error: { e: 1 } }, stage.alice);
    expect(again).toMatchObject({ kwargs: { y: 2 }, status: "running" });
  });

  test.each(["success", "error", "timeout", "interrupted"] as const)("the final status %s stays", async (final) => {
    const { runs } = stage.storage;
    const { run_id } = await create();
    expect((await runs.updateStatus(run_id, "running", stage.alice))?.status).toBe("running");
    const ended = await runs.updateStatus(run_id, final, stage.alice);
    expect(ended?.status).toBe(final);
    expect(await runs.updateStatus(run_id, "running", stage.alice)).toStrictEqual(ended);
    const changed = await runs.update(run_id, { status: "pending", metadata: { k: 1 } }, stage.alice);
    expect(changed).toMatchObject({ status: final, metadata: { k: 1, owner: stage.alice } });
  });

  test("wrong arguments are refused by name", async () => {
    const { runs } = stage.storage;
    const { run_id } = await create();
    await expect(runs.updateStatus(run_id, "sleeping" as never, stage.alice)).rejects.toThrow("status must be one of");
    await expect(runs.updateStatus(run_id, undefined as never, stage.alice)).rejects.toThrow("status must be a string");
    await expect(create({ multitask_strategy: "hope" as never })).rejects.toThrow("multitask_strategy must be one of");
    await expect(create({ kwargs: "{}" as never })).rejects.toThrow("kwargs must be an object");
    await expect(create({ ...({ threadId: "t" } as object) })).rejects.toThrow('did you mean "thread_id"');
    expect(await runs.countByThread(`t-${stage.alice}`, stage.alice)).toBe(1);
  });
});
