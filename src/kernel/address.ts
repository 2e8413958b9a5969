/** An address with a port, and its binary form. */

/** One end of a connection. `host` is a numeric address, IPv4 or IPv6 without brackets. */
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
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(host);
  const dotted = (mapped?.[1] ?? host).split(".");
  const bytes = new Uint8Array(16);
  if (dotted.length === 4) {
    bytes.set(dotted.map(Number));
    return { family: 2, bytes };
  }
  if (!host.includes(":")) return undefined;
  const [head = "", tail] = host.replace(/%.*$/, "").split("::");
  const groups = (part: string) => part === "" ? [] : part.split(":").map((g) => parseInt(g, 16));
  const left = groups(head);
  const right = tail === undefined ? [] : groups(tail);
  const view = new DataView(bytes.buffer);
  left.forEach((group, i) => view.setUint16(i * 2, group));
  right.forEach((group, i) => view.setUint16(16 - (right.length - i) * 2, group));
  return { family: 10, bytes };
}
