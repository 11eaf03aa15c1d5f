/** How what a scenario expects is compared with what came, and how that is made the same from run to run. */

import { createHash } from "node:crypto";

/** A value of JSON. */
export type Json = string | number | boolean | null | Json[] | Row;
export interface Row {
  [key: string]: Json;
}

const TIME = /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z/;
const MADE = new RegExp(`\\b[0-9a-f]{32}\\b|\\b${TIME.source}`, "g");
const LONGEST_TEXT = 300;
const LONGEST_LIST = 20;

/** Makes what differs from run to run the same: ids and times become numbers in the order in which they appear. */
export class Normal {
  private readonly known = new Map<string, string>();
  private readonly counts = new Map<string, number>();

  constructor(
    private readonly run: string,
    private readonly source: string,
    private readonly target: string,
  ) {}

  of(value: Json, hide: string[] = []): Json {
    if (Array.isArray(value)) {
      const items = value.map((item) => this.of(item, hide));
      return items.length <= LONGEST_LIST ? items : [items[0]!, `<${items.length - 2} more>`, items[items.length - 1]!];
    }
    if (typeof value === "object" && value !== null) {
      // In the order of the keys' code points, so that the numbers are given out alike in every language.
      const keys = Object.keys(value).filter((key) => !hide.includes(key));
      return Object.fromEntries(keys.sort().map((key) => [key, this.field(key, value[key]!, hide)]));
    }
    if (typeof value !== "string") {
      return value;
    }
    const text = value
      .replaceAll(this.run, "RUN")
      .replaceAll(this.target, "<target>")
      .replace(MADE, (made) => this.made(made));
    const bytes = Buffer.from(text);
    const digest = () => createHash("sha256").update(bytes).digest("hex").slice(0, 16);
    return bytes.length <= LONGEST_TEXT ? text : `<${bytes.length} bytes, SHA-256 ${digest()}>`;
  }

  private field(key: string, value: Json, hide: string[]): Json {
    if (key === "sequence") {
      return this.number("sequence", String(value));
    }
    if (key === "run_after" && TIME.test(String(value)) && !this.source.includes(String(value))) {
      // One backend has the time of the call there, the other that of the moment.
      return this.number("due", String(value));
    }
    return key === "next_page_token" ? "<token>" : this.of(value, hide);
  }

  private made(text: string): string {
    // A time that the scenario itself names is no time of this run.
    return this.source.includes(text) ? text : this.number(text.endsWith("Z") ? "time" : "id", text);
  }

  private number(kind: string, text: string): string {
    const key = `${kind} ${text}`;
    let name = this.known.get(key);
    if (name === undefined) {
      const count = (this.counts.get(kind) ?? 0) + 1;
      this.counts.set(kind, count);
      name = `<${kind} ${count}>`;
      this.known.set(key, name);
    }
    return name;
  }
}

/** The value at a path such as `threads.0.thread_id`. Throws where there is none. */
export function at(value: Json, path: string): Json {
  let found: Json | undefined = value;
  for (const name of path.split(".")) {
    found = (found as Row)[name];
    if (found === undefined) {
      throw new Error(`nothing at ${path}: ${JSON.stringify(value)}`);
    }
  }
  return found;
}

/** Whether a check throws nothing. */
export function fits(check: () => void): boolean {
  try {
    check();
    return true;
  } catch {
    return false;
  }
}

/** Throws unless every field that is wanted is found; lists must have as many items. */
export function mismatch(found: Json | undefined, wanted: Json, path: string): void {
  const fail = () => new Error(`${path}: ${JSON.stringify(found)}, not ${JSON.stringify(wanted)}`);
  if (found === undefined) {
    throw new Error(`${path} is absent`);
  }
  if (wanted === "$any") {
    return;
  }
  if (Array.isArray(wanted)) {
    if (!Array.isArray(found) || found.length !== wanted.length) {
      throw fail();
    }
    wanted.forEach((item, place) => {
      mismatch(found[place], item, `${path}[${place}]`);
    });
  } else if (typeof wanted !== "object" || wanted === null) {
    if (found !== wanted) {
      throw fail();
    }
  } else if (typeof wanted.$match === "string" || typeof wanted.$after === "string") {
    if (typeof found !== "string") {
      throw fail();
    }
    const isRight =
      typeof wanted.$match === "string"
        ? new RegExp(wanted.$match).test(found)
        : sortable(found) > sortable(wanted.$after as string);
    if (!isRight) {
      throw fail();
    }
  } else {
    if (typeof found !== "object" || found === null || Array.isArray(found)) {
      throw fail();
    }
    for (const [key, item] of Object.entries(wanted)) {
      if (item !== "$absent") {
        mismatch(found[key], item, `${path}.${key}`);
      } else if (key in found) {
        throw new Error(`${path}.${key}: ${JSON.stringify(found[key])}`);
      }
    }
  }
}

/** A time as a text that sorts as it does. */
function sortable(time: string): string {
  const [whole = "", fraction = ""] = time.replace("Z", "").split(".");
  return whole + fraction.padEnd(9, "0");
}
