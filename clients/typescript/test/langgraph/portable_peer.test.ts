/** Random values of each language, read and written by the other one. */

import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { expect, it } from "vitest";
import { PORTABLE } from "../../src/langgraph/portable.js";
import { SERDE, VALUES, wire } from "./portable_values.js";

const ROOT = fileURLToPath(new URL("../../../../", import.meta.url));
const COUNT = 200;

/** Lines from Python. */
function python(args: string[], lines: string[] = []): string[] {
  const output = execFileSync(`${ROOT}.venv/bin/python`, ["-m", "tests.langgraph.portable_peer", ...args], {
    cwd: ROOT,
    input: lines.map((line) => `${line}\n`).join(""),
    encoding: "utf8",
    maxBuffer: 2 ** 28,
  });
  return output.split("\n").slice(0, -1);
}

/**
 * JSON of the format without what may change on the way: the order of a set and of an object's members, and whether the keys of a dict,
 * all of them texts, are those of an object or of a Map.
 */
function settled(value: unknown): unknown {
  if (typeof value !== "object" || value === null) {
    return Object.is(value, -0) ? 0 : value;
  }
  if (Array.isArray(value)) {
    return value.map(settled);
  }
  const entries = Object.entries(value).map(([key, member]) => [key, settled(member)] as const);
  const made: Record<string, unknown> = Object.fromEntries(entries);
  const pairs = made.v as [unknown, unknown][];
  if (made.$ === "set") {
    return { $: "set", v: pairs.map((member) => JSON.stringify(member)).sort() };
  }
  if (made.$ === "object" || (made.$ === "map" && pairs.every(([key]) => typeof key === "string"))) {
    return { members: pairs.map((pair) => JSON.stringify(pair)).sort() };
  }
  return "$" in made ? made : { members: entries.map((pair) => JSON.stringify(pair)).sort() };
}

it("Python's values come back from TypeScript", { timeout: 120_000 }, async () => {
  const lines = python(["generate", String(COUNT)]);
  expect(lines.length).toBeGreaterThanOrEqual(COUNT);
  for (const line of lines) {
    const back = await wire(await SERDE.loadsTyped(PORTABLE, line));
    expect(settled(JSON.parse(back)), line).toEqual(settled(JSON.parse(line)));
  }
});

it("TypeScript's values come back from Python", { timeout: 120_000 }, async () => {
  const lines = await Promise.all(fc.sample(VALUES, COUNT).map((value) => wire([value])));
  const back = python(["echo"], lines);
  expect(back.length).toBe(COUNT);
  for (const [index, line] of lines.entries()) {
    const text = back[index] ?? "";
    expect(settled(JSON.parse(text)), line).toEqual(settled(JSON.parse(line)));
    // And TypeScript writes what it reads there as the same JSON.
    expect(settled(JSON.parse(await wire(await SERDE.loadsTyped(PORTABLE, text)))), text).toEqual(
      settled(JSON.parse(text)),
    );
  }
});
