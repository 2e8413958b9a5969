/**
 * The figures of a queue that another process has open. SQLite lets nobody else in then, so the few
 * pages that hold them are read here, past its locks (SQLite's file format, 1.3, 1.6 and 2.1). They
 * may be written at this very moment: a reader's row counts only if its CRC-32 is right.
 */
import { closeSync, openSync, readSync } from "node:fs";
import { QueueError } from "./queue.ts";
import { setTimeout as sleep } from "node:timers/promises";
import { readerOf, type ReaderRow } from "./sqlite_reader.ts";

export interface Figures {
  /** `oldest`: when the first batch of what waits for it was stored; ms since 1970. */
  readers: { row: ReaderRow; oldest: number | undefined }[];
  /** Batches that were set aside. */
  damaged: number;
  freeBytes: number;
}

/** A transaction's pages are written within some ms. */
const PAUSE_MS = 10;
const ATTEMPTS = 50;

/** Rejects with a QueueError when they cannot be made out in a second or so. */
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
        `${file} is open in another process, and its figures cannot be made out (${message}): ` +
          "try again, or once that process has ended",
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
      if (!intact) throw new Error("the row of a reader does not fit its CRC-32");
      const first = row.batches === 0 ? undefined : pages.first(roots.get("batches") ?? 0, row.id);
      return { row, oldest: timeOf(first) };
    });
    return { readers, damaged: rowsOf("damaged").length, freeBytes: pages.free * pages.size };
  } finally {
    closeSync(fd);
  }
}

/** `stored_at` of a batch. */
function timeOf(batch: Value[] | undefined): number | undefined {
  const time = batch?.[5];
  // A row that was just being written says anything.
  return typeof time === "number" && time > 0 && time <= Date.now() + 86_400_000 ? time : undefined;
}

type Value = string | number | null;

/** In the order of the columns; of a table's `id INTEGER PRIMARY KEY` the first one is null. */
interface Row {
  id: number;
  values: Value[];
}

/** A tree has some three levels; what is being written may go in circles. */
const MOST_LEVELS = 10;

/** Trees of pages as they stand in the file. Throws an Error where they make no sense. */
class Pages {
  readonly size: number;
  /** Pages that nothing is on. */
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
      // The length of what follows: no row here is so long that it goes on on another page.
      cell.varint();
      yield { id: cell.varint(), values: cell.record() };
    }
    if (!page.leaf) yield* this.rows(page.last, levels - 1);
  }

  /** The first row that begins with `key`, in a table WITHOUT ROWID, which is in order. */
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
    if (number < 1 || levels === 0) throw new Error("its pages do not belong together");
    return new Page(this.#read((number - 1) * this.size, this.size), number === 1 ? 100 : 0);
  }

  #read(at: number, length: number): DataView {
    const bytes = new Uint8Array(length);
    if (readSync(this.#fd, bytes, 0, length, at) < length) throw new Error("it ends too soon");
    return new DataView(bytes.buffer);
  }
}

/** A page of a table's tree, or of an index's. */
class Page {
  /** It has rows, and no pages below it. */
  readonly leaf: boolean;
  readonly #view: DataView;
  readonly #at: number;

  /** `at`: where its header begins. */
  constructor(view: DataView, at: number) {
    this.#view = view;
    this.#at = at;
    const kind = view.getUint8(at);
    if (![2, 5, 10, 13].includes(kind)) throw new Error("one of its pages is none of a table");
    this.leaf = kind >= 10;
  }

  /** The page below it with what comes last. */
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

/** Takes what is on a page one after the other. */
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

  /** 7 bits a byte, the highest first; 8 in the ninth. */
  varint(): number {
    let value = 0;
    for (let i = 1; i <= 8; i++) {
      const byte = this.#unsigned(1);
      value = value * 128 + (byte & 127);
      if (byte < 128) return value;
    }
    return value * 256 + this.#unsigned(1);
  }

  /** The kinds of all columns, then their values. */
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
