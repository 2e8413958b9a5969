/** Queue lengths from /proc/net/tcp, where FFI is not available. A lookup takes milliseconds. */
import { readFileSync } from "node:fs";
import { type Address, addressBytes } from "./address.ts";
import type { ConnectionState, SocketState } from "./socket_state.ts";

/**
 * An address in the format of /proc/net/tcp (family 4) or tcp6: 32-bit words in host byte order
 * (little-endian), in hex. Undefined where that file cannot contain it.
 */
function procAddress({ host, port }: Address, family: 4 | 6): string | undefined {
  const address = addressBytes(host);
  if (address === undefined) return undefined;
  let bytes = address.bytes;
  if (address.family === 2) {
    bytes = family === 4
      ? bytes.subarray(0, 4)
      : Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, ...bytes.subarray(0, 4));
  } else if (family === 4) {
    return undefined;
  }
  let text = "";
  for (let word = 0; word < bytes.length; word += 4) {
    for (let i = 3; i >= 0; i--) text += bytes[word + i]!.toString(16).padStart(2, "0");
  }
  return `${text}:${port.toString(16).padStart(4, "0")}`.toUpperCase();
}

/** Both ends; `far` is undefined when the peer's socket is not in this network namespace. */
export function lookupProc(local: Address, remote: Address): ConnectionState {
  const result: ConnectionState = { near: undefined, far: undefined };
  for (const family of [4, 6] as const) {
    const near = procAddress(local, family);
    const far = procAddress(remote, family);
    if (near === undefined || far === undefined) continue;
    let table: string;
    try {
      table = readFileSync(family === 4 ? "/proc/net/tcp" : "/proc/net/tcp6", "latin1");
    } catch {
      continue;
    }
    const find = (from: string, to: string): SocketState | undefined => {
      const at = table.indexOf(`${from} ${to} `);
      if (at < 0) return undefined;
      // State, queues, timer and when it ends, retransmits, uid, timeout, inode.
      const fields = /^ \w\w (\w{8}):(\w{8}) \w\w:\w{8} \w{8} +\d+ +\d+ (\d+)/.exec(
        table.slice(at + from.length + to.length + 1, at + from.length + to.length + 100),
      );
      if (fields === null) return undefined;
      return {
        sendQueue: parseInt(fields[1]!, 16),
        receiveQueue: parseInt(fields[2]!, 16),
        inode: Number(fields[3]),
      };
    };
    result.near ??= find(near, far);
    result.far ??= find(far, near);
  }
  return result;
}
