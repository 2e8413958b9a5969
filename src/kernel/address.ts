/** An address with a port, and its binary form. */

/**
 * One end of a connection. `host` is a numeric address, IPv4 or IPv6 without brackets; a link-local
 * one has a zone: `fe80::1%eth0`.
 */
export interface Address {
  host: string;
  port: number;
}

/**
 * A numeric address in network byte order, in 16 bytes of which IPv4 uses the first four, and its
 * address family: 2 (AF_INET) or 10 (AF_INET6). IPv4-mapped IPv6 addresses (`::ffff:a.b.c.d`) are
 * IPv4. Undefined for a host name.
 */
export function addressBytes(host: string): { family: 2 | 10; bytes: Uint8Array } | undefined {
  if (/^\d+\.\d+\.\d+\.\d+$/.test(host)) {
    const bytes = new Uint8Array(16);
    bytes.set(host.split(".").map(Number));
    return { family: 2, bytes };
  }
  if (!host.includes(":")) return undefined;
  const bytes = bytesOfIPv6(host);
  if (!MAPPED.every((byte, i) => bytes[i] === byte)) return { family: 10, bytes };
  bytes.copyWithin(0, MAPPED.length);
  return { family: 2, bytes: bytes.fill(0, 4) };
}

/** Whether an address is of this machine alone; also `localhost`. */
export function isLoopback(host: string): boolean {
  if (host === "localhost") return true;
  const address = addressBytes(host);
  if (address === undefined) return false;
  const { family, bytes } = address;
  if (family === 2) return bytes[0] === 127;
  return bytes.every((byte, i) => byte === (i === 15 ? 1 : 0));
}

/** The first bytes of an IPv6 address that stands for an IPv4 address. */
const MAPPED = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255];

/** Its last two groups may be an IPv4 address. */
function bytesOfIPv6(host: string): Uint8Array {
  const bytes = new Uint8Array(16);
  const [head = "", tail] = host.replace(/%.*$/, "")
    .replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, (_, ...parts: string[]) => {
      const [a, b, c, d] = parts.slice(0, 4).map(Number) as [number, number, number, number];
      return `${(a << 8 | b).toString(16)}:${(c << 8 | d).toString(16)}`;
    }).split("::");
  const groups = (part: string) => part === "" ? [] : part.split(":").map((g) => parseInt(g, 16));
  const left = groups(head);
  const right = tail === undefined ? [] : groups(tail);
  const view = new DataView(bytes.buffer);
  left.forEach((group, i) => view.setUint16(i * 2, group));
  right.forEach((group, i) => view.setUint16(16 - (right.length - i) * 2, group));
  return bytes;
}
