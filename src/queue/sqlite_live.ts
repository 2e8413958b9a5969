/**
 * Reads the figures of a queue that another process has locked. SQLite cannot read it then, so this
 * module reads the pages itself and ignores the lock (SQLite's file format, 1.3, 1.6 and 2.1). The
 * other process may be writing them: a reader's row is valid only if its CRC-32 is right.
 */
import { closeSync, openSync, readSync } from "node:fs";
import { QueueError } from "./queue.ts";
import { setTimeout as sleep } from "node:timers/promises";
import { readerOf, type ReaderRow } from "./sqlite_reader.ts";

export interface Figures {
  /** `oldest`: when the reader's first batch was stored; ms since 1970. */
  readers: { row: ReaderRow; oldest: number | undefined }[];
  /** Damaged batches that were set aside. */
  damaged: number;
  freeBytes: number;
}

/** Pause before another attempt: a transaction's pages are written within a few ms. */
const PAUSE_MS = 10;
const ATTEMPTS = 50;

/** Rejects with a QueueError if no consistent figures can be read within about a second. */
export async function readLive(file: string): Promise<Figures> {
  for (let attempt = 1;; attempt++) {
    try {
      return readFigures(file);
    } catch (cause) {
      if (attempt < ATTEMPTS) {
        await sleep(PAUSE_MS);
        continue;
      }
      const { message } = cause as Error;
      throw new QueueError(
        `${file} is open in another process, and its figures cannot be read (${message}): ` +
          "try again, or after that process has ended",
        { cause },
      );
    }
  }
}

function readFigures(file: string): Figures {
  const fd = openSync(file, "r");
  try {
    const pages = new Pages(fd);
    const roots = new Map<Value, number>();
    for (const { values: [kind, name, , root] } of pages.rows(1)) {
      if (kind === "table") roots.set(name!, Number(root));
    }
    const rowsOf = (table: string) => [...pages.rows(roots.get(table) ?? 0)];
    const readers = rowsOf("readers").map(({ id, values }) => {
      const { row, intact } = readerOf([id, ...values.slice(1)]);
      if (!intact) throw new Error("the CRC-32 of a reader's row is wrong");
      const first = row.batches === 0 ? undefined : pages.first(roots.get("batches") ?? 0, row.id);
      return { row, oldest: timeOf(first) };
    });
    return { readers, damaged: rowsOf("damaged").length, freeBytes: pages.free * pages.size };
  } finally {
    closeSync(fd);
  }
}

/** `stored_at` of a batch's row, if plausible: the row may be half written. */
function timeOf(batch: Value[] | undefined): number | undefined {
  const time = batch?.[5];
  return typeof time === "number" && time > 0 && time <= Date.now() + 86_400_000 ? time : undefined;
}

type Value = string | number | null;

/** Values in the order of the columns; the value of an `id INTEGER PRIMARY KEY` is null. */
interface Row {
  id: number;
  values: Value[];
}

/** Trees have about three levels; the limit ends a loop in a tree that is being written. */
const MOST_LEVELS = 10;

/** Reads B-trees from the file. Throws an Error for inconsistent pages. */
class Pages {
  readonly size: number;
  /** Number of free pages. */
  readonly free: number;
  readonly #fd: number;

  constructor(fd: number) {
    this.#fd = fd;
    const header = this.#read(0, 100);
    const size = header.getUint16(16);
    this.size = size === 1 ? 65_536 : size;
    this.free = header.getUint32(36);
  }

  /** All rows of a table. */
  *rows(root: number, levels = MOST_LEVELS): Generator<Row> {
    const page = this.#page(root, levels);
    for (const cell of page.cells()) {
      if (!page.leaf) {
        yield* this.rows(cell.uint32(), levels - 1);
        continue;
      }
      // The payload's length. It is not needed: no row here is long enough for overflow pages.
      cell.varint();
      yield { id: cell.varint(), values: cell.record() };
    }
    if (!page.leaf) yield* this.rows(page.last, levels - 1);
  }

