/**
 * The bytes of a segment file: a header that names the stream, and then records, each a batch with a
 * header. All numbers are big-endian.
 *
 *     file header, 32 bytes:   magic "speedseg" | version u32 | CRC-32 u32 | stream 8 bytes | after u64
 *     record header, 32 bytes: magic "rcrd" | CRC-32 u32 | length u32 | messages u32 | offset u64 |
 *                              stored at u64: ms since 1970
 *
 * `after` is the offset at which the segment before it ends: it tells whether one between them is gone,
 * as there may be offsets without bytes. Files of version 2 lack it. The CRC of the file header is over
 * the version and all that follows the CRC. The CRC of a record is over the
 * stream, the rest of its header, and its bytes: so a record of another stream is not valid.
 */
import zlib from "node:zlib";
import type { Batch, StoredBatch } from "./queue.ts";

export const FILE_HEADER = 32;
const SHORT_FILE_HEADER = 24;
export const RECORD_HEADER = 32;
export const FORMAT_VERSION = 3;
const SHORT_VERSION = 2;
/** Bound for the length in a header: the longest message (2 GiB) and what was gathered before it. */
const MOST_LENGTH = 2 ** 31 + 2 ** 20;
const FILE_MAGIC = "speedseg";
/** "rcrd" */
export const RECORD_MAGIC = 0x72637264;

/** A record's header. */
export interface RecordHeader {
  offset: number;
  length: number;
  messages: number;
  storedAtMs: number;
  crc: number;
}

const encoder = new TextEncoder();

/** The bytes of a stream's name: 16 hex digits. */
const streamBytes = (stream: string): Uint8Array =>
  Uint8Array.from({ length: 8 }, (_, i) => Number.parseInt(stream.slice(2 * i, 2 * i + 2), 16));

/** The CRC of all records of a stream begins with this. */
export const streamCrc = (stream: string): number => zlib.crc32(streamBytes(stream));

export function formatFileHeader(stream: string, after: number): Uint8Array {
  const bytes = new Uint8Array(FILE_HEADER);
  const view = new DataView(bytes.buffer);
  bytes.set(encoder.encode(FILE_MAGIC));
  view.setUint32(8, FORMAT_VERSION);
  bytes.set(streamBytes(stream), 16);
  view.setBigUint64(24, BigInt(after));
  view.setUint32(12, fileHeaderCrc(bytes));
  return bytes;
}

const fileHeaderCrc = (bytes: Uint8Array): number =>
  zlib.crc32(bytes.subarray(16, FILE_HEADER), zlib.crc32(bytes.subarray(8, 12)));

/** Where the records of a file begin whose first 32 bytes are these; they may be damaged. */
export function firstRecordAt(bytes: Uint8Array): number {
  // No offset begins with these bytes.
  const isRecord = bytes.length >= SHORT_FILE_HEADER + 4 &&
    new DataView(bytes.buffer, bytes.byteOffset).getUint32(SHORT_FILE_HEADER) === RECORD_MAGIC;
  return isRecord || bytes.length === SHORT_FILE_HEADER ? SHORT_FILE_HEADER : FILE_HEADER;
}

/** Where the segment before it ends, from an intact header; undefined: it does not say. */
export function afterOf(bytes: Uint8Array): number | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  return view.getUint32(8) === FORMAT_VERSION ? Number(view.getBigUint64(24)) : undefined;
}

/** Why these first 32 bytes of a file are not the header of a segment of this stream; undefined: they are. */
export function fileHeaderError(bytes: Uint8Array, stream: string): string | undefined {
  if (bytes.length < SHORT_FILE_HEADER) return TOO_SHORT;
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const version = view.getUint32(8);
  if (version === SHORT_VERSION) bytes = bytes.subarray(0, SHORT_FILE_HEADER);
  else if (bytes.length < FILE_HEADER) return TOO_SHORT;
  if (new TextDecoder("latin1").decode(bytes.subarray(0, 8)) !== FILE_MAGIC) {
    return "it does not begin as a segment does";
  }
  if (view.getUint32(12) !== fileHeaderCrc(bytes)) return "the CRC of its header is wrong";
  if (version !== FORMAT_VERSION && version !== SHORT_VERSION) {
    return `its version is ${version}, not ${FORMAT_VERSION}`;
  }
  const own = streamBytes(stream);
  return own.every((byte, i) => byte === bytes[16 + i]) ? undefined : "it is of another stream";
}

const TOO_SHORT = "it is shorter than its header";

export function formatRecordHeader(
  { offset, bytes, messages, storedAtMs }: StoredBatch,
  crcOfStream: number,
): Uint8Array {
  const header = new Uint8Array(RECORD_HEADER);
  const view = new DataView(header.buffer);
  view.setUint32(0, RECORD_MAGIC);
  view.setUint32(8, bytes.length);
  view.setUint32(12, messages);
  view.setBigUint64(16, BigInt(offset));
  view.setBigUint64(24, BigInt(Math.floor(storedAtMs)));
  view.setUint32(4, recordCrc(header, bytes, crcOfStream));
  return header;
}

/** A record's header; undefined: these 32 bytes are none. The CRC is not checked. */
export function parseRecordHeader(header: Uint8Array): RecordHeader | undefined {
  if (header.length < RECORD_HEADER) return undefined;
  const view = new DataView(header.buffer, header.byteOffset);
  const length = view.getUint32(8);
  const offset = Number(view.getBigUint64(16));
  const storedAtMs = Number(view.getBigUint64(24));
  if (view.getUint32(0) !== RECORD_MAGIC || length === 0 || length > MOST_LENGTH) return undefined;
  if (!Number.isSafeInteger(offset + length) || !Number.isSafeInteger(storedAtMs)) return undefined;
  return { offset, length, messages: view.getUint32(12), storedAtMs, crc: view.getUint32(4) };
}

/** Whether these bytes, fewer than a header has, can be the beginning of one. */
export function beginsRecord(bytes: Uint8Array): boolean {
  const magic = new Uint8Array(4);
  new DataView(magic.buffer).setUint32(0, RECORD_MAGIC);
  return bytes.subarray(0, 4).every((byte, i) => byte === magic[i]);
}

/** The CRC of a record; `bytes`: those after its header. */
export function recordCrc(
  header: Uint8Array,
  bytes: Uint8Array,
  crcOfStream: number,
): number {
  return zlib.crc32(bytes, zlib.crc32(header.subarray(8, RECORD_HEADER), crcOfStream));
}

/** Bytes that a batch takes on disk. */
export const recordSize = ({ bytes }: Pick<Batch, "bytes">): number => RECORD_HEADER + bytes.length;
