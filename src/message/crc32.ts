/**
 * CRC-32 (IEEE 802.3, as in zlib) of a piece of a buffer: short pieces by tables, eight bytes a step
 * (Kounavis and Berry, "A Systematic Approach to Building High Performance Software-Based CRC
 * Generators", 2005), long ones by the runtime's zlib. A call of that costs more than the CRC of a
 * short message, and needs a view of each. Of messages that end alike only what differs is looked at.
 */
import * as zlib from "node:zlib";

/** From so many bytes on, zlib is the quicker one; Node has it from 20.15 on. */
export const ZLIB_FROM: number = "crc32" in zlib ? 192 : Infinity;

/** Eight tables of 256: what a byte adds to the CRC when 0 to 7 bytes follow it. */
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

/** The CRC-32 of the bytes from `from` to before `to`, in 32 bits without a sign. */
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
 * The CRC-32 of messages that differ only in their head: in its register a CRC is linear, so that each
 * byte of the head adds what it alone leaves there once all behind it has passed.
 */
export class CrcHead {
  /** For each byte of the head, 256 entries. */
  readonly #tables: Int32Array;
  /** The register when all of the head is 0. */
  readonly zero: number;

  /** So many bytes, and the tail that follows them in every message; takes 32 times its length. */
  constructor(head: number, tail: Uint8Array) {
    const zeros = new Uint8Array(tail.length);
    const bits = Array.from({ length: 32 }, (_, bit) => pass(1 << bit, zeros));
    this.#tables = new Int32Array(head * 256);
    for (let at = 0; at < this.#tables.length; at++) {
      const behind = new Uint8Array(head - (at >>> 8));
      const register = pass(at & 255, behind);
      this.#tables[at] = bits.reduce((sum, b, bit) => register >>> bit & 1 ? sum ^ b : sum, 0);
    }
    this.zero = pass(pass(-1, new Uint8Array(head)), tail);
  }

  /** What four bytes of the head, from `at` on, the highest first, add to the register. */
  word(at: number, value: number): number {
    const tables = this.#tables;
    const first = at * 256;
    return tables[first + (value >>> 24)]! ^ tables[first + 256 + (value >>> 16 & 255)]! ^
      tables[first + 512 + (value >>> 8 & 255)]! ^ tables[first + 768 + (value & 255)]!;
  }
}

function pass(register: number, bytes: Uint8Array): number {
  for (const byte of bytes) register = (register >>> 8) ^ TABLES[(register ^ byte) & 255]!;
  return register;
}
