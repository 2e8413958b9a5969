/** Finds the file descriptor of a connection where the runtime does not expose it. */
import { type Address, addressBytes } from "./address.ts";
import { libc } from "./libc.ts";

const SOL_SOCKET = 1;
const SO_TYPE = 3;

const lengthBuffer = new Uint8Array(4);
const lengthView = new DataView(lengthBuffer.buffer);

// The kernel gives a new descriptor the lowest free number, so the search can stop early.
const MAX_DESCRIPTORS = 65_536;
/** The search stops after this many descriptors in a row that are not sockets. */
const MAX_GAP = 256;

/**
 * The descriptor of this process's connection with these addresses. Takes 0.1 ms: it tries one
 * descriptor after the other. Undefined without libc, or when there is no such connection.
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
  for (let fd = 0, gap = 0; fd < MAX_DESCRIPTORS && gap < MAX_GAP; fd++) {
    lengthView.setUint32(0, 4, true);
    if (c.getsockopt(fd, SOL_SOCKET, SO_TYPE, type, lengthBuffer) !== 0) {
      gap++;
      continue;
    }
    gap = 0;
    if (matches("getpeername", fd, remote) && matches("getsockname", fd, local)) return fd;
  }
  return undefined;
}
