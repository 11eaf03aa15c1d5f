/** What of a store's values is embedded, and with what; and how long its items live. */

import type { EmbeddingsInterface } from "@langchain/core/embeddings";
import type { Operation, PutOperation } from "@langchain/langgraph-checkpoint";
import { VectorDistance } from "../gen/agentstorage/v1/store_pb.js";
import { pathSteps, textsAt } from "./text_paths.js";

/** Vectors by the texts that they are the embeddings of. */
export type Vectors = ReadonlyMap<string, readonly number[]>;

const DISTANCES = {
  cosine: VectorDistance.COSINE,
  l2: VectorDistance.L2,
  inner_product: VectorDistance.INNER_PRODUCT,
} as const;

/** How values are embedded: LangGraph's `IndexConfig`, with a distance. */
export interface StoreIndexConfig {
  /** How many numbers a vector has, for a check. */
  dims: number;
  /** What makes vectors of texts. */
  embeddings: EmbeddingsInterface;
  /** Paths of what is embedded, such as `"title"` or `"chapters[*].content"`. Default: `["$"]`, the whole value as JSON. */
  fields?: string[] | undefined;
  /** How close two vectors are. Default: `"cosine"`. */
  distanceMetric?: keyof typeof DISTANCES | undefined;
}

/** How long items live. Times are minutes. */
export interface StoreTtlConfig {
  /** The time of items that are put without one. Default: none, they stay. */
  defaultTtl?: number | undefined;
  /** Whether an item's time begins anew when it is read. Default: yes. */
  refreshOnRead?: boolean | undefined;
  /** Not heeded: the service sweeps by itself, and an item whose time is over is never given, swept or not. */
  sweepIntervalMinutes?: number | undefined;
}

const INDEX_KEYS = ["dims", "embeddings", "fields", "distanceMetric"] satisfies (keyof StoreIndexConfig)[];
const TTL_KEYS = ["defaultTtl", "refreshOnRead", "sweepIntervalMinutes"] satisfies (keyof StoreTtlConfig)[];

interface Path {
  path: string;
  steps: string[];
}

/** What of values is embedded. The constructor throws TypeError for a config that is none. */
export class StoreIndex {
  /** How close two vectors are. */
  readonly distance: VectorDistance;
  private readonly dims: number;
  private readonly embeddings: EmbeddingsInterface;
  private readonly paths: Path[];

  constructor(config: StoreIndexConfig) {
    checkKeys(config, INDEX_KEYS, "index");
    const { dims, embeddings, fields = ["$"], distanceMetric = "cosine" } = config;
    if (!Object.hasOwn(DISTANCES, distanceMetric)) {
      throw new TypeError(
        `distanceMetric must be one of ${Object.keys(DISTANCES).join(", ")}, not "${distanceMetric}"`,
      );
    }
    if (!Number.isInteger(dims)) {
      throw new TypeError("the index's dims must be an integer");
    }
    if (typeof embeddings?.embedDocuments !== "function" || typeof embeddings.embedQuery !== "function") {
      throw new TypeError("the index's embeddings must have embedDocuments and embedQuery");
    }
    this.distance = DISTANCES[distanceMetric];
    this.dims = dims;
    this.embeddings = embeddings;
    this.paths = fields.map(pathOf);
  }

  /** Give the texts of a put that are embedded, each with its field. */
  texts(put: PutOperation): { field: string; text: string }[] {
    const { value, index } = put;
    if (value === null || index === false) {
      return [];
    }
    return (index?.map(pathOf) ?? this.paths).flatMap(({ path, steps }) => {
      const texts = textsAt(value, steps);
      return texts.map((text, number) => ({ field: texts.length === 1 ? path : `${path}.${number}`, text }));
    });
  }

  /** Embed the texts of all puts in one call, and each query. Rejects with TypeError for vectors that are not of the index. */
  async embed(operations: readonly Operation[]): Promise<{ documents: Vectors; queries: Vectors }> {
    const documents = new Set<string>();
    const queries = new Set<string>();
    for (const operation of operations) {
      if ("value" in operation) {
        for (const { text } of this.texts(operation)) {
          documents.add(text);
        }
      } else if ("namespacePrefix" in operation && operation.query) {
        queries.add(operation.query);
      }
    }
    const [ofDocuments, ofQueries] = await Promise.all([
      documents.size > 0 ? this.embeddings.embedDocuments([...documents]) : [],
      Promise.all(Array.from(queries, (query) => this.embeddings.embedQuery(query))),
    ]);
    return { documents: this.checked([...documents], ofDocuments), queries: this.checked([...queries], ofQueries) };
  }

  private checked(texts: string[], vectors: number[][]): Vectors {
    if (vectors.length !== texts.length) {
      throw new TypeError(`the index's embeddings gave ${vectors.length} vectors for ${texts.length} texts`);
    }
    return new Map(
      vectors.map((vector, number) => {
        if (vector.length !== this.dims) {
          throw new TypeError(
            `the index's embeddings gave a vector of ${vector.length} numbers, and its dims are ${this.dims}`,
          );
        }
        return [texts[number] as string, vector];
      }),
    );
  }
}

/** Give how long items live. Throws TypeError for a config that is none. */
export function checkedTtl(config: StoreTtlConfig | undefined): StoreTtlConfig {
  if (config === undefined) {
    return {};
  }
  checkKeys(config, TTL_KEYS, "ttl");
  const { defaultTtl } = config;
  if (defaultTtl !== undefined && typeof defaultTtl !== "number") {
    throw new TypeError(`the ttl's defaultTtl must be a number of minutes, not ${typeof defaultTtl}`);
  }
  return config;
}

function pathOf(path: string): Path {
  return { path, steps: pathSteps(path) };
}

function checkKeys(config: object, known: readonly string[], name: string): void {
  if (typeof config !== "object" || config === null) {
    throw new TypeError(`${name} must be an object`);
  }
  for (const key of Object.keys(config)) {
    if (!known.includes(key)) {
      throw new TypeError(`${name} has the key "${key}"; it may have ${known.join(", ")}`);
    }
  }
}