  /** The first row whose first column is `key`, in a table WITHOUT ROWID, which is sorted. */
  first(root: number, key: number): Value[] | undefined {
    const found = this.#atOrAfter(root, key, MOST_LEVELS);
    return found?.[0] === key ? found : undefined;
  }

  #atOrAfter(root: number, key: number, levels: number): Value[] | undefined {
    const page = this.#page(root, levels);
    for (const cell of page.cells()) {
      const before = page.leaf ? undefined : cell.uint32();
      cell.varint();
      const values = cell.record();
      if (Number(values[0]) < key) continue;
      return (before === undefined ? undefined : this.#atOrAfter(before, key, levels - 1)) ??
        values;
    }
    return page.leaf ? undefined : this.#atOrAfter(page.last, key, levels - 1);
  }

  #page(number: number, levels: number): Page {
    if (number < 1 || levels === 0) throw new Error("its pages are inconsistent");
    return new Page(this.#read((number - 1) * this.size, this.size), number === 1 ? 100 : 0);
  }

  #read(at: number, length: number): DataView {
    const bytes = new Uint8Array(length);
    if (readSync(this.#fd, bytes, 0, length, at) < length) throw new Error("it is truncated");
    return new DataView(bytes.buffer);
  }
}

/** A page of a table's or an index's B-tree. */
class Page {
  /** A leaf page has rows and no child pages. */
  readonly leaf: boolean;
  readonly #view: DataView;
  readonly #at: number;

  /** `at`: start of the page's header. */
  constructor(view: DataView, at: number) {
    this.#view = view;
    this.#at = at;
    const kind = view.getUint8(at);
    if (![2, 5, 10, 13].includes(kind)) throw new Error("a page has an unknown type");
    this.leaf = kind >= 10;
  }

  /** The last child page. */
  get last(): number {
    return this.#view.getUint32(this.#at + 8);
  }

  *cells(): Generator<Cursor> {
    const count = this.#view.getUint16(this.#at + 3);
    const pointers = this.#at + (this.leaf ? 8 : 12);
    for (let i = 0; i < count; i++) {
      yield new Cursor(this.#view, this.#view.getUint16(pointers + 2 * i));
    }
  }
}

/** Decodes values from a page, one after the other. */
class Cursor {
  readonly #view: DataView;
  #at: number;

  constructor(view: DataView, at: number) {
    this.#view = view;
    this.#at = at;
  }

  uint32(): number {
    return this.#unsigned(4);
  }

  /** SQLite's variable-length integer: 7 bits per byte, big-endian; 8 bits in the ninth byte. */
  varint(): number {
    let value = 0;
    for (let i = 1; i <= 8; i++) {
      const byte = this.#unsigned(1);
      value = value * 128 + (byte & 127);
      if (byte < 128) return value;
    }
    return value * 256 + this.#unsigned(1);
  }

  /** A record: the serial types of all columns, then their values. */
  record(): Value[] {
    const start = this.#at;
    const end = start + this.varint();
    const kinds: number[] = [];
    while (this.#at < end) kinds.push(this.varint());
    return kinds.map((kind) => this.#value(kind));
  }

  #value(kind: number): Value {
    if (kind === 0) return null;
    if (kind === 7) {
      this.#at += 8;
      return this.#view.getFloat64(this.#at - 8);
    }
    if (kind === 8 || kind === 9) return kind - 8;
    if (kind < 7) return this.#signed(kind === 5 ? 6 : kind === 6 ? 8 : kind);
    const length = Math.floor((kind - 12) / 2);
    const bytes = new Uint8Array(this.#view.buffer, this.#at, length);
    this.#at += length;
    return new TextDecoder().decode(bytes);
  }

  #signed(length: number): number {
    const sign = this.#view.getInt8(this.#at) < 0 ? 256 ** length : 0;
    return this.#unsigned(length) - sign;
  }

  #unsigned(length: number): number {
    let value = 0;
    for (let i = 0; i < length; i++) value = value * 256 + this.#view.getUint8(this.#at++);
    return value;
  }
}
