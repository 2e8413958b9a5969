/** The runtime that this program runs on. Only kernel/ and net/ may depend on it. */
export type Runtime = "deno" | "bun" | "node";

/** Detected by the global object of each; `process` would not do, because all three have it. */
export const runtime: Runtime = "Deno" in globalThis
  ? "deno"
  : "Bun" in globalThis
  ? "bun"
  : "node";
