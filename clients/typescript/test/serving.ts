/** Servers for the tests: the real command on memory and on Postgres, started and ended by `tests/clients/serving.py`. */

import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { createInterface, type Interface } from "node:readline";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../../", import.meta.url));

/** A server that runs. */
export interface Server {
  id: number;
  target: string;
  port: number;
  /** The connection string of its database; `""` on memory. */
  database_url: string;
}

/** What to start. */
export interface Wanted {
  backend: "memory" | "postgres";
  /** The name of a database, by default a new one. */
  database?: string;
  port?: number;
  environment?: Record<string, string>;
  arguments?: string[];
}

/** Starts and ends servers. Close it, and with it all of them. */
export class Serving implements AsyncDisposable {
  private readonly process: ChildProcessWithoutNullStreams;
  private readonly lines: Interface;
  private readonly waiting: ((line: string) => void)[] = [];

  constructor() {
    this.process = spawn(`${ROOT}.venv/bin/python`, ["-m", "tests.clients.serving"], { cwd: ROOT });
    this.process.stderr.pipe(process.stderr);
    this.lines = createInterface(this.process.stdout);
    this.lines.on("line", (line) => this.waiting.shift()?.(line));
    this.process.once("exit", () => {
      for (const tell of this.waiting.splice(0)) {
        tell('{"error": "the process with the servers has ended"}');
      }
    });
  }

  private async ask<T>(command: string, parameters: object): Promise<T> {
    const answer = new Promise<string>((done) => this.waiting.push(done));
    this.process.stdin.write(`${command} ${JSON.stringify(parameters)}\n`);
    const result = JSON.parse(await answer);
    if (result.error) {
      throw new Error(`${command}: ${result.error}`);
    }
    return result as T;
  }

  start(wanted: Wanted): Promise<Server> {
    return this.ask("start", wanted);
  }

  database(): Promise<{ name: string; url: string }> {
    return this.ask("database", {});
  }

  stop({ id }: Server): Promise<unknown> {
    return this.ask("stop", { id });
  }

  kill({ id }: Server): Promise<unknown> {
    return this.ask("kill", { id });
  }

  freeze({ id }: Server): Promise<unknown> {
    return this.ask("freeze", { id });
  }

  thaw({ id }: Server): Promise<unknown> {
    return this.ask("thaw", { id });
  }

  async close(): Promise<void> {
    const ended = new Promise((done) => this.process.once("exit", done));
    this.process.stdin.end();
    await ended;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
