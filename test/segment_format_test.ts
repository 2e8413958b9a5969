/** The bytes of a segment file: each at its place, as segment_format.ts says; and what is none. */
import { Buffer } from "node:buffer";
import { describe, test } from "node:test";
import zlib from "node:zlib";
import { assertEquals } from "#std/assert";
import {
  afterOf,
  beginsRecord,
  FILE_HEADER,
  fileHeaderError,
  firstRecordAt,
  FORMAT_VERSION,
  formatFileHeader,
  formatRecordHeader,
  parseRecordHeader,
  RECORD_HEADER,
  recordCrc,
  recordSize,
  streamCrc,
} from "../src/queue/segment_format.ts";

const STREAM = "0123456789abcdef";
const AFTER = 2 ** 40 + 3;
const BODY = new TextEncoder().encode("two\nlines\n");
const BATCH = { offset: 2 ** 41 + 5, bytes: BODY, messages: 2, storedAtMs: 1_700_000_000_123.9 };
/** The longest batch that a header may announce. */
const MOST = 2 ** 31 + 2 ** 20;
/** Highest offset. */
const HIGHEST = Number.MAX_SAFE_INTEGER;

const hex = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text, "hex"));
const ascii = (text: string): Uint8Array => new TextEncoder().encode(text);
const u32 = (value: number): Uint8Array => hex(value.toString(16).padStart(8, "0"));
const u64 = (value: number): Uint8Array => hex(value.toString(16).padStart(16, "0"));
const concat = (...parts: Uint8Array[]): Uint8Array =>
  Uint8Array.from(parts.flatMap((part) => [...part]));

/** The same bytes in the middle of a larger buffer, between others. */
function within(bytes: Uint8Array): Uint8Array {
  const larger = new Uint8Array(bytes.length + 80).fill(0x72);
  larger.set(bytes, 37);
  return larger.subarray(37, 37 + bytes.length);
}

/** A file's header; version 2 has no `after`. */
function fileHeader(version: number, stream = STREAM, magic = "speedseg"): Uint8Array {
  const rest = concat(hex(stream), version === 2 ? new Uint8Array(0) : u64(AFTER));
  return concat(ascii(magic), u32(version), u32(zlib.crc32(concat(u32(version), rest))), rest);
}

/** A record's header with these numbers, and a CRC that is not checked. */
const recordHeader = (
  { magic = "rcrd", length = 10, messages = 2, offset = 5, storedAtMs = 7 } = {},
): Uint8Array =>
  concat(ascii(magic), u32(0xfedcba98), u32(length), u32(messages), u64(offset), u64(storedAtMs));

describe("the header of a file", () => {
  test("has each byte at its place", () => {
    assertEquals([FILE_HEADER, FORMAT_VERSION], [32, 3]);
    assertEquals(formatFileHeader(STREAM, AFTER), fileHeader(3));
    assertEquals(fileHeader(3).length, 32);
    assertEquals(fileHeader(2).length, 24);
  });

  test("says where the segment before it ends, from version 3 on", () => {
    for (const after of [0, 1, AFTER, HIGHEST]) {
      assertEquals(afterOf(within(formatFileHeader(STREAM, after))), after);
    }
    assertEquals(afterOf(within(concat(fileHeader(2), ascii("rcrd....")))), undefined);
  });

  test("is intact in both versions", () => {
    const [short, long] = [fileHeader(2), fileHeader(3)];
    for (const bytes of [long, within(long), short, within(short)]) {
      assertEquals(fileHeaderError(bytes, STREAM), undefined);
    }
    // What follows a short one is the beginning of a record.
    assertEquals(fileHeaderError(concat(short, ascii("rcrd....")), STREAM), undefined);
  });

  test("is of another stream if one digit differs", () => {
    for (const version of [2, 3]) {
      for (let i = 0; i < STREAM.length; i++) {
        const other = STREAM.slice(0, i) + (STREAM[i] === "7" ? "8" : "7") + STREAM.slice(i + 1);
        const error = fileHeaderError(fileHeader(version, other), STREAM);
        assertEquals(error, "it is of another stream");
      }
    }
  });

  test("is none if it is shorter", () => {
    const [short, long] = [fileHeader(2), fileHeader(3)];
    for (const header of [long, short]) {
      for (let length = 0; length < header.length; length++) {
        const cut = header.slice(0, length);
        for (const bytes of [cut, within(cut)]) {
          assertEquals(fileHeaderError(bytes, STREAM), "it is shorter than its header");
        }
      }
    }
  });

  test("is none with any other byte", () => {
    for (const header of [fileHeader(2), fileHeader(3)]) {
      for (let at = 0; at < header.length; at++) {
        const bytes = header.slice();
        bytes[at]! ^= 0x40;
        const error = fileHeaderError(bytes, STREAM);
        const expected = at < 8
          ? "it does not begin as a segment does"
          : at < 12 && header.length < 32
          ? "it is shorter than its header"
          : "the CRC of its header is wrong";
        assertEquals(error, expected, `byte ${at}`);
      }
    }
    assertEquals(
      fileHeaderError(fileHeader(3, STREAM, "speedsex"), STREAM),
      "it does not begin as a segment does",
    );
  });

  test("of an unknown version is intact, but cannot be read", () => {
    for (const version of [0, 1, 4, 2 ** 32 - 1]) {
      const error = fileHeaderError(fileHeader(version), STREAM);
      assertEquals(error, `its version is ${version}, not 3`);
    }
  });
});

