/** How many descriptors this process may have. */
import { readFileSync } from "node:fs";
import { libc } from "./libc.ts";

const RLIMIT_NOFILE = 7;

/**
 * The soft limit of open descriptors (`ulimit -n`). No descriptor has this number or a higher one, and a
 * new one has the lowest that is free. Undefined where it cannot be read: Deno without FFI, or no Linux.
 */
export function descriptorLimit(): number | undefined {
  if (typeof libc !== "string") {
    const limits = new Uint8Array(16);
    if (libc.getrlimit(RLIMIT_NOFILE, limits) !== 0) return undefined;
    return Number(new DataView(limits.buffer).getBigUint64(0, true));
  }
  try {
    const limits = readFileSync("/proc/self/limits", "latin1");
    const [, soft] = /^Max open files +(\d+)/m.exec(limits) ?? [];
    return soft === undefined ? undefined : Number(soft);
  } catch {
    return undefined;
  }
}
