/** What a connection is made with: targets, tokens, TLS, environment, and what is said of each mistake. */

import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { type AddressInfo, connect as connectTcp, createServer, type Server as NetServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, inject, test } from "vitest";
import { OwnerService } from "../src/gen/agentstorage/v1/owner_pb.js";
import { ServerService } from "../src/gen/agentstorage/v1/server_pb.js";
import { StoreService } from "../src/gen/agentstorage/v1/store_pb.js";
import { ThreadService } from "../src/gen/agentstorage/v1/threads_pb.js";
import {
  Connection,
  type ConnectionOptions,
  DeadlineExceeded,
  newId,
  Unauthenticated,
  Unreachable,
} from "../src/index.js";
import { resolve } from "../src/target.js";
import { type Server, Serving } from "./serving.js";
import { WAYS } from "./support.js";

const KEPT = { ...process.env };

afterEach(() => {
  for (const name of Object.keys(process.env).filter((one) => one.startsWith("AGENTSTORAGE_"))) {
    delete process.env[name];
  }
  Object.assign(process.env, KEPT);
});

describe("targets", () => {
  test.each([
    "localhost:50051",
    "10.0.0.1:1",
    "[::1]:65535",
    "dns:///storage:50051",
    "ipv4:10.0.0.1:50051,10.0.0.2:50051",
    "ipv6:[::1]:50051,[::2]:50051",
    "unix:/run/storage.sock",
    "unix:///run/storage.sock",
  ])("%s", (target) => {
    expect(new Connection({ target }).target).toBe(target);
  });

  test.each([
    ["localhost", /target must be "host:port", such as "localhost:50051", or a gRPC target, not "localhost"/],
    ["http://localhost:50051", /must be "host:port"/],
    ["a:1,b:2", /must be "host:port"/],
    ["postgresql://u:secret@localhost:5432/x", /not "\.\.\.@localhost:5432\/x"/],
    ["localhost:0", /a port is from 1 to 65535, not 0/],
    ["localhost:70000", /a port is from 1 to 65535, not 70000/],
    ["::1:50051", /must be "host:port"/],
  ])("%s is none", (target, message) => {
    expect(() => new Connection({ target })).toThrow(message);
  });

  test("a name stands for its addresses of one family", async () => {
    const local = { host: "localhost", port: 1, serverName: "localhost" };
    expect(await resolve(local)).toEqual([local]);
    await expect(resolve({ ...local, host: "no-such-host.invalid" })).rejects.toThrow(/ENOTFOUND|EAI_AGAIN/);
  });

  test.each(WAYS)("a name that nobody knows is named: %s", async (way) => {
    await using connection = new Connection({ target: "no-such-host.invalid:50051", exchange: way === "exchange" });
    const failed = connection.client(ThreadService).getThread({ ownerId: "a", threadId: "t" });
    await expect(failed).rejects.toThrow(Unreachable);
    await expect(failed).rejects.toThrow(/cannot reach no-such-host.invalid:50051/);
  });

  test.each(WAYS)("of several addresses those that answer take the calls: %s", async (way) => {
    const { port } = inject("servers").memory;
    await using connection = new Connection({
      target: `ipv4:127.0.0.1:1,127.0.0.1:${port},127.0.0.1:2`,
      exchange: way === "exchange",
    });
    const threads = connection.client(ThreadService);
    // No call meets those that are away, idempotent or not.
    const ended = await Promise.all(
      Array.from({ length: 30 }, () => threads.deleteThread({ ownerId: "a", threadId: newId(), allowMissing: true })),
    );
    expect(ended.length).toBe(30);
  });
});

describe("addresses that answer nothing", () => {
  let silent: NetServer;
  let open: Set<Socket>;

  beforeAll(async () => {
    open = new Set();
    // It accepts, as a frozen server's machine does, and that is all.
    silent = createServer((socket) => {
      open.add(
        socket
          .on("error", () => undefined)
          .on("close", () => open.delete(socket))
          .resume(),
      );
    });
    await new Promise<void>((done) => silent.listen(0, "127.0.0.1", done));
  });

  afterAll(() => silent.close());

  const port = () => (silent.address() as AddressInfo).port;

  test.each(WAYS)("others take the calls, and a close ends the attempts: %s", async (way) => {
    const connection = new Connection({
      target: `ipv4:127.0.0.1:${port()},127.0.0.1:${inject("servers").memory.port}`,
      exchange: way === "exchange",
    });
    const threads = connection.client(ThreadService);
    for (let call = 0; call < 10; call += 1) {
      const request = { ownerId: "a", threadId: newId(), allowMissing: true };
      await threads.deleteThread(request, { timeoutMs: 2_500 });
    }
    await connection.close();
    await expect.poll(() => open.size).toBe(0);
  });

  test.each(WAYS)("alone, a call ends at its deadline, and a stream at its signal: %s", async (way) => {
    const connection = new Connection({ target: `127.0.0.1:${port()}`, exchange: way === "exchange" });
    const started = performance.now();
    const call = connection.client(ThreadService).searchThreads({ ownerId: "a" }, { timeoutMs: 400 });
    await expect(call).rejects.toThrow(DeadlineExceeded);
    const abort = AbortSignal.timeout(300);
    const read = async () => {
      for await (const _ of connection.client(OwnerService).exportOwner({ ownerId: "a" }, { signal: abort })) {
        break;
      }
    };
    await expect(read()).rejects.toThrow("the call was cancelled");
    expect(performance.now() - started).toBeLessThan(2_000);
    await connection.close();
    await expect.poll(() => open.size).toBe(0);
  });
});

