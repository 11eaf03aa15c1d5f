/** The package as it is published: what is in it, and a project that installs, compiles and runs it, on Node and on Bun. */

import { execFile } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, inject, test } from "vitest";
import { BACKENDS, WAYS } from "./support.js";

const HERE = fileURLToPath(new URL("../", import.meta.url));
const BIN = join(HERE, "node_modules/.bin");
const run = promisify(execFile);

/** The programs of the documentation with what they print, by place. */
const SHOWN = ["docs/client-typescript.md", "docs/portable.md", "README.md", "clients/typescript/README.md"].flatMap(
  (page) => {
    const text = readFileSync(join(HERE, "../..", page), "utf8");
    const blocks = text.matchAll(/```ts\n(.*?)```(?:\n\n```text\n(.*?)```)?/gs);
    return [...blocks].map(([, code = "", printed], index) => ({ name: `${page} ${index + 1}`, code, printed }));
  },
);

let project: string;
let packed: { filename: string; files: { path: string }[] };

beforeAll(async () => {
  project = mkdtempSync(join(tmpdir(), "agentstorage-"));
  await run("npm", ["run", "build"], { cwd: HERE });
  const { stdout } = await run("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", project], {
    cwd: HERE,
  });
  [packed] = JSON.parse(stdout);
  cpSync(join(HERE, "test/consumer"), project, { recursive: true });
  const dependencies = { "@agentstorage/client": `file:${join(project, packed.filename)}` };
  writeFileSync(join(project, "package.json"), JSON.stringify({ type: "module", private: true, dependencies }));
  for (const [index, { code }] of SHOWN.entries()) {
    const target = JSON.stringify(inject("servers").postgres.target);
    writeFileSync(join(project, `shown${index}.ts`), code.replaceAll('"localhost:50051"', target));
  }
  const quick = ["--prefer-offline", "--no-audit", "--no-fund", "--ignore-scripts", "--legacy-peer-deps"];
  await run("npm", ["install", ...quick], { cwd: project });
  // What a user of LangGraph.js has beside the package, in the versions of the lock.
  mkdirSync(join(project, "node_modules/@types"), { recursive: true });
  for (const name of ["@langchain", "@types/node"]) {
    symlinkSync(join(HERE, "node_modules", name), join(project, "node_modules", name));
  }
  await run(join(BIN, "tsc"), ["-p", project], { cwd: project });
}, 180_000);

afterAll(() => rmSync(project, { recursive: true }));

test("what is packed is what a user needs", () => {
  const files = packed.files.map(({ path }) => path);
  for (const file of [
    "package.json",
    "README.md",
    "LICENSE",
    "dist/index.js",
    "dist/index.d.ts",
    "dist/langgraph/index.js",
  ]) {
    expect(files).toContain(file);
  }
  expect(files).toContain("dist/gen/agentstorage/v1/threads_pb.js");
  const others = files.filter((file) => !/^(package\.json|README\.md|LICENSE|dist\/.+\.(js|d\.ts))$/.test(file));
  expect(others).toEqual([]);
});

test("what it names as its entries is there", () => {
  const { exports } = JSON.parse(readFileSync(join(HERE, "package.json"), "utf8"));
  const files = new Set(packed.files.map(({ path }) => `./${path}`));
  for (const entry of Object.values(exports)) {
    for (const file of typeof entry === "string" ? [entry] : Object.values(entry as Record<string, string>)) {
      expect(files.has(file.replace("*", "threads")), file).toBe(true);
    }
  }
});

test.each(SHOWN.map((shown, index) => ({ ...shown, index })))("what $name shows", async ({ index, printed }) => {
  const program = join(project, `out/shown${index}.js`);
  const { stdout, stderr } = await run(process.execPath, [program], { cwd: project, timeout: 15_000 });
  expect(stderr).toBe("");
  if (printed !== undefined) {
    expect(stdout).toBe(printed);
  }
});

test.each(
  BACKENDS.flatMap((backend) => WAYS.flatMap((way) => ["node", "bun"].map((runtime) => ({ backend, way, runtime })))),
)("a project runs it and ends by itself: $runtime, $backend, $way", async ({ backend, way, runtime }) => {
  const program = runtime === "bun" ? join(BIN, "bun") : process.execPath;
  const parameters = [join(project, "out/main.js"), inject("servers")[backend].target, String(way === "exchange")];
  const { stdout, stderr } = await run(program, parameters, { cwd: project, timeout: 15_000 });
  expect(stderr).toBe("");
  expect(JSON.parse(stdout)).toEqual({
    big: "12345678901234567890",
    absent: true,
    seen: [1, 2],
    item: { kind: "green" },
  });
});
