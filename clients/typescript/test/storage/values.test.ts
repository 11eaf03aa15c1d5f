/** The parts of the drop-in interface that need no server: misspelt keys, pages, times. */

import { describe, expect, test } from "vitest";
import { InvalidRequest, LimitReached, NotFound } from "../../src/errors.js";
import { meantBy } from "../../src/storage/fields.js";
import { isAbsence, LARGEST_OFFSET, listed, PAGE, paged } from "../../src/storage/scope.js";
import { isoOf, timestampOf } from "../../src/storage/time.js";

describe("misspelt keys", () => {
  const known = ["metadata", "assistant_id", "thread_id", "status", "values", "if_exists"];
  test.each([
    ["metdata", "metadata"],
    ["metaData", "metadata"],
    ["Metadata", "metadata"],
    ["assistantId", "assistant_id"],
    ["AssistantID", "assistant_id"],
    ["assistent_id", "assistant_id"],
    ["thraed_id", undefined],
    ["stauts", undefined],
    ["ifExists", "if_exists"],
    ["if_not_exists", undefined],
    ["value", "values"],
    ["run_id", undefined],
    ["", undefined],
  ])("%s", (name, meant) => {
    expect(meantBy(name, known)).toBe(meant);
  });
});

describe("times", () => {
  test.each([
    ["2026-01-02T03:04:05.123456Z", "2026-01-02T03:04:05.123456Z"],
    ["2026-01-02T03:04:05.1+05:30", "2026-01-01T21:34:05.100000Z"],
    ["2026-01-02", "2026-01-02T00:00:00.000000Z"],
    ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000Z"],
    ["9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"],
    ["1969-12-31T23:59:59.5Z", "1969-12-31T23:59:59.500000Z"],
    ["2024-02-29 12:00", "2024-02-29T12:00:00.000000Z"],
  ])("%s", (text, wanted) => {
    expect(isoOf(timestampOf("t", text))).toBe(wanted);
  });

  test.each(["", "now", "2026-02-29", "2026-13-01", "2026-01-01T24:30", "2026-1-1", "0001-01-01T00:00:00+01:00"])(
    "%j is none",
    (text) => {
      expect(() => timestampOf("t", text)).toThrow("t is not an ISO-8601 time");
    },
  );
});

describe("pages", () => {
  /** A service with so many rows, whose answers hold so many at most. */
  function service(total: number, most = PAGE) {
    const asked: object[] = [];
    const call = async (request: Record<string, unknown>) => {
      asked.push(request);
      const size = Number(request.pageSize ?? request.limit);
      const start = Number(request.pageToken ?? request.offset ?? 0);
      if (Math.min(size, total - start) > most) {
        throw new LimitReached("too large");
      }
      const end = Math.min(total, start + size);
      const rows = Array.from({ length: Math.max(0, end - start) }, (_, index) => start + index);
      return { rows, nextPageToken: end < total ? String(end) : "" };
    };
    return { asked, call };
  }
  const range = (start: number, end: number) => Array.from({ length: end - start }, (_, index) => start + index);
  const same = (row: number) => row;

  test.each([
    [25, 10, 0, 0, 10],
    [2_500, 2_400, 0, 0, 2_400],
    [2_500, 5_000, 0, 0, 2_500],
    [12_500, 5, 12_000, 12_000, 12_005],
    [12_500, 5_000, 10_001, 10_001, 12_500],
    [12_500, 5, 20_000, 0, 0],
  ])("by token: of %i rows %i after %i", async (total, limit, skip, start, end) => {
    const { asked, call } = service(total);
    expect(await paged(call, { other: 1 }, "rows", same, limit, skip)).toEqual(range(start, end));
    expect(asked[0]).toMatchObject({ other: 1, offset: Math.min(skip, LARGEST_OFFSET) });
    expect(asked.slice(1).every((request) => !("offset" in request))).toBe(true);
  });

  test("pages that are too large are asked for in smaller ones", async () => {
    expect(await paged(service(300, 3).call, {}, "rows", same, 300)).toEqual(range(0, 300));
    expect(await listed(service(300, 3).call, {}, "rows", 300, 0, "-")).toEqual(range(0, 300));
    await expect(paged(service(3, 0).call, {}, "rows", same, 300)).rejects.toThrow(LimitReached);
    await expect(listed(service(3, 0).call, {}, "rows", 300, 0, "-")).rejects.toThrow(LimitReached);
  });

  test("by offset: more than the service lists is said, with the remedy", async () => {
    expect(await listed(service(11_000).call, {}, "rows", 11_000, 0, "-")).toEqual(range(0, 11_000));
    expect(await listed(service(10_500).call, {}, "rows", 20_000, 0, "-")).toEqual(range(0, 10_500));
    const tooMany = listed(service(11_500).call, {}, "rows", 20_000, 0, "use a prefix");
    await expect(tooMany).rejects.toThrow(LimitReached);
    await expect(tooMany).rejects.toThrow("lists rows up to number 11000, and there are more: use a prefix");
  });
});

test("what counts as absent", () => {
  const ids = new Set(["thread_id", "namespace"]);
  const invalid = (...paths: string[]) =>
    new InvalidRequest("bad", { violations: Object.fromEntries(paths.map((path) => [path, "is bad"])) });
  expect(isAbsence(new NotFound("none"), ids)).toBe(true);
  expect(isAbsence(invalid("thread_id"), ids)).toBe(true);
  expect(isAbsence(invalid("namespace[3]", "thread_id"), ids)).toBe(true);
  expect(isAbsence(invalid("thread_id", "limit"), ids)).toBe(false);
  expect(isAbsence(invalid(), ids)).toBe(false);
  expect(isAbsence(new LimitReached("full"), ids)).toBe(false);
  expect(isAbsence(new TypeError("none"), ids)).toBe(false);
});
