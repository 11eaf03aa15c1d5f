/** LangGraph.js on the storage service: a checkpointer for `compile({ checkpointer })` and a store for `compile({ store })`. */

export { ExactDate, NotPortable, type PortableKind, PortableSerializer, PortableValue } from "./portable.js";
export { GrpcSaver, type GrpcSaverOptions } from "./saver.js";
export { GrpcStore, type GrpcStoreOptions } from "./store.js";
export type { StoreIndexConfig, StoreTtlConfig } from "./store_index.js";
export { UnreadableValue } from "./values.js";
