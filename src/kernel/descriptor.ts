/** The descriptor of a connection, for a runtime that does not tell it. */
import { type Address, addressBytes } from "./address.ts";
import { libc } from "./libc.ts";

const SOL_SOCKET = 1;
const SO_TYPE = 3;

const lengthBuffer = new Uint8Array(4);
const lengthView = new DataView(lengthBuffer.buffer);

/** Descriptors are handed out from below, so that a process has its sockets among the first ones. */
const MOST_DESCRIPTORS = 65_536;
const ENDS_IN_A_ROW = 256;

/**
 * The descriptor of a connection of this process, by its addresses: for a runtime that does not tell.
 * 0.1 ms. Undefined without libc, or when it is not found.
 */
export function findDescriptor(local: Address, remote: Address): number | undefined {
  const c = libc;
  if (typeof c === "string") return undefined;
  const address = new Uint8Array(28);
  const view = new DataView(address.buffer);
  const matches = (call: "getsockname" | "getpeername", fd: number, { host, port }: Address) => {
    lengthView.setUint32(0, address.length, true);
    if (c[call](fd, address, lengthBuffer) !== 0) return false;
    const wanted = addressBytes(host);
    if (wanted === undefined || view.getUint16(2) !== port) return false;
    const at = wanted.family === 2 ? (view.getUint16(0, true) === 2 ? 4 : 20) : 8;
    const length = wanted.family === 2 ? 4 : 16;
    return wanted.bytes.subarray(0, length).every((byte, i) => byte === address[at + i]);
  };
  const type = new Uint8Array(4);
  for (let fd = 0, free = 0; fd < MOST_DESCRIPTORS && free < ENDS_IN_A_ROW; fd++) {
    lengthView.setUint32(0, 4, true);
    if (c.getsockopt(fd, SOL_SOCKET, SO_TYPE, type, lengthBuffer) !== 0) {
      free++;
      continue;
    }
    free = 0;
    if (matches("getpeername", fd, remote) && matches("getsockname", fd, local)) return fd;
  }
  return undefined;
}
