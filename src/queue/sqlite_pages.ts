/**
 * Reads the bytes of batches directly from the pages of SQLite's file (SQLite's file format, 1.5, 1.6
 * and 2.1), 1 MiB per system call, into a reused buffer. A query allocates a new buffer for each
 * batch, which takes up to twenty times as long (Deno 2.9.5) and leaves garbage of 1 GB/s.
 *
 * To be used only by the process that has locked the file, between its transactions: only then the
 * file has the state that SQLite sees. Anything unexpected is left to SQLite. The caller checks the
 * CRC.
 */
import { closeSync, openSync, readSync } from "node:fs";
import type { DatabaseSync } from "node:sqlite";
import { PAGE_SIZE, valueOf } from "./sqlite_file.ts";
import { takeBuffer } from "./buffers.ts";

/** Page types of a table's B-tree: the first byte of a page. */
const LEAF = 13;
const INTERIOR = 5;
/** Limit of a table's levels: a page has thousands of children. */
const MOST_LEVELS = 5;
/** Most and least bytes of a payload that are stored in the leaf page itself, at this page size. */
const MOST_LOCAL = PAGE_SIZE - 35;
const LEAST_LOCAL = Math.floor((PAGE_SIZE - 12) * 32 / 255) - 23;
/** An overflow page starts with the number of the next one; bytes. */
const LINK = 4;
/** Payload of an overflow page; bytes. */
const OVERFLOW = PAGE_SIZE - LINK;

interface CachedPage {
  /** 0: the bytes are not valid. */
  number: number;
  bytes: Uint8Array<ArrayBuffer>;
  view: DataView;
}

export class DataPages {
  readonly #fd: number;
  /** Root page of the table `data`. */
  readonly #root: number;
  /** The pages from the root to the leaf that was read last, by level. */
  readonly #path: CachedPage[] = [];
  /** End of the integer that was read last. */
  #at = 0;

  private constructor(fd: number, root: number) {
    this.#fd = fd;
    this.#root = root;
  }

  /** Undefined if the file cannot be read directly. Close it after the database: see `identify`. */
  static open(database: DatabaseSync, file: string): DataPages | undefined {
    if (valueOf(database, "PRAGMA page_size") !== PAGE_SIZE) return undefined;
    const root = valueOf(database, "SELECT rootpage FROM sqlite_schema WHERE name = 'data'");
    if (typeof root !== "number") return undefined;
    try {
      return new DataPages(openSync(file, "r"), root);
    } catch {
      return undefined;
    }
  }

