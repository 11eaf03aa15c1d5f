/** What the tests of the drop-in storage share: a storage of one backend, and owners that no other test has. */

import { afterAll, beforeAll, beforeEach, describe } from "vitest";
import { createStorage, type Storage } from "../../src/storage/index.js";
import { BACKENDS, type Backend, connect, newOwner } from "../support.js";

/** What a test works with. */
export interface Stage {
  storage: Storage;
  backend: Backend;
  alice: string;
  bob: string;
}

/** An instant as the results hold it. */
export const INSTANT = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/;

/** Run tests on every backend, each with owners of its own. */
export function onBackends(define: (stage: Stage) => void): void {
  describe.each(BACKENDS)("on %s", (backend) => {
    const stage = { backend } as Stage;
    beforeAll(() => {
      stage.storage = createStorage({ connection: connect(backend) });
    });
    beforeEach(() => {
      stage.alice = newOwner();
      stage.bob = newOwner();
    });
    afterAll(() => stage.storage.connection.close());
    define(stage);
  });
}

/** Do something so many times, as many at once as is polite. */
export async function times<T>(count: number, act: (index: number) => Promise<T>): Promise<T[]> {
  const results: T[] = [];
  for (let start = 0; start < count; start += 100) {
    const indexes = Array.from({ length: Math.min(100, count - start) }, (_, index) => start + index);
    results.push(...(await Promise.all(indexes.map(act))));
  }
  return results;
}

/** Do something so many times, one after the other. */
export async function inOrder<T>(count: number, act: (index: number) => Promise<T>): Promise<T[]> {
  const results: T[] = [];
  for (let index = 0; index < count; index += 1) {
    results.push(await act(index));
  }
  return results;
}
