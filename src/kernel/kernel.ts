/**
 * Room: what the Linux kernel reports about TCP connections and this machine, and the few socket
 * calls that no runtime offers.
 * In: the two addresses of a connection, or a descriptor of this process.
 * Out: queue lengths and TCP_INFO of both ends (sock_diag: 6 µs; /proc/net/tcp: milliseconds).
 */
import { readFileSync } from "node:fs";
import type { Address } from "./address.ts";
import { lookupProc } from "./proc_net.ts";
import { openSockDiag } from "./sock_diag.ts";
import type { ConnectionState } from "./socket_state.ts";

/** How connections are looked up: `sock_diag` (netlink), `proc` (/proc/net/tcp), or `none`. */
export type KernelSource = "sock_diag" | "proc" | "none";

const sockDiag = openSockDiag();

function detectSource(): KernelSource {
  if (typeof sockDiag !== "string") return "sock_diag";
  try {
    readFileSync("/proc/net/tcp", "latin1");
    return "proc";
  } catch {
    return "none";
  }
}

/** The fastest source that works in this process: sock_diag only if it was right about a test. */
export const kernelSource: KernelSource = detectSource();

/**
 * Why `kernelSource` is not `sock_diag`: libc cannot be called, or sock_diag is not permitted or has
 * failed its test. Undefined where it is.
 */
export const kernelSourceReason: string | undefined = typeof sockDiag === "string"
  ? sockDiag
  : undefined;

/** The present state of both ends of a connection. Takes 6 µs, or milliseconds through /proc. */
export function connectionState(local: Address, remote: Address): ConnectionState {
  if (typeof sockDiag !== "string") {
    return { near: sockDiag.lookup(local, remote), far: sockDiag.lookup(remote, local) };
  }
  return kernelSource === "proc" ? lookupProc(local, remote) : { near: undefined, far: undefined };
}
