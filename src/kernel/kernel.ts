/**
 * Room: what the Linux kernel reports about TCP connections and this machine, and the few socket
 * calls that no runtime offers.
 * In: the two addresses of a connection, or a descriptor of this process.
 * Out: queue lengths and TCP_INFO of both ends (sock_diag: some µs; /proc/net/tcp: milliseconds).
 */
import { readFileSync } from "node:fs";
import type { Address } from "./address.ts";
import { lookupProc } from "./proc_net.ts";
import { encodeRequest, type EndRequest, openSockDiag, type ReadBytes } from "./sock_diag.ts";
import { unackedBytes, waitingBytes } from "./socket_calls.ts";
import type { ConnectionState, SocketState } from "./socket_state.ts";
import { openTcpInfo } from "./tcp_info.ts";

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

/** Throws an Error of one line where the kernel gives no figures of connections at all. */
export function requireKernelFigures(): void {
  if (kernelSource !== "none") return;
  throw new Error(
    `cannot measure a reader here: ${kernelSourceReason ?? "no kernel figures"}, and there is no ` +
      `/proc/net/tcp either`,
  );
}

const NO_DESCRIPTOR = () => undefined;

/**
 * Looks up one connection again and again. Its addresses are encoded once, and our end is asked through
 * its descriptor where there is one, which costs a third of a look-up by address.
 */
export class ConnectionLookup {
  readonly #local: Address;
  readonly #remote: Address;
  readonly #fd: () => number | undefined;
  #nearRequest: EndRequest | undefined;
  readonly #farRequest: EndRequest | undefined;
  /** `bytesReceived` of our end when its receive queue was last seen empty. */
  #emptyAt = 0;

  /** `fd`: the descriptor of our end, undefined once it is closed. Default: it is not known. */
  constructor(local: Address, remote: Address, fd: () => number | undefined = NO_DESCRIPTOR) {
    this.#local = local;
    this.#remote = remote;
    this.#fd = fd;
    this.#farRequest = encodeRequest(remote, local);
  }

  /** The present state of both ends. Takes 4 to 7 µs, or milliseconds through /proc. */
  state(): ConnectionState {
    if (typeof sockDiag !== "string") {
      return { near: this.#near(), far: sockDiag.lookup(this.#farRequest) };
    }
    if (kernelSource === "proc") return lookupProc(this.#local, this.#remote);
    return { near: undefined, far: undefined };
  }

  /**
   * Bytes that the program at the far end has read since the connection began, and its receive queue.
   * Takes some 3 µs; the object is the same one each time. Undefined where only `state` can tell: that
   * end is on another host, or there is no sock_diag.
   */
  readByFar(): Readonly<ReadBytes> | undefined {
    return typeof sockDiag === "string" ? undefined : sockDiag.readBytes(this.#farRequest);
  }

  #near(): SocketState | undefined {
    const fd = this.#fd();
    const info = fd === undefined ? undefined : openTcpInfo(fd);
    if (fd === undefined || info === undefined) {
      this.#nearRequest ??= encodeRequest(this.#local, this.#remote);
      return typeof sockDiag === "string" ? undefined : sockDiag.lookup(this.#nearRequest);
    }
    // Two system calls that are needed only if there can be something in the queue.
    const received = info.bytesReceived > this.#emptyAt ? waitingBytes(fd) : 0;
    if (received === 0) this.#emptyAt = info.bytesReceived;
    const sends = info.unackedSegments > 0 || info.notSent > 0;
    return { receiveQueue: received, sendQueue: sends ? unackedBytes(fd) : 0, info };
  }
}

/** The present state of both ends of a connection. Takes some 10 µs, or milliseconds through /proc. */
export function connectionState(local: Address, remote: Address): ConnectionState {
  return new ConnectionLookup(local, remote).state();
}
