/** Finds the file descriptor of a connection where the runtime does not expose it. */
import { type Address, addressBytes } from "./address.ts";
import { libc } from "./libc.ts";

/** `struct sockaddr_in6`, the longer one. */
const SOCKADDR_LENGTH = 28;
const AF_INET = 2;

// The kernel gives a new descriptor the lowest free number, so the search can stop early.
const MAX_DESCRIPTORS = 65_536;
/** The search stops after this many descriptors in a row that are not connections. */
const MAX_GAP = 256;
/** While connections are opened one after the other, the next one has one of the next numbers. */
const NEXT = 8;

const name = new Uint8Array(SOCKADDR_LENGTH);
const nameView = new DataView(name.buffer);
const length = new Uint8Array(4);
const lengthView = new DataView(length.buffer);

/** The descriptor that was found last. */
let found = 0;

/**
 * The descriptor of this process's connection with these addresses. Takes some µs right after it was
 * opened; later up to 0.4 µs for each descriptor of the process, which are tried one after the other.
 * Undefined without libc, or when there is no such connection.
 */
export function findDescriptor(local: Address, remote: Address): number | undefined {
  const c = libc;
  if (typeof c === "string") return undefined;
  const ours = addressBytes(local.host);
  const theirs = addressBytes(remote.host);
  if (ours === undefined || theirs === undefined) return undefined;
  const matches = ({ family, bytes }: NonNullable<typeof ours>, port: number): boolean => {
    if (nameView.getUint16(2) !== port) return false;
    // An IPv4 address may stand in the end of an IPv6 one.
    const at = family === AF_INET ? (nameView.getUint16(0, true) === AF_INET ? 4 : 20) : 8;
    const size = family === AF_INET ? 4 : 16;
    for (let i = 0; i < size; i++) if (bytes[i] !== name[at + i]) return false;
    return true;
  };
  let connected = false;
  const isIt = (fd: number): boolean => {
    lengthView.setUint32(0, SOCKADDR_LENGTH, true);
    connected = c.getpeername(fd, name, length) === 0;
    if (!connected || !matches(theirs, remote.port)) return false;
    lengthView.setUint32(0, SOCKADDR_LENGTH, true);
    return c.getsockname(fd, name, length) === 0 && matches(ours, local.port);
  };
  for (let fd = found + 1; fd <= found + NEXT; fd++) if (isIt(fd)) return found = fd;
  for (let fd = 0, gap = 0; fd < MAX_DESCRIPTORS && gap < MAX_GAP; fd++) {
    if (isIt(fd)) return found = fd;
    gap = connected ? 0 : gap + 1;
  }
  return undefined;
}
