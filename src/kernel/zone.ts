/**
 * The zone of a link-local IPv6 address (RFC 4007): the network interface on which it is meant. It is
 * a part of the address: without it, nobody can connect to `fe80::1`, and the kernel finds no socket.
 */
import type { Address } from "./address.ts";
import { libc } from "./libc.ts";

/** `struct sockaddr_in6`, and where in it sin6_scope_id is. */
const SOCKADDR_IN6 = 28;
const SCOPE_ID = 24;
const IF_NAMESIZE = 16;

/** fe80::/10 */
export const isLinkLocal = (host: string): boolean => /^fe[89ab][0-9a-f]:/i.test(host);

/** The number of the interface that a link-local address names: 0 where it names none. */
export function zoneIndex(host: string): number {
  const [, zone] = host.split("%");
  if (zone === undefined || !isLinkLocal(host)) return 0;
  if (/^\d+$/.test(zone)) return Number(zone);
  if (typeof libc === "string") return 0;
  return libc.if_nametoindex(new TextEncoder().encode(`${zone}\0`));
}

/**
 * The address of one end of a connection with its zone, `fe80::1%eth0`, where the runtime leaves that
 * out, as Deno 2.9 and Bun 1.4 do. `descriptor`: that of the connection; asked only for such an
 * address. Both ends are on the same interface.
 */
export function withZone(address: Address, descriptor: () => number | undefined): Address {
  if (typeof libc === "string" || !isLinkLocal(address.host) || address.host.includes("%")) {
    return address;
  }
  const fd = descriptor();
  if (fd === undefined) return address;
  const name = new Uint8Array(SOCKADDR_IN6);
  const length = new Uint8Array(4);
  new DataView(length.buffer).setUint32(0, SOCKADDR_IN6, true);
  if (libc.getsockname(fd, name, length) !== 0) return address;
  const index = new DataView(name.buffer).getUint32(SCOPE_ID, true);
  return index === 0 ? address : { ...address, host: `${address.host}%${interfaceName(index)}` };
}

/** The address on which a listener was asked to listen, where its runtime leaves out the zone. */
export function withGivenZone(address: Address, given: string): Address {
  const [, zone] = given.split("%");
  if (zone === undefined || !isLinkLocal(address.host) || address.host.includes("%")) {
    return address;
  }
  return { ...address, host: `${address.host}%${zone}` };
}

function interfaceName(index: number): string {
  const name = new Uint8Array(IF_NAMESIZE);
  if (typeof libc !== "string") libc.if_indextoname(index, name);
  const text = new TextDecoder("latin1").decode(name);
  const end = text.indexOf("\0");
  return end > 0 ? text.slice(0, end) : String(index);
}