  close(): void {
    closeSync(this.#fd);
  }

  /** Drops all cached pages: the file has changed. */
  invalidate(): void {
    for (const page of this.#path) page.number = 0;
  }

  /**
   * The blob of a row, which is `length` bytes long, in `into` if that is large enough. Undefined:
   * SQLite has to read it. The caller has to check the bytes.
   */
  read(id: number, length: number, into?: ArrayBuffer): Uint8Array<ArrayBuffer> | undefined {
    try {
      return this.#read(id, length, into);
    } catch {
      // Invalid numbers in a page, or a file that cannot be read.
      this.invalidate();
      return undefined;
    }
  }

  #read(id: number, length: number, into?: ArrayBuffer): Uint8Array<ArrayBuffer> | undefined {
    const leaf = this.#find(id);
    if (leaf === undefined) return undefined;
    const { view } = leaf;
    const size = this.#number(view, this.#at);
    this.#number(view, this.#at);
    // The record: its header's length, the key's serial type (0: the rowid), and the blob's serial
    // type, which gives the blob's length.
    const start = this.#at;
    const headerLength = this.#number(view, start);
    if (this.#number(view, this.#at) !== 0) return undefined;
    if (this.#number(view, this.#at) !== 12 + 2 * length) return undefined;
    if (this.#at !== start + headerLength || size !== headerLength + length) return undefined;
    const inLeaf = localLength(size) - headerLength;
    const local = leaf.bytes.subarray(this.#at, this.#at + inLeaf);
    const pages = Math.ceil((length - inLeaf) / OVERFLOW);
    const room = length + pages * LINK;
    const bytes = into !== undefined && into.byteLength >= room
      ? new Uint8Array(into, 0, room)
      : takeBuffer(room);
    if (pages > 0) {
      if (inLeaf < LINK) return undefined;
      const first = view.getUint32(this.#at + inLeaf);
      if (!this.#readChain(first, pages, bytes.subarray(inLeaf - LINK), length - inLeaf)) {
        return undefined;
      }
    }
    bytes.set(local);
    return bytes.subarray(0, length);
  }

  /** The leaf page with the row of this id; sets `#at` to the start of its cell. */
  #find(id: number): CachedPage | undefined {
    let number = this.#root;
    for (let level = 0; level < MOST_LEVELS; level++) {
      const page = this.#load(number, level);
      if (page === undefined) return undefined;
      const { view } = page;
      const type = view.getUint8(0);
      if (type !== LEAF && type !== INTERIOR) return undefined;
      const cells = type === LEAF ? 8 : 12;
      const count = view.getUint16(3);
      // Binary search for the first cell whose key is not below the id.
      let low = 0;
      for (let high = count; low < high;) {
        const middle = (low + high) >> 1;
        if (this.#key(view, view.getUint16(cells + 2 * middle), type) < id) low = middle + 1;
        else high = middle;
      }
      const cell = low < count ? view.getUint16(cells + 2 * low) : undefined;
      if (type === INTERIOR) {
        number = view.getUint32(cell ?? 8);
        continue;
      }
      if (cell === undefined || this.#key(view, cell, type) !== id) return undefined;
      this.#at = cell;
      return page;
    }
    return undefined;
  }

  #key(view: DataView, cell: number, type: number): number {
    // The key follows the child's page number, in a leaf the payload's length.
    if (type === INTERIOR) return this.#number(view, cell + 4);
    this.#number(view, cell);
    return this.#number(view, this.#at);
  }

  #load(number: number, level: number): CachedPage | undefined {
    let page = this.#path[level];
    if (page === undefined) {
      const bytes = new Uint8Array(PAGE_SIZE);
      page = this.#path[level] = { number: 0, bytes, view: new DataView(bytes.buffer) };
    }
    if (page.number === number) return page;
    page.number = 0;
    if (!this.#readAt(number, page.bytes)) return undefined;
    page.number = number;
    return page;
  }

  /** Reads a variable-length integer; sets `#at` to its end. */
  #number(view: DataView, at: number): number {
    let value = 0;
    for (let i = 0; i < 8; i++) {
      const byte = view.getUint8(at + i);
      value = value * 128 + (byte & 127);
      if (byte < 128) {
        this.#at = at + i + 1;
        return value;
      }
    }
    throw new RangeError("a variable-length integer of more than 8 bytes");
  }

  /**
   * Reads `length` bytes from a chain of overflow pages into `into`, after the first LINK bytes.
   * `into` has room for the links of all pages. Consecutive pages are read with one system call.
   */
  #readChain(first: number, pages: number, into: Uint8Array, length: number): boolean {
    const view = new DataView(into.buffer, into.byteOffset, into.byteLength);
    let number = first;
    let guess = pages;
    for (let done = 0; done < pages;) {
      if (number < 2) return false;
      const count = Math.min(guess, pages - done);
      // After the bytes read so far. The first link overwrites their last bytes, which are restored.
      const at = done * OVERFLOW;
      const end = Math.min(at + count * PAGE_SIZE, LINK * count + length);
      const saved = done === 0 ? 0 : view.getUint32(at);
      if (!this.#readAt(number, into.subarray(at, end))) return false;
      let consecutive = 0;
      let link: number;
      do {
        link = view.getUint32(at + consecutive * PAGE_SIZE);
        const from = at + consecutive * PAGE_SIZE + LINK;
        if (consecutive > 0) into.copyWithin(from - consecutive * LINK, from, from + OVERFLOW);
        consecutive++;
      } while (consecutive < count && link === number + consecutive);
      if (done > 0) view.setUint32(at, saved);
      done += consecutive;
      number = link;
      guess = consecutive === count ? count * 2 : 1;
    }
    return true;
  }

  #readAt(number: number, into: Uint8Array): boolean {
    const position = (number - 1) * PAGE_SIZE;
    return readSync(this.#fd, into, 0, into.length, position) === into.length;
  }
}

/** How many bytes of a payload of this size are stored in the leaf page. */
function localLength(size: number): number {
  if (size <= MOST_LOCAL) return size;
  const local = LEAST_LOCAL + (size - LEAST_LOCAL) % OVERFLOW;
  return local <= MOST_LOCAL ? local : LEAST_LOCAL;
}
