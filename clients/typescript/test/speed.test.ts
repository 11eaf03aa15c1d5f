/** Calls per second through the exchange against plain RPCs, in one run: what docs/performance.md says of it. */

import { expect, test } from "vitest";
import { StoreService } from "../src/gen/agentstorage/v1/store_pb.js";
import { BACKENDS, type Backend, connect, newOwner, type Way } from "./support.js";

const IN_FLIGHT = 64;
const MILLISECONDS = Number(process.env.SPEED_MILLISECONDS ?? 700);

/** GetItem calls per second with so many in flight, and the microseconds of processor time that each costs the client. */
async function measure(backend: Backend, way: Way, inFlight: number): Promise<{ perSecond: number; cpu: number }> {
  await using connection = connect(backend, way);
  const store = connection.client(StoreService);
  const item = { ownerId: newOwner(), namespace: ["speed"], key: "k" };
  await store.putItem({ ...item, value: `"${"x".repeat(200)}"` });
  const before = process.cpuUsage();
  const started = performance.now();
  let calls = 0;
  const call = async () => {
    while (performance.now() - started < MILLISECONDS) {
      await store.getItem(item);
      calls += 1;
    }
  };
  await Promise.all(Array.from({ length: inFlight }, call));
  const { user, system } = process.cpuUsage(before);
  return { perSecond: (calls / (performance.now() - started)) * 1000, cpu: (user + system) / calls };
}

test.each(BACKENDS)("the exchange is at least three times as fast with 64 in flight: %s", async (backend) => {
  const plain = await measure(backend, "plain", IN_FLIGHT);
  const exchange = await measure(backend, "exchange", IN_FLIGHT);
  if (process.env.SPEED_MILLISECONDS) {
    const one = { plain: await measure(backend, "plain", 1), exchange: await measure(backend, "exchange", 1) };
    console.log(backend, { plain, exchange, "one caller": one });
  }
  expect(exchange.perSecond / plain.perSecond).toBeGreaterThan(3);
});
