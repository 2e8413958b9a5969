/** Which peers may connect: addresses, and ranges of them (CIDR). */
import { BlockList, isIP } from "node:net";
import { UnitError } from "../text/units.ts";

const MAPPED = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i;

/** `::ffff:10.0.0.1`, which a listener on `::` sees of an IPv4 peer, is `10.0.0.1`. Without its zone. */
const plain = (host: string): string => host.replace(/%.*$/s, "").replace(MAPPED, "$1");

const familyOf = (host: string) => isIP(host) === 6 ? "ipv6" : "ipv4";

export class AllowList {
  // One for each family: to Node and Bun, `::/0` contains IPv4 addresses as well, to Deno it does not.
  readonly #ranges = { ipv4: new BlockList(), ipv6: new BlockList() };

  /** Ranges such as `10.0.0.0/8` and `fd00::/8`, or single addresses. Throws a UnitError for another. */
  constructor(ranges: readonly string[]) {
    for (const range of ranges) this.#add(range);
  }

  #add(range: string): void {
    const [, text = "", prefix] = /^([^/]*)(?:\/(\d{1,3}))?$/.exec(range.trim()) ?? [];
    const address = plain(text);
    const bits = isIP(address) === 6 ? 128 : 32;
    const length = prefix === undefined ? bits : Number(prefix);
    // A prefix of a mapped address would count the bits of an IPv6 address.
    const odd = text.includes("%") || (address !== text && prefix !== undefined);
    if (isIP(text) === 0 || odd || length > bits) {
      throw new UnitError(
        "must be addresses or ranges such as 10.0.0.0/8, 192.168.1.7 or fd00::/8, with commas between",
      );
    }
    const family = familyOf(address);
    this.#ranges[family].addSubnet(address, length, family);
  }

  /** Whether a peer with this numeric address may connect. */
  allows(host: string): boolean {
    const address = plain(host);
    if (isIP(address) === 0) return false;
    const family = familyOf(address);
    return this.#ranges[family].check(address, family);
  }
}
