/**
 * CRC-32 (IEEE 802.3, as in zlib) of a piece of a buffer: short pieces by tables, eight bytes a step
 * (Kounavis and Berry, "A Systematic Approach to Building High Performance Software-Based CRC
 * Generators", 2005), long ones by the runtime's zlib. A call of that costs more than the CRC of a
 * short message, and needs a view of each. What always ends in the same bytes needs only those that
 * differ.
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
 * A tail that many messages have in common: what it makes of the CRC of what is before it. In its
 * register a CRC is linear, so that four tables tell that for any tail.
 */
export class CrcTail {
  /** For each byte of the register: what becomes of it while the tail's bytes pass. */
  readonly #tables = new Int32Array(4 * 256);
  /** What the tail itself leaves in the register. */
  readonly #own: number;

  constructor(tail: Uint8Array) {
    this.#own = pass(0, tail);
    const zeros = new Uint8Array(tail.length);
    for (let at = 0; at < this.#tables.length; at++) {
      this.#tables[at] = pass((at & 255) << (at >>> 8) * 8, zeros);
    }
  }

  /** The CRC-32 of bytes that have this one, and the tail behind them. */
  append(crc: number): number {
    const register = ~crc;
    const tables = this.#tables;
    const passed = tables[register & 255]! ^ tables[256 + (register >>> 8 & 255)]! ^
      tables[512 + (register >>> 16 & 255)]! ^ tables[768 + (register >>> 24)]!;
    return ~(passed ^ this.#own) >>> 0;
  }
}

function pass(register: number, bytes: Uint8Array): number {
  for (const byte of bytes) register = (register >>> 8) ^ TABLES[(register ^ byte) & 255]!;
  return register;
}
