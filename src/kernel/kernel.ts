/**
 * Room: what the Linux kernel tells of TCP connections and of this machine, and the few socket
 * calls that no runtime offers.
 * In: the two addresses of a connection, or a descriptor of this process.
 * Out: queues and TCP_INFO of both ends (sock_diag: 6 µs; /proc/net/tcp: milliseconds).
 */
import { readFileSync } from "node:fs";
import type { Address } from "./address.ts";
import { libc } from "./libc.ts";
import { lookupProc } from "./proc_net.ts";
import { openSockDiag } from "./sock_diag.ts";
import type { ConnectionState } from "./socket_state.ts";

/** How a figure was had: `sock_diag` (netlink), `proc` (/proc/net/tcp), or `none`. */
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

/** Where this process gets its kernel figures from. */
export const kernelSource: KernelSource = detectSource();

/** Why there is no better source than `kernelSource`; undefined where there is nothing better. */
export const kernelSourceReason: string | undefined = typeof libc === "string" ? libc : undefined;

/** Both ends of a connection, as the kernel sees them now. Costs 6 µs, or milliseconds through /proc. */
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