test("the first record begins where the header of either version ends", () => {
  const record = recordHeader();
  assertEquals(firstRecordAt(fileHeader(3)), 32);
  assertEquals(firstRecordAt(fileHeader(2)), 24);
  assertEquals(firstRecordAt(within(fileHeader(2))), 24);
  for (let length = 0; length <= 32; length++) {
    // Up to 3 bytes of a record are not known as one.
    const short = concat(fileHeader(2), record).slice(0, length);
    assertEquals(firstRecordAt(short), length === 24 || length >= 28 ? 24 : 32, `${length} bytes`);
    if (length >= 28) assertEquals(firstRecordAt(within(short)), 24);
    const long = fileHeader(3).slice(0, length);
    assertEquals(firstRecordAt(long), length === 24 ? 24 : 32, `${length} bytes`);
  }
});

describe("the header of a record", () => {
  test("has each byte at its place", () => {
    const { offset, messages } = BATCH;
    const rest = concat(u32(BODY.length), u32(messages), u64(offset), u64(1_700_000_000_123));
    const crc = zlib.crc32(concat(hex(STREAM), rest, BODY));
    const header = formatRecordHeader(BATCH, streamCrc(STREAM));
    assertEquals(header, concat(ascii("rcrd"), u32(crc), rest));
    assertEquals([header.length, RECORD_HEADER, recordSize(BATCH)], [32, 32, 42]);
    assertEquals(streamCrc(STREAM), zlib.crc32(hex(STREAM)));
    assertEquals(recordCrc(within(header), within(BODY), streamCrc(STREAM)), crc);
  });

  test("is read as it was written", () => {
    const header = formatRecordHeader(BATCH, streamCrc(STREAM));
    const expected = {
      offset: BATCH.offset,
      length: BODY.length,
      messages: 2,
      storedAtMs: 1_700_000_000_123,
      crc: recordCrc(header, BODY, streamCrc(STREAM)),
    };
    for (const bytes of [header, within(header), concat(header, BODY)]) {
      assertEquals(parseRecordHeader(bytes), expected);
    }
  });

  test("may have any numbers up to their bounds", () => {
    for (
      const numbers of [
        { length: 1, messages: 0, offset: 0, storedAtMs: 0 },
        { length: MOST, messages: 2 ** 32 - 1, offset: HIGHEST - MOST, storedAtMs: HIGHEST },
        { length: 1, messages: 1, offset: HIGHEST - 1, storedAtMs: 1 },
      ]
    ) {
      assertEquals(parseRecordHeader(recordHeader(numbers)), { ...numbers, crc: 0xfedcba98 });
    }
  });

  test("is none if a number is beyond them, or it begins otherwise", () => {
    for (
      const numbers of [
        { length: 0 },
        { length: MOST + 1 },
        { length: 2 ** 32 - 1 },
        { offset: HIGHEST - 9 },
        { offset: HIGHEST + 1 },
        { storedAtMs: HIGHEST + 1 },
        ...["Rcrd", "rcre", "\0rcr", "crdr"].map((magic) => ({ magic })),
      ]
    ) {
      assertEquals(parseRecordHeader(recordHeader(numbers)), undefined, JSON.stringify(numbers));
    }
  });

  test("is none if it is shorter; the beginning of one is known", () => {
    const header = recordHeader();
    for (let length = 0; length < RECORD_HEADER; length++) {
      const cut = header.slice(0, length);
      for (const bytes of [cut, within(cut)]) {
        assertEquals(parseRecordHeader(bytes), undefined);
        assertEquals(beginsRecord(bytes), true);
      }
      for (let at = 0; at < Math.min(4, length); at++) {
        const other = cut.slice();
        other[at]! ^= 1;
        assertEquals(beginsRecord(other), false, `byte ${at} of ${length}`);
      }
    }
  });
});
