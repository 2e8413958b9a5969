/** An address and a port, and how the kernel writes them. */

/** One end of a connection. `host` is a numeric address, IPv4 or IPv6 without brackets. */
export interface Address {
  host: string;
  port: number;
}

/** `a.b.c.d` or IPv6 as 16 bytes (IPv4 in the first four), and its family; undefined for a name. */
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
