/** The drop-in interface for assistants. */

import { expect, test } from "vitest";
import { AlreadyExists, InvalidRequest } from "../../src/errors.js";
import type { Assistant, AssistantCreate, AssistantSearch } from "../../src/storage/index.js";
import { INSTANT, inOrder, onBackends, times } from "./support.js";

onBackends((stage) => {
  const create = (data: Partial<AssistantCreate> = {}, owner = stage.alice) =>
    stage.storage.assistants.create({ graph_id: "g", ...data }, owner);

  test("create gives defaults, the configuration as stored, and stamps the owner", async () => {
    const { assistants } = stage.storage;
    const assistant = await create();
    expect(assistant).toStrictEqual({
      assistant_id: expect.stringMatching(/^[0-9a-f]{32}$/),
      graph_id: "g",
      config: {},
      context: {},
      metadata: { owner: stage.alice },
      name: null,
      description: null,
      version: 1,
      created_at: expect.stringMatching(INSTANT),
      updated_at: assistant.created_at,
    });
    expect(Math.abs(Date.parse(assistant.created_at) - Date.now())).toBeLessThan(60_000);
    expect(await assistants.get(assistant.assistant_id, stage.alice)).toStrictEqual(assistant);
  });

  test("create takes everything", async () => {
    const data = {
      assistant_id: `a ${stage.alice}`,
      graph_id: "graph",
      name: "Näme",
      description: "text",
      config: { tags: ["t"], recursion_limit: 3, configurable: { n: 2n ** 70n }, other: [1.5, null] },
      context: { user: { id: -(2n ** 60n) } },
    };
    const assistant = await create({ ...data, metadata: { m: 1, owner: stage.bob }, not_known: 1 } as AssistantCreate);
    expect(assistant).toMatchObject(data);
    expect(assistant.metadata).toEqual({ m: 1, owner: stage.alice });
    expect(await stage.storage.assistants.get(assistant.assistant_id, stage.alice)).toStrictEqual(assistant);
  });

  test("create wants a graph", async () => {
    for (const data of [{}, { graph_id: "" }, { graph_id: null }]) {
      await expect(stage.storage.assistants.create(data as AssistantCreate, stage.alice)).rejects.toThrow(
        /^graph_id is required$/,
      );
    }
  });

  test("a second create is refused or gives the first", async () => {
    const id = `a-${stage.alice}`;
    const first = await create({ assistant_id: id, metadata: { a: 1 } });
    for (const data of [{ metadata: { a: 1 } }, { if_exists: "raise" as const }, {}]) {
      const again = create({ assistant_id: id, ...data });
      await expect(again).rejects.toThrow(AlreadyExists);
      await expect(again).rejects.toThrow(new RegExp(`^Assistant ${id} already exists$`));
    }
    expect(await create({ assistant_id: id, if_exists: "do_nothing", name: "n" })).toStrictEqual(first);
    await expect(create({ assistant_id: id, if_exists: "do_nothing" }, stage.bob)).rejects.toThrow(AlreadyExists);
  });

  test("absent and foreign are null", async () => {
    const { assistants } = stage.storage;
    const mine = await create();
    const cases = [
      [mine.assistant_id, stage.bob],
      ["absent", stage.alice],
      ["", stage.alice],
      ["x".repeat(300), stage.alice],
      ["\0", stage.alice],
    ] as const;
    for (const [id, owner] of cases) {
      expect(await assistants.get(id, owner)).toBeNull();
      expect(await assistants.update(id, { name: "n" }, owner)).toBeNull();
      expect(await assistants.delete(id, owner)).toBe(false);
    }
    expect(await assistants.search({ ids: [mine.assistant_id] }, stage.bob)).toEqual([]);
    expect(await assistants.count({ ids: [mine.assistant_id] }, stage.bob)).toBe(0);
    expect(await assistants.get(mine.assistant_id, stage.alice)).toStrictEqual(mine);
  });

  test("update changes what it names and adds a version", async () => {
    const { assistants } = stage.storage;
    const first = await create({ name: "n", config: { tags: ["t"], x: 1 }, metadata: { a: 1, b: 2 } });
    const second = await assistants.update(
      first.assistant_id,
      { metadata: { b: null, c: 3, owner: stage.bob }, config: {}, name: undefined, context: null },
      stage.alice,
    );
    expect(second).toStrictEqual({
      ...first,
      metadata: { a: 1, b: null, c: 3, owner: stage.alice },
      config: {},
      version: 2,
      updated_at: expect.stringMatching(INSTANT),
    });
    expect(second && second.updated_at > first.updated_at).toBe(true);
    const third = await assistants.update(first.assistant_id, { name: "", graph_id: "h" }, stage.alice);
    expect(third).toMatchObject({ name: null, graph_id: "h", version: 3 });
    expect(await assistants.get(first.assistant_id, stage.alice)).toStrictEqual(third);
  });

  test("delete", async () => {
    const { assistants } = stage.storage;
    const { assistant_id } = await create();
    expect(await assistants.delete(assistant_id, stage.alice)).toBe(true);
    expect(await assistants.delete(assistant_id, stage.alice)).toBe(false);
    expect(await assistants.get(assistant_id, stage.alice)).toBeNull();
  });

  test("assistants of the system are readable by every owner, and changed by none", async () => {
    const { assistants } = stage.storage;
    const graph_id = `graph-${stage.alice}`;
    const shared = await create({ graph_id }, "system");
    const own = await create({ graph_id });
    expect(await assistants.get(shared.assistant_id, stage.alice)).toStrictEqual(shared);
    expect(await assistants.search({ graph_id }, stage.alice)).toStrictEqual([own, shared]);
    expect(await assistants.count({ graph_id }, stage.alice)).toBe(2);
    expect(await assistants.update(shared.assistant_id, { name: "n" }, stage.alice)).toBeNull();
    expect(await assistants.delete(shared.assistant_id, stage.alice)).toBe(false);
    expect(await assistants.delete(shared.assistant_id, "system")).toBe(true);
  });

  test("search and count", async () => {
    const { assistants } = stage.storage;
    const graph_id = `g-${stage.alice}`;
    const one = await create({ graph_id, name: "B 100%", metadata: { k: { deep: [1, 2] }, n: 1 } });
    const two = await create({ graph_id, name: "a 1000", metadata: { k: { deep: [2], more: true } } });
    const three = await create({ graph_id: "other", name: "C", metadata: { n: 2n ** 60n } });
    const all = [three, two, one];
    const cases: [AssistantSearch, Assistant[]][] = [
      [{ graph_id }, [two, one]],
      [{ graph_id: "" }, []],
      [{ graph_id: null, name: undefined, metadata: { n: 1 } }, [one]],
      [{ metadata: { k: { deep: [2] } } }, [two, one]],
      [{ metadata: { n: 2n ** 60n } }, [three]],
      [{ metadata: { owner: stage.alice } }, all],
      [{ name: "b 1" }, [one]],
      [{ name: "0%" }, [one]],
      [{ name: "_" }, []],
      [{ ids: [one.assistant_id, three.assistant_id, "absent"] }, [three, one]],
      [{ ids: ["", "x".repeat(300), two.assistant_id] }, [two]],
      [{ ids: ["\0"] }, []],
      [{ ids: [] }, []],
      [{ ids: [one.assistant_id], graph_id: "other" }, []],
    ];
    for (const [filters, rows] of cases) {
      expect(
        await assistants.search({ ...filters, metadata: { ...filters.metadata, owner: stage.alice } }, stage.alice),
      ).toStrictEqual(rows);
      expect(
        await assistants.count({ ...filters, metadata: { ...filters.metadata, owner: stage.alice } }, stage.alice),
      ).toBe(rows.length);
    }
    const names = async (page: AssistantSearch) =>
      (await assistants.search({ metadata: { owner: stage.alice }, ...page }, stage.alice)).map(({ name }) => name);
    expect(await names({ sort_by: "name", sort_order: "asc" })).toEqual(["B 100%", "C", "a 1000"]);
    expect(await names({ sort_by: "name" })).toEqual(["a 1000", "C", "B 100%"]);
    expect(await names({ sort_order: "asc", limit: 2 })).toEqual(["B 100%", "a 1000"]);
    expect(await names({ sort_by: "graph_id", sort_order: "desc" })).toEqual(["C", "a 1000", "B 100%"]);
    expect(await names({ limit: 0 })).toEqual(["C"]);
    expect(await names({ limit: -5, offset: -1 })).toEqual(["C"]);
    expect(await names({ limit: 1, offset: 1 })).toEqual(["a 1000"]);
    expect(await names({ offset: 3 })).toEqual([]);
    expect(await names({ offset: 20_000 })).toEqual([]);
    await assistants.update(one.assistant_id, { description: "d" }, stage.alice);
    expect(await names({ sort_by: "updated_at", limit: 1 })).toEqual(["B 100%"]);
  });

  test("search gives ten by default, and any number page by page", async () => {
    const { assistants } = stage.storage;
    const made = await inOrder(12, (index) =>
      create({ name: String(index).padStart(4, "0"), metadata: { few: true } }),
    );
    const few = { metadata: { few: true } };
    expect(await assistants.search(few, stage.alice)).toStrictEqual(made.reverse().slice(0, 10));
    expect(await assistants.search({ ...few, limit: 5_000 }, stage.alice)).toStrictEqual(made);
    await times(1_010, (index) => create({ name: String(index).padStart(4, "0"), metadata: { many: true } }));
    const many = { metadata: { many: true }, sort_by: "name", sort_order: "asc" } as const;
    for (const [limit, offset, count] of [
      [1_005, 0, 1_005],
      [5_000, 0, 1_010],
      [2_000, 8, 1_002],
    ] as const) {
      const found = await assistants.search({ ...many, limit, offset }, stage.alice);
      expect(found.map(({ name }) => Number(name))).toEqual(
        Array.from({ length: count }, (_, index) => offset + index),
      );
    }
    expect(await assistants.count({ metadata: { many: true } }, stage.alice)).toBe(1_010);
  });

  test("wrong arguments are refused by name, and nothing is written", async () => {
    const { assistants } = stage.storage;
    const cases: [unknown, string][] = [
      ["text", "data must be an object, not string"],
      [[], "data must be an object, not array"],
      [{ name: 5 }, "name must be a string, not number"],
      [{ config: "{}" }, "config must be an object, not string"],
      [{ config: [] }, "config must be an object, not array"],
      [{ context: { a: [Number.NaN] } }, "context is not JSON: context.a[0] is NaN"],
      [{ metadata: new Date() }, "metadata must be an object, but its toJSON gives something else"],
      [{ metadata: new Map() }, "metadata is not JSON: metadata is of the class Map"],
      [{ if_exists: "replace" }, 'if_exists must be one of raise, do_nothing, not "replace"'],
      [{ metdata: {} }, 'data has the key "metdata"; did you mean "metadata"?'],
      [{ assistantId: "a" }, 'data has the key "assistantId"; did you mean "assistant_id"?'],
    ];
    for (const [data, message] of cases) {
      const whole = (typeof data === "object" && !Array.isArray(data) ? { graph_id: "g", ...data } : data) as never;
      const refused = assistants.create(whole, stage.alice);
      await expect(refused).rejects.toThrow(TypeError);
      await expect(refused).rejects.toThrow(message);
    }
    await expect(create({ assistant_id: "a\0" })).rejects.toThrow(InvalidRequest);
    await expect(assistants.update("a", { graphId: "g" } as never, stage.alice)).rejects.toThrow("graph_id");
    await expect(assistants.get(5 as never, stage.alice)).rejects.toThrow("assistant_id must be a string, not number");
    const refusals: [unknown, string][] = [
      [{ color: "red" }, "color is no attribute of an assistant to filter by"],
      [{ graphId: "g" }, "graphId is no attribute of an assistant to filter by; did you mean graph_id?"],
      [{ limits: 1 }, "did you mean limit?"],
      [{ limit: "5" }, "limit must be an integer, not string"],
      [{ limit: 1.5 }, "limit must be an integer, not 1.5"],
      [{ offset: Number.NaN }, "offset must be an integer, not NaN"],
      [{ sort_by: "id" }, "sort_by must be one of created_at, updated_at, name, graph_id, assistant_id, not"],
      [{ sort_order: "up" }, "sort_order must be one of asc, desc"],
      [{ ids: "a" }, "ids must be an array, not string"],
      [{ ids: [1] }, "ids must be a string, not number"],
      [{ metadata: "{}" }, "metadata must be an object, not string"],
      [stage.alice, "filters must be an object, not string"],
    ];
    for (const [filters, message] of refusals) {
      await expect(assistants.search(filters as never, stage.alice)).rejects.toThrow(message);
    }
    await expect(assistants.count({ limit: 1 } as never, stage.alice)).rejects.toThrow("limit is no attribute");
    expect(await assistants.count({ metadata: { owner: stage.alice } }, stage.alice)).toBe(0);
  });
});
