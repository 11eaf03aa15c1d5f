/** An embedding for tests: texts that share words are near each other. */

import { Embeddings } from "@langchain/core/embeddings";
import type { BaseStore } from "@langchain/langgraph-checkpoint";

export const DIMS = 64;

/** The words of a text, counted. */
export function vector(text: string): number[] {
  const counts = Array<number>(DIMS).fill(0);
  for (const word of text
    .toLowerCase()
    .replace(/[":{},]/g, " ")
    .split(/\s+/)) {
    if (word !== "") {
      const place = [...word].reduce((sum, letter) => (sum * 31 + (letter.codePointAt(0) ?? 0)) % 1_000_003, 7) % DIMS;
      counts[place] = (counts[place] ?? 0) + 1;
    }
  }
  return counts;
}

/** Notes what is embedded, and whether as a document or as a query. */
export class Recorder extends Embeddings {
  readonly calls: [string, ...string[]][] = [];

  constructor(private readonly embed: (text: string) => number[] = vector) {
    super({});
  }

  async embedDocuments(texts: string[]): Promise<number[][]> {
    this.calls.push(["documents", ...texts]);
    return texts.map(this.embed);
  }

  async embedQuery(text: string): Promise<number[]> {
    this.calls.push(["query", text]);
    return this.embed(text);
  }
}

/** The keys of a search, in its order. */
export async function keys(
  store: BaseStore,
  prefix: string[],
  options?: Parameters<BaseStore["search"]>[1],
): Promise<string[]> {
  return (await store.search(prefix, options)).map((item) => item.key);
}
