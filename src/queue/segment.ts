/** One segment file of a log: what records it has, and how they are read, added and recovered. */
import { constants, lstatSync } from "node:fs";
import { type FileHandle, open, unlink } from "node:fs/promises";
import { basename, join } from "node:path";
import { type Amount, messagesIn, QueueError, type StoredBatch } from "./queue.ts";
import {
  afterOf,
  beginsRecord,
  FILE_HEADER,
  fileHeaderError,
  firstRecordAt,
  formatFileHeader,
  formatRecordHeader,
  parseRecordHeader,
  RECORD_HEADER,
  RECORD_MAGIC,
  recordCrc,
  type RecordHeader,
} from "./segment_format.ts";

const READ_ONLY = constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0);

const NOTHING: Amount = { bytes: 0, messages: 0 };

/** Where a record is in its file. */
interface IndexEntry {
  offset: number;
  length: number;
  /** In the records before it, so that no sum is needed to tell how much is left. */
  bytesBefore: number;
  messagesBefore: number;
  /** Of its header; bytes from the start of the file. */
  at: number;
  /** When it was stored: so long after the segment's first; ms. A small number takes less memory. */
  afterMs: number;
}

/** Something in a segment that is no record, or a part of a stream that is gone. */
export interface SegmentDamage {
  /** Offset from which bytes are missing. */
  offset: number;
  /** Bytes of the file that are no record; bytes of the stream that are gone. */
  bytes: number;
  reason: string;
}

/** The name of the segment that begins at this offset. */
export const segmentName = (start: number): string => `${String(start).padStart(16, "0")}.segment`;

/** The start in the name of a segment; undefined if it is another file's name. */
export function segmentStart(name: string): number | undefined {
  const start = /^\d{16}\.segment$/.test(name) ? Number(name.slice(0, 16)) : undefined;
  return Number.isSafeInteger(start) ? start : undefined;
}

/** Only the last segment can end so after a kill: its last record was never needed. */
export const INCOMPLETE = "the last record of a segment is incomplete";

/** How many bytes are searched at once for the next record after damage. */
const SEARCH_BYTES = 1 << 20;

export class Segment {
  readonly path: string;
  /** Offset of its first record. */
  readonly start: number;
  /** Where the segment before it ends; undefined: not known. Only once it is indexed. */
  follows: number | undefined;
  /** Bytes of the file that are in use. */
  size: number;
  /** When its first and last records were stored; ms since 1970, undefined where not known yet. */
  oldestMs: number | undefined;
  newestMs: number | undefined;
  readonly #crcOfStream: number;
  readonly #index: IndexEntry[] = [];
  /** In all of its records. */
  #total: Amount = NOTHING;
  /** The same when it was put aside; undefined: it was never indexed. */
  #lastTotal: Amount | undefined;
  /** Where its last record ends; bytes from the start of the file. Only once it is indexed. */
  #recordsEnd = FILE_HEADER;
  #indexed = false;
  /** Its damage was reported. */
  #reported = false;
  /** Records whose CRC is wrong, by their places in the file. */
  readonly #damaged: Set<number> = new Set();
  #indexing: Promise<number> | undefined;
  #handle: Promise<FileHandle> | undefined;
  /** What uses the handle now. */
  readonly #uses: Set<Promise<unknown>> = new Set();
  #closed = false;

  private constructor(path: string, start: number, size: number, crcOfStream: number) {
    this.path = path;
    this.start = start;
    this.size = size;
    this.#crcOfStream = crcOfStream;
  }

  /** Creates the file, which must not exist. `after`: where the segment before it ends. */
  static async create(
    folder: string,
    start: number,
    stream: string,
    crcOfStream: number,
    after: number = start,
  ): Promise<Segment> {
    const path = join(folder, segmentName(start));
    const handle = await open(path, "wx+", 0o600);
    const header = formatFileHeader(stream, after);
    const segment = new Segment(path, start, FILE_HEADER, crcOfStream);
    segment.follows = after;
    segment.#handle = Promise.resolve(handle);
    segment.#indexed = true;
    try {
      await writeAll(handle, [header], 0);
    } catch (error) {
      // The next attempt creates it anew.
      await segment.close();
      await unlink(path);
      throw error;
    }
    return segment;
  }

