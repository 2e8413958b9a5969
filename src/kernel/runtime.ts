/** The runtime that this program runs on. Only kernel/ and net/ may ask. */
export type Runtime = "deno" | "bun" | "node";

/** By its global object: all three have a `process`. */
export const runtime: Runtime = "Deno" in globalThis
  ? "deno"
  : "Bun" in globalThis
  ? "bun"
  : "node";
