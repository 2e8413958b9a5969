/** Datagrams to unix sockets, which no runtime can send (Deno only with an unstable flag). */
import { libc } from "./libc.ts";

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0x80000;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
/** Of `sun_path` in `struct sockaddr_un` (unix(7)). */
const MOST_PATH = 108;

/**
 * Sends one datagram to the socket at `path`; one that begins with `@` is in the abstract namespace.
 * Does not wait. Returns whether the kernel took it: not where nobody has bound the socket, where its
 * queue is full, where the path is too long, and without libc.
 */
export function sendDatagram(path: string, text: string): boolean {
  const address = encodeAddress(path);
  if (typeof libc === "string" || address === undefined) return false;
  const fd = libc.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  try {
    if (libc.connect(fd, address, address.length) !== 0) return false;
    const bytes = new TextEncoder().encode(text);
    return libc.send(fd, bytes, bytes.length, MSG_DONTWAIT | MSG_NOSIGNAL) === bytes.length;
  } finally {
    libc.close(fd);
  }
}

/** A `struct sockaddr_un` of its exact length: in the abstract namespace every byte counts. */
function encodeAddress(path: string): Uint8Array | undefined {
  const name = new TextEncoder().encode(path);
  const abstract = path.startsWith("@");
  const length = name.length + (abstract ? 0 : 1);
  if (name.length === 0 || length > MOST_PATH) return undefined;
  const address = new Uint8Array(2 + length);
  new DataView(address.buffer).setUint16(0, AF_UNIX, true);
  address.set(name, 2);
  if (abstract) address[2] = 0;
  return address;
}