  /** A file that is there; undefined: it is not. Throws a QueueError where it is no file. */
  static find(path: string, start: number, crcOfStream: number): Segment | undefined {
    const stat = lstatSync(path, { throwIfNoEntry: false });
    if (stat === undefined) return undefined;
    if (!stat.isFile()) throw new QueueError(`${path} is not a regular file`);
    const segment = new Segment(path, start, stat.size, crcOfStream);
    segment.newestMs = stat.mtimeMs;
    return segment;
  }

  /** Finds when its first record was stored. If its file cannot be read, whoever needs its messages is told. */
  async findOldest(): Promise<void> {
    try {
      const handle = await open(this.path, READ_ONLY);
      try {
        const head = await readAt(handle, FILE_HEADER, RECORD_HEADER);
        this.oldestMs ??= parseRecordHeader(head)?.storedAtMs;
      } finally {
        await handle.close();
      }
    } catch {
      // As above.
    }
  }

  /** Offset after its last record. Only once it is indexed. */
  get end(): number {
    const last = this.#index.at(-1);
    return last === undefined ? this.start : last.offset + last.length;
  }

  get records(): number {
    return this.#index.length;
  }

  /** What its records have; undefined: it was not indexed yet. */
  get total(): Amount | undefined {
    return this.#indexed ? this.#total : this.#lastTotal;
  }

