/** Before all tests: one server on memory and one on Postgres, for every test that keeps to owners of its own. */

import type { TestProject } from "vitest/node";
import { type Server, Serving } from "./serving.js";

declare module "vitest" {
  export interface ProvidedContext {
    servers: { memory: Server; postgres: Server };
  }
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const serving = new Serving();
  const memory = await serving.start({ backend: "memory" });
  const postgres = await serving.start({ backend: "postgres" });
  project.provide("servers", { memory, postgres });
  return () => serving.close();
}
