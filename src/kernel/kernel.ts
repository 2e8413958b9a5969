/**
 * Room: what the Linux kernel reports about TCP connections and this machine, and the few socket
 * calls that no runtime offers.
 * In: the two addresses of a connection, or a descriptor of this process.
 * Out: queue lengths and TCP_INFO of both ends (sock_diag: 6 µs; /proc/net/tcp: milliseconds).
 */
import { readFileSync } from "node:fs";
import type { Address } from "./address.ts";
import { libc } from "./libc.ts";
import { lookupProc } from "./proc_net.ts";
import { openSockDiag } from "./sock_diag.ts";
import type { ConnectionState } from "./socket_state.ts";

/** How connections are looked up: `sock_diag` (netlink), `proc` (/proc/net/tcp), or `none`. */
export type KernelSource = "sock_diag" | "proc" | "none";

const sockDiag = openSockDiag();

function detectSource(): KernelSource {
  if (sockDiag !== undefined) return "sock_diag";
  try {
    readFileSync("/proc/net/tcp", "latin1");
    return "proc";
  } catch {
    return "none";
  }
}

/** The fastest source that works in this process. */
export const kernelSource: KernelSource = detectSource();

/** Why `kernelSource` is not `sock_diag`: libc cannot be called. Undefined where it can. */
export const kernelSourceReason: string | undefined = typeof libc === "string" ? libc : undefined;

/** The present state of both ends of a connection. Takes 6 µs, or milliseconds through /proc. */
export function connectionState(local: Address, remote: Address): ConnectionState {
  switch (kernelSource) {
    case "sock_diag":
      return { near: sockDiag!.lookup(local, remote), far: sockDiag!.lookup(remote, local) };
    case "proc":
      return lookupProc(local, remote);
    case "none":
      return { near: undefined, far: undefined };
  }
}