describe("what is no storage service", () => {
  // What it says first, or, as HTTP/1 does, when it is spoken to.
  test.each(["SSH-2.0-x\r\n", "220 smtp\r\n", ""])("%o", async (banner) => {
    const other = createServer((socket) => {
      socket.on("error", () => undefined).write(banner);
      socket.on("data", () => socket.end("HTTP/1.1 400 Bad Request\r\n\r\n"));
    });
    await new Promise<void>((done) => other.listen(0, "127.0.0.1", done));
    const target = `127.0.0.1:${(other.address() as AddressInfo).port}`;
    for (const way of WAYS) {
      await using connection = new Connection({ target, exchange: way === "exchange" });
      await expect(connection.client(ThreadService).searchThreads({ ownerId: "a" })).rejects.toThrow(Unreachable);
    }
    await new Promise((done) => setTimeout(done, 50));
    other.close();
  });
});

test.each(WAYS)("an error shows who called: %s", async (way) => {
  await using connection = new Connection({ target: inject("servers").memory.target, exchange: way === "exchange" });
  const whoCalls = async () => {
    await connection.client(ThreadService).getThread({ ownerId: "a", threadId: newId() });
  };
  const failure = await whoCalls().catch((error: Error) => error);
  expect(failure?.stack).toMatch(/whoCalls/);
});

describe("streams", () => {
  test("one that is read when the connection closes says so", async () => {
    const connection = new Connection({ target: inject("servers").memory.target, ownerId: newId() });
    const { ownerId } = connection as { ownerId: string };
    const store = connection.client(StoreService);
    for (let key = 0; key < 20; key += 1) {
      await store.putItem({ ownerId, namespace: ["large"], key: `${key}`, value: `"${"x".repeat(500_000)}"` });
    }
    const read = async () => {
      for await (const _ of connection.client(OwnerService).exportOwner({ ownerId })) {
        await connection.close();
      }
    };
    await expect(read()).rejects.toThrow("the connection is closed");
  });
});

