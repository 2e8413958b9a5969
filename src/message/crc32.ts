/**
 * CRC-32 (IEEE 802.3, as in zlib) of a part of a buffer.
 *
 * Short parts use tables and take eight bytes per step (Kounavis and Berry, "A Systematic Approach to
 * Building High Performance Software-Based CRC Generators", 2005). Long parts use the runtime's zlib;
 * for a short one, the call and the view that it needs would cost more than the CRC itself. `CrcHead`
 * is faster still for messages that differ only in their first bytes.
 */
import * as zlib from "node:zlib";

/** From this length on, zlib is faster. Infinity where zlib has no crc32: Node before 20.15. */
export const ZLIB_FROM: number = "crc32" in zlib ? 192 : Infinity;

/** Eight tables of 256 entries: the effect of a byte on the CRC when 0 to 7 bytes follow it. */
const TABLES = makeTables();

function makeTables(): Int32Array {
  const tables = new Int32Array(8 * 256);
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (0xedb8_8320 & -(crc & 1));
    tables[byte] = crc;
  }
  for (let i = 256; i < tables.length; i++) {
    const crc = tables[i - 256]!;
    tables[i] = (crc >>> 8) ^ tables[crc & 255]!;
  }
  return tables;
}

/** The CRC-32 of the bytes from `from` up to but not including `to`: an unsigned 32-bit integer. */
export function crc32(bytes: Uint8Array, from: number, to: number): number {
  if (to - from >= ZLIB_FROM) return zlib.crc32(bytes.subarray(from, to));
  let crc = -1;
  let at = from;
  for (const end = to - 7; at < end; at += 8) {
    crc ^= bytes[at]! | bytes[at + 1]! << 8 | bytes[at + 2]! << 16 | bytes[at + 3]! << 24;
    crc = TABLES[1792 + (crc & 255)]! ^ TABLES[1536 + (crc >>> 8 & 255)]! ^
      TABLES[1280 + (crc >>> 16 & 255)]! ^ TABLES[1024 + (crc >>> 24)]! ^
      TABLES[768 + bytes[at + 4]!]! ^ TABLES[512 + bytes[at + 5]!]! ^
      TABLES[256 + bytes[at + 6]!]! ^ TABLES[bytes[at + 7]!]!;
  }
  for (; at < to; at++) crc = (crc >>> 8) ^ TABLES[(crc ^ bytes[at]!) & 255]!;
  return ~crc >>> 0;
}

/**
 * The CRC-32 of messages that differ only in their head, their first bytes. A CRC is linear over its
 * register: the effects of the head's bytes can be looked up one by one and combined with XOR.
 *
 * The CRC is `~(zero ^ word(0, ...) ^ word(4, ...) ^ ...)`.
 */
export class CrcHead {
  /** 256 entries for each byte of the head: the effect of its value on the register at the end. */
  readonly #tables: Int32Array;
  /** The register at the end if all bytes of the head are 0. */
  readonly zero: number;

  /**
   * `head`: its length in bytes; `tail`: the bytes that follow it in every message. Building the tables
   * takes time for 32 passes over the tail.
   */
  constructor(head: number, tail: Uint8Array) {
    const zeros = new Uint8Array(tail.length);
    // What each bit of the register becomes after the tail.
    const bits = Array.from({ length: 32 }, (_, bit) => advance(1 << bit, zeros));
    this.#tables = new Int32Array(head * 256);
    for (let at = 0; at < this.#tables.length; at++) {
      const remaining = new Uint8Array(head - (at >>> 8));
      const register = advance(at & 255, remaining);
      this.#tables[at] = bits.reduce((sum, b, bit) => register >>> bit & 1 ? sum ^ b : sum, 0);
    }
    this.zero = advance(advance(-1, new Uint8Array(head)), tail);
  }

  /** The effect on the register of the big-endian 32-bit `value` at offset `at` of the head. */
  word(at: number, value: number): number {
    const tables = this.#tables;
    const first = at * 256;
    return tables[first + (value >>> 24)]! ^ tables[first + 256 + (value >>> 16 & 255)]! ^
      tables[first + 512 + (value >>> 8 & 255)]! ^ tables[first + 768 + (value & 255)]!;
  }
}

/** The register after these bytes. */
function advance(register: number, bytes: Uint8Array): number {
  for (const byte of bytes) register = (register >>> 8) ^ TABLES[(register ^ byte) & 255]!;
  return register;
}
