/** How a process on Node ends. */
import process from "node:process";
import { runtime } from "./runtime.ts";

/**
 * From now on `process.exit` ends a process on Node by _exit(2), once its `exit` listeners have run. Node
 * itself first waits for the threads of its compiler, and those may wait for the main thread: rarely, and on a
 * busy machine, the process never ends (seen in 26.10, nodejs/node#54918). Does nothing without libc.
 */
export async function exitWithoutWaiting(): Promise<void> {
  if (runtime !== "node") return;
  // Only here: commands that need no libc begin sooner without it.
  const { libc } = await import("./libc.ts");
  if (typeof libc === "string") return;
  const { _exit } = libc;
  // Bun has no such function.
  const { flushCompileCache } = await import("node:module");
  const reallyExit = (status?: number) => {
    // Node would save it later, where NODE_COMPILE_CACHE asks for one.
    flushCompileCache();
    _exit(status ?? 0);
  };
  // `process.exit` calls it last, as a property.
  Object.assign(process, { reallyExit });
}