  /**
   * What its records have from `offset` on; undefined: it is not indexed. Where `offset` is within a record, a part of
   * its messages that is as large as the part of its bytes.
   */
  after(offset: number): Amount | undefined {
    if (!this.#indexed) return undefined;
    const at = this.#find(offset);
    const entry = this.#index[at];
    if (entry === undefined) return NOTHING;
    const rest = this.#index[at + 1] ?? this.#rest;
    const { messagesBefore, length } = entry;
    const left = Math.min(length, entry.offset + length - offset);
    return {
      bytes: this.#total.bytes - rest.bytesBefore + left,
      messages: this.#total.messages - rest.messagesBefore +
        messagesIn(left, length, rest.messagesBefore - messagesBefore),
    };
  }

  /** What is before the end. */
  get #rest(): Pick<IndexEntry, "bytesBefore" | "messagesBefore"> {
    return { bytesBefore: this.#total.bytes, messagesBefore: this.#total.messages };
  }

  /** When the first record that ends after `offset` was stored; undefined: none, or it is not indexed. */
  storedAtMs(offset: number): number | undefined {
    const entry = this.#indexed ? this.#index[this.#find(offset)] : undefined;
    return entry && this.oldestMs! + entry.afterMs;
  }

  /**
   * Reads its records' headers, or with `check` all of its bytes, and reports what is no record. Returns
   * the length of an incomplete last record, which a kill in the middle of a write leaves. Rejects where
   * the file cannot be read.
   */
  async index(
    stream: string,
    onDamage: (damage: SegmentDamage) => void,
    check = false,
  ): Promise<number> {
    if (this.#indexed) return 0;
    // Several readers may need it at the same time.
    if (this.#indexing !== undefined) return await this.#indexing.then(() => 0);
    const report = this.#reported ? () => {} : onDamage;
    this.#reported = true;
    this.#indexing = this.#use((handle) => this.#readIndex(handle, stream, report, check));
    try {
      return await this.#indexing;
    } finally {
      this.#indexing = undefined;
    }
  }

  async #readIndex(
    handle: FileHandle,
    stream: string,
    onDamage: (damage: SegmentDamage) => void,
    check: boolean,
  ): Promise<number> {
    const head = await readAt(handle, 0, FILE_HEADER);
    const wrong = fileHeaderError(head, stream);
    // Records have CRCs of their own: with a damaged header they are searched for.
    if (wrong !== undefined && this.size > 0) {
      onDamage({
        offset: this.start,
        bytes: Math.min(firstRecordAt(head), this.size),
        reason: wrong,
      });
    }
    this.follows = wrong === undefined ? afterOf(head) : undefined;
    check ||= wrong !== undefined;
    const from = firstRecordAt(head);
    let scan = await this.#scan(handle, from, check);
    // A header that is damaged misleads about the records after it.
    if (!check && (scan.damages.length > 0 || scan.torn > 0)) {
      scan = await this.#scan(handle, from, true);
    }
    scan.damages.forEach(onDamage);
    this.#recordsEnd = scan.end;
    this.#indexed = true;
    return scan.torn;
  }

  /** Makes the index of the records from byte `from` on. `torn`: length of an incomplete last record; `end`: of the last whole one. */
  async #scan(
    handle: FileHandle,
    from: number,
    check: boolean,
  ): Promise<{ damages: SegmentDamage[]; torn: number; end: number }> {
    const damages: SegmentDamage[] = [];
    this.#index.length = 0;
    this.#total = NOTHING;
    this.oldestMs = undefined;
    let at = from;
    while (at < this.size) {
      const record = await this.#recordAt(handle, at, check);
      if (typeof record !== "string") {
        this.#add(record, at);
        at += RECORD_HEADER + record.length;
        continue;
      }
      const next = await this.#search(handle, at + 1);
      if (next === undefined) {
        const rest = this.size - at;
        if (await this.#isIncomplete(handle, at)) return { damages, torn: rest, end: at };
        damages.push({ offset: this.end, bytes: rest, reason: record });
        return { damages, torn: 0, end: at };
      }
      damages.push({ offset: this.end, bytes: next - at, reason: record });
      at = next;
    }
    return { damages, torn: 0, end: at };
  }

  /** Whether a kill can have left these last bytes: the beginning of the next record. */
  async #isIncomplete(handle: FileHandle, at: number): Promise<boolean> {
    const head = await readAt(handle, at, RECORD_HEADER);
    if (head.length < RECORD_HEADER) return beginsRecord(head);
    const record = parseRecordHeader(head);
    const rest = this.size - at - RECORD_HEADER;
    if (record === undefined || record.offset < this.end || rest >= record.length) return false;
    // It may be whole, and its length damaged.
    new DataView(head.buffer, head.byteOffset).setUint32(8, rest);
    const bytes = await readAt(handle, at + RECORD_HEADER, rest);
    return recordCrc(head, bytes, this.#crcOfStream) !== record.crc;
  }

  /** Prepares a recovered file for more records: cuts off what is after the last one. */
  async reopen(): Promise<void> {
    const handle = await open(this.path, constants.O_RDWR | (constants.O_NOFOLLOW ?? 0));
    await (await this.#handle)?.close();
    this.#handle = Promise.resolve(handle);
    this.size = this.#recordsEnd;
    await handle.truncate(this.size);
  }

  #add({ offset, length, messages, storedAtMs }: RecordHeader, at: number): void {
    if (this.#damaged.has(at)) return;
    const { bytes: bytesBefore, messages: messagesBefore } = this.#total;
    this.oldestMs ??= storedAtMs;
    const afterMs = storedAtMs - this.oldestMs;
    this.#index.push({ offset, length, bytesBefore, messagesBefore, at, afterMs });
    this.#total = { bytes: bytesBefore + length, messages: messagesBefore + messages };
    this.newestMs = storedAtMs;
  }

  /** The record at this place of the file, or what is wrong with it. */
  async #recordAt(
    handle: FileHandle,
    at: number,
    check: boolean,
  ): Promise<RecordHeader | string> {
    const head = await readAt(handle, at, RECORD_HEADER);
    const record = parseRecordHeader(head);
    if (record === undefined) return "no record begins there";
    if (record.offset < this.end) return `its offset ${record.offset} is before ${this.end}`;
    if (at + RECORD_HEADER + record.length > this.size) return "its last bytes are missing";
    if (!check) return record;
    const bytes = await readAt(handle, at + RECORD_HEADER, record.length);
    return bytes.length === record.length &&
        recordCrc(head, bytes, this.#crcOfStream) === record.crc
      ? record
      : "its CRC-32 is wrong";
  }

  /** The next place from `from` on with an intact record. */
  async #search(handle: FileHandle, from: number): Promise<number | undefined> {
    for (let at = from; at < this.size; at += SEARCH_BYTES) {
      const bytes = await readAt(handle, at, SEARCH_BYTES + 3);
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
      for (let i = 0; i + 4 <= bytes.length; i++) {
        if (bytes[i] !== RECORD_MAGIC >>> 24 || view.getUint32(i) !== RECORD_MAGIC) continue;
        if (typeof await this.#recordAt(handle, at + i, true) !== "string") return at + i;
      }
    }
    return undefined;
  }

  /** Adds records at the end; `headers`: theirs, where they are made already. After a failure the file ends where it did before. */
  async write(
    batches: readonly StoredBatch[],
    headers: readonly Uint8Array[] = batches.map((batch) =>
      formatRecordHeader(batch, this.#crcOfStream)
    ),
  ): Promise<void> {
    const parts: Uint8Array[] = [];
    let size = this.size;
    const entries: { record: RecordHeader; at: number }[] = [];
    for (const [i, batch] of batches.entries()) {
      const header = headers[i]!;
      parts.push(header, batch.bytes);
      entries.push({ record: parseRecordHeader(header)!, at: size });
      size += RECORD_HEADER + batch.bytes.length;
    }
    const handle = await this.#open();
    try {
      await writeAll(handle, parts, this.size);
    } catch (error) {
      // Whole records among these bytes would be found at the next opening. If this fails as well, the
      // next write is at the same place.
      await handle.truncate(this.size).catch(() => {});
      throw error;
    }
    for (const { record, at } of entries) this.#add(record, at);
    this.size = size;
  }

  /** Throws a QueueError where somebody else has removed the file: what it holds would be lost. */
  async sync(): Promise<void> {
    // One that was deleted meanwhile is not needed.
    if (this.#closed) return;
    await this.#use(async (handle) => {
      await handle.datasync();
      if ((await handle.stat()).nlink === 0) {
        throw new QueueError(`${this.path} was removed while it was in use`);
      }
    });
  }

  /** The end of the record that contains `offset`; undefined: none, or it is not indexed now. */
  recordEnd(offset: number): number | undefined {
    const entry = this.#index[this.#find(offset)];
    return entry !== undefined && entry.offset <= offset ? entry.offset + entry.length : undefined;
  }

  /** Start of the first record that ends after `offset`; undefined: none. Only once it is indexed. */
  recordStart(offset: number): number | undefined {
    return this.#index[this.#find(offset)]?.offset;
  }

  /** The index of the first record that ends after `offset`. */
  #find(offset: number): number {
    let low = 0;
    let high = this.#index.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const { offset: from, length } = this.#index[middle]!;
      if (from + length > offset) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  /** Takes a record that is damaged out of the index. */
  #remove(index: number): void {
    const { bytesBefore, messagesBefore, at } = this.#index[index]!;
    const rest = this.#index[index + 1] ?? this.#rest;
    const bytes = rest.bytesBefore - bytesBefore;
    const messages = rest.messagesBefore - messagesBefore;
    this.#index.splice(index, 1);
    this.#damaged.add(at);
    for (let i = index; i < this.#index.length; i++) {
      this.#index[i]!.bytesBefore -= bytes;
      this.#index[i]!.messagesBefore -= messages;
    }
    this.#total = { bytes: this.#total.bytes - bytes, messages: this.#total.messages - messages };
  }

  /**
   * The first intact record that ends after `offset`; null: none. What is damaged is removed from the
   * index, and reported.
   */
  async read(
    offset: number,
    stream: string,
    onDamage: (damage: SegmentDamage) => void,
    into?: ArrayBufferLike,
  ): Promise<StoredBatch | null> {
    while (true) {
      if (!this.#indexed) {
        const torn = await this.index(stream, onDamage);
        if (torn > 0) onDamage({ offset: this.end, bytes: torn, reason: INCOMPLETE });
        // It may have been put aside again meanwhile.
        continue;
      }
      const entry = this.#index[this.#find(offset)];
      if (entry === undefined) return null;
      const { at, length } = entry;
      const all = await this.#use((handle) => readAt(handle, at, RECORD_HEADER + length, into));
      const header = all.subarray(0, RECORD_HEADER);
      const bytes = all.subarray(RECORD_HEADER);
      const record = parseRecordHeader(header);
      if (
        record !== undefined && bytes.length === record.length && record.offset === entry.offset &&
        recordCrc(header, bytes, this.#crcOfStream) === record.crc
      ) {
        const { messages, storedAtMs } = record;
        return { offset: record.offset, bytes, messages, storedAtMs };
      }
      const index = this.#index.indexOf(entry);
      // Another read may have found it first.
      if (index < 0) continue;
      this.#remove(index);
      const reason = `the record at byte ${entry.at} of ${
        basename(this.path)
      }: its CRC-32 is wrong`;
      onDamage({ offset: entry.offset, bytes: entry.length, reason });
    }
  }

  /** Runs what needs the file, which is not closed meanwhile. */
  async #use<T>(work: (handle: FileHandle) => Promise<T>): Promise<T> {
    const using = this.#open().then(work);
    this.#uses.add(using);
    try {
      return await using;
    } finally {
      this.#uses.delete(using);
    }
  }

  #open(): Promise<FileHandle> {
    if (this.#closed) return Promise.reject(new Error(`${this.path} is closed`));
    if (this.#handle === undefined) {
      const opening = open(this.path, READ_ONLY);
      this.#handle = opening;
      // There is nothing to close then.
      opening.catch(() => {
        if (this.#handle === opening) this.#handle = undefined;
      });
    }
    return this.#handle;
  }

  /** Forgets where its records are, and closes its file, until it is read again; not while it is used. */
  async putAside(): Promise<void> {
    if (this.#uses.size > 0 || this.#indexing !== undefined || this.#closed) return;
    this.#lastTotal = this.total;
    this.#index.length = 0;
    this.#indexed = false;
    const handle = this.#handle;
    this.#handle = undefined;
    await (await handle)?.close();
  }

  /** Closes its file once nothing uses it; nothing can use it from now on. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.allSettled(this.#uses);
    const handle = this.#handle;
    this.#handle = undefined;
    await (await handle)?.close();
  }
}

/** Up to `length` bytes from this place on, in `into` if they fit, else in a buffer of their own. */
async function readAt(
  handle: FileHandle,
  at: number,
  length: number,
  into?: ArrayBufferLike,
): Promise<Uint8Array> {
  const fits = into !== undefined && into.byteLength >= length;
  const bytes = fits ? new Uint8Array(into, 0, length) : new Uint8Array(length);
  let filled = 0;
  while (filled < length) {
    const { bytesRead } = await handle.read(bytes, filled, length - filled, at + filled);
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return filled === length ? bytes : bytes.subarray(0, filled);
}

/** One by one: Deno 2.9.5 copies what `writev` is given into one buffer, which it then leaves behind. */
async function writeAll(
  handle: FileHandle,
  parts: readonly Uint8Array[],
  at: number,
): Promise<void> {
  for (const part of parts) {
    for (let from = 0; from < part.length;) {
      const { bytesWritten } = await handle.write(part, from, part.length - from, at);
      from += bytesWritten;
      at += bytesWritten;
    }
  }
}
