/** The drop-in interface for crons. */

import { expect, test } from "vitest";
import { AlreadyExists, InvalidRequest, NotFound } from "../../src/errors.js";
import type { Cron, CronCreate, CronFilters } from "../../src/storage/index.js";
import { INSTANT, onBackends, times } from "./support.js";

const DAY = 24 * 3_600_000;

onBackends((stage) => {
  const create = (data: Partial<CronCreate> = {}, owner = stage.alice) =>
    stage.storage.crons.create({ assistant_id: "a", schedule: "0 * * * *", ...data }, owner);

  test("create gives defaults", async () => {
    const cron = await create();
    expect(cron).toStrictEqual({
      cron_id: expect.stringMatching(/^[0-9a-f]{32}$/),
      assistant_id: "a",
      thread_id: null,
      end_time: null,
      schedule: "0 * * * *",
      user_id: null,
      payload: {},
      next_run_date: expect.stringMatching(/:00:00\.000000Z$/),
      metadata: { owner: stage.alice },
      created_at: expect.stringMatching(INSTANT),
      updated_at: cron.created_at,
      timezone: "UTC",
      enabled: true,
      on_run_completed: "delete",
      misfire_policy: "coalesce",
    });
    const ahead = Date.parse(cron.next_run_date ?? "") - Date.parse(cron.created_at);
    expect(ahead).toBeGreaterThan(0);
    expect(ahead).toBeLessThanOrEqual(3_600_000);
    expect(await stage.storage.crons.get(cron.cron_id, stage.alice)).toStrictEqual(cron);
  });

  test("create takes everything, times to the microsecond", async () => {
    const seconds = new Date(Date.now() + 30 * DAY).toISOString().slice(0, 19);
    const end_time = `${seconds}.000005Z`;
    const data = {
      cron_id: `c-${stage.alice}`,
      thread_id: "t",
      user_id: "u",
      payload: { input: { n: 2n ** 70n } },
      end_time,
      timezone: "Europe/Berlin",
      enabled: false,
      on_run_completed: "keep" as const,
      misfire_policy: "skip" as const,
    };
    const cron = await create({ ...data, metadata: { m: 1 }, ...{ next_run_date: "ignored" } });
    expect(cron).toMatchObject(data);
    expect(cron.metadata).toEqual({ m: 1, owner: stage.alice });
    for (const [given, wanted] of [
      [`${seconds}.000005`, end_time],
      [`${seconds.replace("T", " ")}.000005+00:00`, end_time],
      [`${seconds}+0000`, `${seconds}.000000Z`],
      [new Date(`${seconds}.123Z`), `${seconds}.123000Z`],
      ["2999-12-31T23:30-01", "3000-01-01T00:30:00.000000Z"],
      ["2999-12-31", "2999-12-31T00:00:00.000000Z"],
    ] as const) {
      expect((await create({ end_time: given })).end_time).toBe(wanted);
    }
    const again = create(data);
    await expect(again).rejects.toThrow(AlreadyExists);
    await expect(again).rejects.toThrow(new RegExp(`^Cron c-${stage.alice} already exists$`));
    expect(await create({ ...data, if_exists: "do_nothing" })).toStrictEqual(cron);
  });

  test("create wants an assistant and a schedule", async () => {
    for (const name of ["assistant_id", "schedule"]) {
      await expect(create({ [name]: "" })).rejects.toThrow(new RegExp(`^${name} is required$`));
    }
  });

  test("wrong data is refused by name", async () => {
    const cases: [object, string, new (...args: never[]) => Error][] = [
      [{ schedule: "61 * * * *" }, "schedule", InvalidRequest],
      [{ schedule: "0 0 31 2 *" }, "schedule", InvalidRequest],
      [{ timezone: "Mars/Phobos" }, "timezone", InvalidRequest],
      [{ end_time: "2001-01-01" }, "end_time", InvalidRequest],
      [{ end_time: "tomorrow" }, "end_time is not an ISO-8601 time", TypeError],
      [{ end_time: "2999-02-30" }, "end_time is not an ISO-8601 time", TypeError],
      [{ end_time: "2999-02-20T25:00" }, "end_time is not an ISO-8601 time", TypeError],
      [{ end_time: "" }, "end_time is not an ISO-8601 time", TypeError],
      [{ end_time: new Date(Number.NaN) }, "end_time is not an ISO-8601 time", TypeError],
      [{ end_time: 5 }, "end_time must be a Date or ISO-8601 text, not number", TypeError],
      [{ enabled: "yes" }, "enabled must be a boolean, not string", TypeError],
      [{ on_run_completed: "explode" }, "on_run_completed must be one of delete, keep", TypeError],
      [{ payload: [1] }, "payload must be an object, not array", TypeError],
      [{ time_zone: "UTC" }, 'the key "time_zone"; did you mean "timezone"', TypeError],
    ];
    for (const [data, message, kind] of cases) {
      const refused = create(data);
      await expect(refused).rejects.toThrow(message);
      await expect(refused).rejects.toBeInstanceOf(kind);
    }
    expect(await stage.storage.crons.count(stage.alice)).toBe(0);
  });

  test("a foreign thread or assistant is not found", async () => {
    const { thread_id } = await stage.storage.threads.create({}, stage.alice);
    const { assistant_id } = await stage.storage.assistants.create({ graph_id: "g" }, stage.alice);
    await expect(create({ thread_id }, stage.bob)).rejects.toThrow(NotFound);
    await expect(create({ assistant_id }, stage.bob)).rejects.toThrow(NotFound);
  });

  test("update", async () => {
    const { crons } = stage.storage;
    const end_time = `${new Date(Date.now() + 3 * DAY).toISOString().slice(0, 19)}.000001Z`;
    const cron = await create({ metadata: { a: 1 }, payload: { x: 1 }, end_time });
    const updates = { schedule: "30 * * * *", metadata: { b: 2, owner: stage.bob }, end_time: null, ...{ other: 1 } };
    const changed = await crons.update(cron.cron_id, stage.alice, updates);
    expect(changed).toStrictEqual({
      ...cron,
      schedule: "30 * * * *",
      metadata: { a: 1, b: 2, owner: stage.alice },
      next_run_date: expect.stringMatching(/:30:00\.000000Z$/),
      updated_at: expect.stringMatching(INSTANT),
    });
    const again = await crons.update(cron.cron_id, stage.alice, {
      payload: { y: 2 },
      end_time: "",
      user_id: "u",
      enabled: false,
    });
    expect(again).toMatchObject({ payload: { y: 2 }, end_time: null, user_id: "u", enabled: false });
    expect(await crons.get(cron.cron_id, stage.alice)).toStrictEqual(again);
    await expect(crons.update(cron.cron_id, stage.alice, { time_zone: "UTC" } as never)).rejects.toThrow("timezone");
    await expect(crons.update(cron.cron_id, stage.alice, stage.bob as never)).rejects.toThrow("must be an object");
  });

  test("absent and foreign are null", async () => {
    const { crons } = stage.storage;
    const cron = await create();
    for (const [id, owner] of [
      [cron.cron_id, stage.bob],
      ["absent", stage.alice],
      ["", stage.alice],
    ] as const) {
      expect(await crons.update(id, owner, { user_id: "v" })).toBeNull();
      expect(await crons.get(id, owner)).toBeNull();
      expect(await crons.delete(id, owner)).toBe(false);
      expect(await crons.list(owner, { cron_id: id })).toEqual([]);
      expect(await crons.count(owner, { cron_id: id })).toBe(0);
    }
    expect(await crons.delete(cron.cron_id, stage.alice)).toBe(true);
    expect(await crons.delete(cron.cron_id, stage.alice)).toBe(false);
  });

  test("list and count", async () => {
    const { crons } = stage.storage;
    const one = await create({ assistant_id: "a1", thread_id: "t1", payload: { n: 2n ** 60n, m: { a: 1, b: 2 } } });
    const two = await create({ assistant_id: "a2", thread_id: "t1", enabled: false });
    const three = await create({ assistant_id: "a1", user_id: "u", metadata: { k: 1 } });
    await create({ assistant_id: "a1" }, stage.bob);
    const cases: [CronFilters | undefined, Cron[]][] = [
      [undefined, [three, two, one]],
      [{}, [three, two, one]],
      [{ assistant_id: "a1" }, [three, one]],
      [{ assistant_id: "a1", thread_id: "t1" }, [one]],
      [{ assistant_id: undefined, thread_id: null }, [three]],
      [{ assistant_id: "" }, []],
      [{ user_id: "u" }, [three]],
      [{ enabled: false }, [two]],
      [{ enabled: 0 as never }, []],
      [{ cron_id: two.cron_id }, [two]],
      [{ created_at: one.created_at }, [one]],
      [{ next_run_date: one.next_run_date, user_id: "u" }, [three]],
      [{ payload: { m: { b: 2, a: 1 }, n: 2n ** 60n } }, [one]],
      [{ payload: { n: 2n ** 60n } }, []],
      [{ metadata: {} }, [two, one]],
      [{ metadata: { k: 1 } }, [three]],
      [{ metadata: { k: 1, owner: stage.alice } }, [three]],
    ];
    for (const [filters, rows] of cases) {
      expect(await crons.list(stage.alice, filters)).toStrictEqual(rows);
      expect(await crons.count(stage.alice, filters)).toBe(rows.length);
    }
    for (const filters of [{ color: "red" }, { assistantId: "a" }]) {
      await expect(crons.list(stage.alice, filters as never)).rejects.toThrow("is no attribute of a cron to filter by");
      await expect(crons.count(stage.alice, filters as never)).rejects.toThrow(TypeError);
    }
  });

  test("list goes on past the largest page", async () => {
    await times(1_003, () => create());
    const all = await stage.storage.crons.list(stage.alice);
    expect(new Set(all.map(({ cron_id }) => cron_id)).size).toBe(1_003);
    expect(await stage.storage.crons.count(stage.alice)).toBe(1_003);
  });
});