describe("options", () => {
  test.each<[unknown, RegExp]>([
    [{ taget: "localhost:1" }, /a connection has no option "taget"/],
    [{ ownerId: "" }, /ownerId must not be empty/],
    [{ ownerId: 7 }, /ownerId must be a string, not number/],
    [{ readTimeoutMs: 0 }, /readTimeoutMs must be more than 0/],
    [{ writeTimeoutMs: Number.NaN }, /writeTimeoutMs must be more than 0/],
    [{ streams: 0 }, /streams must be 1 or more/],
    [{ token: "two words" }, /the token must be one word/],
    [{ token: "" }, /the token must be one word/],
    [{ target: "storage:50051", token: "t" }, /the token would go to storage:50051 in the clear/],
    [{ tlsCert: "cert.pem" }, /tlsCert and tlsKey go together/],
    [{ tls: false, tlsCa: "ca.pem" }, /tls is false, but there are TLS files/],
    [{ target: 5 }, /target must be a string, not number/],
    [{ token: null }, /token must be a string, not null/],
    [{ exchange: "false" }, /exchange must be a boolean, not string/],
    [{ tlsCa: "package.json" }, /tlsCa: package.json holds no certificate as PEM/],
    [{ tlsCa: "no-such-file.pem" }, /tlsCa: no-such-file.pem can't be read: .*no such file/],
  ])("%o", (options, message) => {
    expect(() => new Connection(options as ConnectionOptions)).toThrow(message);
  });

  test("what they leave out the environment says", () => {
    process.env.AGENTSTORAGE_TARGET = "elsewhere:1";
    process.env.AGENTSTORAGE_OWNER = "alice";
    const connection = new Connection();
    expect([connection.target, connection.ownerId]).toEqual(["elsewhere:1", "alice"]);
    expect(new Connection({ ownerId: "bob" }).ownerId).toBe("bob");
    process.env.AGENTSTORAGE_EXCHANGE = "perhaps";
    expect(() => new Connection()).toThrow("AGENTSTORAGE_EXCHANGE takes true or false");
    delete process.env.AGENTSTORAGE_EXCHANGE;
    process.env.AGENTSTORAGE_TOKEN = "one";
    process.env.AGENTSTORAGE_TOKEN_FILE = "two";
    expect(() => new Connection()).toThrow("AGENTSTORAGE_TOKEN and AGENTSTORAGE_TOKEN_FILE are both set");
    delete process.env.AGENTSTORAGE_TOKEN;
    expect(() => new Connection()).toThrow(/AGENTSTORAGE_TOKEN_FILE: two can't be read/);
  });

  test("a time that no timer takes is a long one", async () => {
    await using connection = new Connection({
      target: inject("servers").memory.target,
      readTimeoutMs: Number.POSITIVE_INFINITY,
      exchange: false,
    });
    const threads = connection.client(ThreadService);
    expect((await threads.searchThreads({ ownerId: newId() })).threads).toEqual([]);
    expect((await threads.searchThreads({ ownerId: newId() }, { timeoutMs: 2 ** 40 })).threads).toEqual([]);
  });

  test("a time that is none is refused before anything is sent", async () => {
    await using connection = new Connection({ target: "127.0.0.1:1" });
    const call = connection.client(ThreadService).getThread({ ownerId: "a", threadId: "t" }, { timeoutMs: 0 });
    await expect(call).rejects.toThrow("timeoutMs must be more than 0");
  });
});

describe("TLS and tokens", () => {
  let serving: Serving;
  let server: Server;
  let directory: string;

  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), "agentstorage-"));
    const run = (...command: string[]) => execFileSync("openssl", command, { cwd: directory, stdio: "pipe" });
    const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    const names = "subjectAltName=DNS:localhost,IP:127.0.0.1";
    const files = ["-keyout", "key.pem", "-out", "cert.pem"];
    run("req", "-x509", ...key, ...files, "-days", "2", "-subj", "/CN=localhost", "-addext", names);
    writeFileSync(
      join(directory, "tokens.toml"),
      '[[token]]\nname = "tests"\ntoken = "good-token-0123456789"\nowners = "all"\n',
    );
    writeFileSync(join(directory, "token"), "good-token-0123456789\n");
    serving = new Serving();
    const environment = {
      STORAGE_TLS_CERT_FILE: join(directory, "cert.pem"),
      STORAGE_TLS_KEY_FILE: join(directory, "key.pem"),
      STORAGE_TOKEN_FILE: join(directory, "tokens.toml"),
    };
    server = await serving.start({ backend: "memory", environment });
  });

  afterAll(async () => {
    await serving.close();
    rmSync(directory, { recursive: true });
  });

  describe.each(WAYS)("%s", (way) => {
    const options = () => ({ target: `localhost:${server.port}`, exchange: way === "exchange" });

    test("with its authority and token", async () => {
      process.env.AGENTSTORAGE_TOKEN_FILE = join(directory, "token");
      process.env.AGENTSTORAGE_TLS_CA = join(directory, "cert.pem");
      await using connection = new Connection(options());
      expect((await connection.client(ThreadService).searchThreads({ ownerId: "a" })).threads).toEqual([]);
      expect((await connection.client(ServerService).getServerInfo({})).backend).toBe("memory");
    });

    test("through a Unix socket", async () => {
      const path = join(directory, `${way}.sock`);
      const relay = createServer((socket) => {
        const other = connectTcp(server.port, "127.0.0.1");
        socket
          .on("error", () => undefined)
          .pipe(other.on("error", () => undefined))
          .pipe(socket);
      });
      await new Promise<void>((done) => relay.listen(path, done));
      const connection = new Connection({
        target: `unix:${path}`,
        exchange: way === "exchange",
        token: "good-token-0123456789",
        tlsCa: join(directory, "cert.pem"),
      });
      expect((await connection.client(ThreadService).searchThreads({ ownerId: "a" })).threads).toEqual([]);
      await connection.close();
      await new Promise((done) => relay.close(done));
    });

    test("by an address, without a warning", async () => {
      const warnings: Error[] = [];
      const note = (warning: Error) => warnings.push(warning);
      process.on("warning", note);
      const target = `127.0.0.1:${server.port}`;
      const more = { token: "good-token-0123456789", tlsCa: join(directory, "cert.pem") };
      await using connection = new Connection({ ...options(), target, ...more });
      expect((await connection.client(ThreadService).searchThreads({ ownerId: "a" })).threads).toEqual([]);
      await new Promise((done) => setImmediate(done));
      process.off("warning", note);
      expect(warnings).toEqual([]);
    });

    test("a wrong token", async () => {
      const token = "bad-token-0123456789";
      await using connection = new Connection({ ...options(), token, tlsCa: join(directory, "cert.pem") });
      await expect(connection.client(ThreadService).searchThreads({ ownerId: "a" })).rejects.toThrow(Unauthenticated);
    });

    test.each([{ tls: true }, {}])("an authority that is not trusted, and no TLS: %o", async (more) => {
      await using connection = new Connection({ ...options(), ...more, token: "good-token-0123456789" });
      const failed = connection.client(ThreadService).searchThreads({ ownerId: "a" });
      await expect(failed).rejects.toThrow(Unreachable);
      await expect(failed).rejects.toThrow(/both sides use TLS or neither/);
    });
  });
});
