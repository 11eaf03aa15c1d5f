/**
 * The scenarios of `clients/scenarios`, run by the TypeScript client; `tests/clients/test_scenarios.py` runs the same, and tells how
 * to write the transcript anew, with which every answer and failure of every step is compared.
 */

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { load, type Place, SCENARIOS, Scenario, transcript } from "./scenario.js";
import { type Server, Serving } from "./serving.js";
import { BACKENDS, type Backend, WAYS } from "./support.js";

let serving: Serving;
let directory: string;

beforeAll(() => {
  serving = new Serving();
  directory = mkdtempSync(join(tmpdir(), "scenarios-"));
});

afterAll(async () => {
  await serving.close();
  rmSync(directory, { recursive: true });
});

/** The server that all tests share, or for a scenario that wants it one of its own. */
async function serve(name: string, backend: Backend): Promise<Place & AsyncDisposable> {
  const wanted = load(name).server;
  if (wanted === undefined) {
    const tell = () => Promise.reject(new Error("the shared server is left alone"));
    return { target: inject("servers")[backend].target, tell, [Symbol.asyncDispose]: async () => {} };
  }
  const environment = { ...wanted.environment };
  if (wanted.tokens !== undefined) {
    environment.STORAGE_TOKEN_FILE = join(directory, `${name}.toml`);
    writeFileSync(environment.STORAGE_TOKEN_FILE, wanted.tokens);
  }
  const database = backend === "postgres" ? (await serving.database()).name : "";
  let server: Server | undefined = await serving.start({ backend, database, environment });
  const { target, port } = server;
  return {
    target,
    async tell(what) {
      if (what === "start") {
        server = await serving.start({ backend, database, environment, port });
      } else if (server !== undefined && (what === "freeze" || what === "thaw")) {
        await serving[what](server);
      } else if (server !== undefined && what === "kill") {
        await serving.kill(server);
        server = undefined;
      } else {
        throw new Error(`a server can't be told to ${what}`);
      }
    },
    async [Symbol.asyncDispose]() {
      if (server !== undefined) {
        await serving.kill(server);
      }
    },
  };
}

describe.each(BACKENDS)("%s", (backend) => {
  describe.each(WAYS)("%s", (way) => {
    // A scenario with a server of its own may leave out a backend that makes no difference to it.
    const names = SCENARIOS.filter((name) => load(name).server?.backends.includes(backend) ?? true);
    test.each(names)("%s", async (name) => {
      await using place = await serve(name, backend);
      await using scenario = new Scenario(name, way, place);
      for (const [number, step] of scenario.steps.entries()) {
        try {
          await scenario.take(step);
        } catch (error) {
          throw new Error(`step ${number} of ${name}: ${JSON.stringify(step).slice(0, 500)}`, { cause: error });
        }
      }
      expect(scenario.transcript).toEqual(transcript()[name]);
    });
  });
});
