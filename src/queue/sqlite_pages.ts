/**
 * Reads the bytes of batches straight from the pages of SQLite's file (SQLite's file format, 1.5, 1.6
 * and 2.1): 1 MiB a system call into a buffer that is used again, where a query makes a new one for
 * each batch, which takes up to twenty times as long (Deno 2.9.5) and leaves the garbage of 1 GB/s.
 *
 * Only between the transactions of the process that holds the file; then the file is as SQLite sees
 * it. Whatever is not as it should be is left to SQLite, and a CRC is the caller's.
 */
import { closeSync, openSync, readSync } from "node:fs";
import type { DatabaseSync } from "node:sqlite";
import { PAGE_SIZE, valueOf } from "./sqlite_file.ts";
import { takeBuffer } from "./buffers.ts";

/** The first byte of a page of a table. */
const LEAF = 13;
const INTERIOR = 5;
/** Levels of a table: a page has thousands of children. */
const MOST_LEVELS = 5;
/** What of a payload lies in the leaf itself, at most and at least, on pages of this size. */
const MOST_LOCAL = PAGE_SIZE - 35;
const LEAST_LOCAL = Math.floor((PAGE_SIZE - 12) * 32 / 255) - 23;
/** In front of what an overflow page holds: the number of the next one. */
const LINK = 4;
const OVERFLOW = PAGE_SIZE - LINK;

interface CachedPage {
  /** 0: none. */
  number: number;
  bytes: Uint8Array<ArrayBuffer>;
  view: DataView;
}

export class DataPages {
  readonly #fd: number;
  /** Of the table `data`. */
  readonly #root: number;
  /** The pages on the way to the batch that was read last, by their level. */
  readonly #way: CachedPage[] = [];
  /** Behind the number that was read last. */
  #at = 0;

  private constructor(fd: number, root: number) {
    this.#fd = fd;
    this.#root = root;
  }

  /** Undefined: SQLite has to read all. To be closed after the database: see `identify`. */
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

  /** The file has changed. */
  forget(): void {
    for (const page of this.#way) page.number = 0;
  }

  /**
   * The so many bytes of a row, in `into` if it is large enough; undefined: SQLite has to read them.
   * What they are has to be checked.
   */
  read(id: number, length: number, into?: ArrayBuffer): Uint8Array<ArrayBuffer> | undefined {
    try {
      return this.#read(id, length, into);
    } catch {
      // Numbers that lead nowhere, or a file that cannot be read.
      this.forget();
      return undefined;
    }
  }

  #read(id: number, length: number, into?: ArrayBuffer): Uint8Array<ArrayBuffer> | undefined {
    const leaf = this.#find(id);
    if (leaf === undefined) return undefined;
    const { view } = leaf;
    const size = this.#number(view, this.#at);
    this.#number(view, this.#at);
    // The record: its header's length, the key's type, which says that it is the row's number, and
    // the type of a blob, which tells its length.
    const start = this.#at;
    const headerLength = this.#number(view, start);
    if (this.#number(view, this.#at) !== 0) return undefined;
    if (this.#number(view, this.#at) !== 12 + 2 * length) return undefined;
    if (this.#at !== start + headerLength || size !== headerLength + length) return undefined;
    const inLeaf = localLength(size) - headerLength;
    const own = leaf.bytes.subarray(this.#at, this.#at + inLeaf);
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
    bytes.set(own);
    return bytes.subarray(0, length);
  }

  /** The leaf with the row of this number, whose cell begins at `#at` then. */
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
      // The first cell whose key is not below it.
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
    // In front of it: in a leaf the payload's length, else the child's number.
    if (type === INTERIOR) return this.#number(view, cell + 4);
    this.#number(view, cell);
    return this.#number(view, this.#at);
  }

  #load(number: number, level: number): CachedPage | undefined {
    let page = this.#way[level];
    if (page === undefined) {
      const bytes = new Uint8Array(PAGE_SIZE);
      page = this.#way[level] = { number: 0, bytes, view: new DataView(bytes.buffer) };
    }
    if (page.number === number) return page;
    page.number = 0;
    if (!this.#readAt(number, page.bytes)) return undefined;
    page.number = number;
    return page;
  }

  /** A variable-length integer; `#at` is behind it then. */
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
    throw new RangeError("past what a number holds");
  }

  /**
   * Reads `length` bytes off a chain of overflow pages: they begin behind a link's room in `into`,
   * which has room for all links. Pages that lie behind one another are read at once.
   */
  #readChain(first: number, pages: number, into: Uint8Array, length: number): boolean {
    const view = new DataView(into.buffer, into.byteOffset, into.byteLength);
    let number = first;
    let guess = pages;
    for (let done = 0; done < pages;) {
      if (number < 2) return false;
      const count = Math.min(guess, pages - done);
      // Behind what is there already, whose last bytes are where the first link goes.
      const at = done * OVERFLOW;
      const end = Math.min(at + count * PAGE_SIZE, LINK * count + length);
      const saved = done === 0 ? 0 : view.getUint32(at);
      if (!this.#readAt(number, into.subarray(at, end))) return false;
      let good = 0;
      let link: number;
      do {
        link = view.getUint32(at + good * PAGE_SIZE);
        const from = at + good * PAGE_SIZE + LINK;
        if (good > 0) into.copyWithin(from - good * LINK, from, from + OVERFLOW);
        good++;
      } while (good < count && link === number + good);
      if (done > 0) view.setUint32(at, saved);
      done += good;
      number = link;
      guess = good === count ? count * 2 : 1;
    }
    return true;
  }

  #readAt(number: number, into: Uint8Array): boolean {
    const position = (number - 1) * PAGE_SIZE;
    return readSync(this.#fd, into, 0, into.length, position) === into.length;
  }
}

/** How much of a payload of this size lies in the leaf. */
function localLength(size: number): number {
  if (size <= MOST_LOCAL) return size;
  const local = LEAST_LOCAL + (size - LEAST_LOCAL) % OVERFLOW;
  return local <= MOST_LOCAL ? local : LEAST_LOCAL;
}
