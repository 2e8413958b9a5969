/** Chooses the adapter. */
import { type Runtime, runtime } from "../kernel/runtime.ts";
import type { Adapter } from "./net.ts";

/** The adapter of this runtime, or another that it supports (Deno and Bun can load `node`). */
export async function loadAdapter(name: Runtime = runtime): Promise<Adapter> {
  switch (name) {
    case "deno":
      return (await import("./deno.ts")).adapter;
    case "bun":
      return (await import("./bun.ts")).adapter;
    case "node":
      return (await import("./node.ts")).adapter;
  }
}
