/** A stream over a log that is in memory, so that a test says what the disk does, and when. */
import {
  type Amount,
  type Batch,
  type Cursor,
  endOf,
  type Log,
  type Origin,
  QueueFull,
  type StoredBatch,
  wallClockMs,
} from "../src/queue/queue.ts";
import { MemoryBudget } from "../src/relay/memory_budget.ts";
import { Stream, type StreamOptions } from "../src/relay/stream.ts";
import type { CursorConnection, Hole, StreamCursor } from "../src/relay/stream_cursor.ts";
import { policyOf } from "../src/send/overflow.ts";
import { settle } from "./made_clock.ts";

/** Bytes of a message. */
export const SIZE = 10;
/** Bytes of the longest batch. */
export const BATCH = 100;
/** High and low watermark. */
export const BOUND = 100;
export const RESUME = 40;
/** Of memory. */
export const LIMIT = 1000;

export class MadeCursor implements Cursor {
  readonly name: string;
  offset: number;
  durable: number;
  acknowledges = false;
  forgotten = 0;

  constructor(name: string, offset: number) {
    this.name = name;
    this.offset = this.durable = offset;
  }

  release(offset: number): void {
    this.offset = offset;
  }

  async seek(offset: number): Promise<void> {
    await null;
    this.offset = offset;
  }

  async setAcknowledges(): Promise<void> {
    await null;
    this.acknowledges = true;
  }

  async forget(): Promise<void> {
    await null;
    this.forgotten++;
  }
}

export class MadeLog implements Log {
  readonly key = "";
  readonly stream = "0123456789abcdef";
  readonly epoch = 1;
  largestBatch = BATCH;
  start = 0;
  end = 0;
  durableEnd = 0;
  reserved = 0;
  repairedEnd = 0;
  closedEnd = 0;
  origin: Origin = { shift: 0, since: 0 };
  cursors: MadeCursor[] = [];
  batches: StoredBatch[] = [];
  damaged: Hole[] = [];
  full: "max" | "disk" | undefined;
  /** What it was told, in order. */
  calls: string[] = [];
  /** What fails. */
  failing: string | undefined;
  /** What has to wait, and for what. */
  readonly held: Map<string, Promise<void>> = new Map();

  get bytes(): number {
    return this.after(0).bytes;
  }

  get segments(): number {
    return this.batches.length;
  }

  get oldestMs(): number | undefined {
    return this.batches[0]?.storedAtMs;
  }

  get oldestSegmentMs(): number | undefined {
    return this.batches[0]?.storedAtMs;
  }

  async #called(what: string, ...more: readonly (string | number)[]): Promise<void> {
    this.calls.push([what, ...more].join(" "));
    await this.held.get(what);
    if (this.failing === what) throw new Error(`no ${what}`);
  }

  /** Stores whole messages from an offset on, before the test begins. */
  store(offset: number, bytes: number): void {
    this.#add({ offset, bytes: bytesFrom(offset, bytes), messages: bytes / SIZE });
    this.durableEnd = this.end;
  }

  #add(batch: Batch): void {
    if (this.batches.length === 0) this.start = batch.offset;
    this.batches.push({ ...batch, bytes: batch.bytes.slice(), storedAtMs: wallClockMs() });
    this.end = endOf(batch);
  }

  async append(batch: Batch, after?: number): Promise<void> {
    await this.#called("append", batch.offset, endOf(batch));
    if (this.full !== undefined) throw new QueueFull("full", this.full);
    if (after !== undefined && after !== this.end) throw new Error("it does not end there");
    this.#add(batch);
  }

  async read(offset: number): Promise<StoredBatch | null> {
    await this.#called("read", offset);
    return this.batches.find((batch) => endOf(batch) > offset) ?? null;
  }

  batchEnd(offset: number): number | undefined {
    const batch = this.batches.find((batch) => endOf(batch) > offset);
    return batch && endOf(batch);
  }

  storedAtMs(offset: number): number | undefined {
    return this.batches.find((batch) => endOf(batch) > offset)?.storedAtMs;
  }

  after(offset: number): Amount {
    const amount = { bytes: 0, messages: 0 };
    for (const batch of this.batches) {
      const bytes = Math.max(0, Math.min(batch.bytes.length, endOf(batch) - offset));
      amount.bytes += bytes;
      amount.messages += Math.round(batch.messages * bytes / batch.bytes.length);
    }
    return amount;
  }

  isDamaged(from: number, to: number): boolean {
    return this.damaged.some((hole) => from < hole.to && to > hole.from);
  }

  async reserve(offset: number): Promise<void> {
    await this.#called("reserve", offset);
    this.reserved = offset;
  }

  async setOrigin(origin: Origin): Promise<void> {
    await this.#called("setOrigin");
    this.origin = origin;
  }

  async openCursor(name: string, offset: number): Promise<Cursor> {
    await this.#called("openCursor", name, offset);
    const cursor = new MadeCursor(name, offset);
    this.cursors.push(cursor);
    return cursor;
  }

  async settled(): Promise<void> {
    await this.#called("settled");
    this.durableEnd = this.end;
    for (const cursor of this.cursors) cursor.durable = cursor.offset;
  }

  async dropOldest(): Promise<number> {
    await this.#called("dropOldest");
    this.batches.shift();
    this.start = this.batches[0]?.offset ?? this.end;
    return this.start;
  }
}

/** A connection of which the kernel accepts bytes, until it is stuck. */
export class MadeConnection implements CursorConnection {
  blockedSince: number | undefined;
}

/** The stream's bytes: each is told by its offset. */
export const bytesFrom = (offset: number, length: number): Uint8Array =>
  Uint8Array.from({ length }, (_, i) => (offset + i) % 251);

export interface MadeStream {
  stream: Stream;
  log: MadeLog;
  memory: MemoryBudget;
  /** Its events, in order, each with the reader that it is about. */
  events: unknown[];
  /** How often something was new, and safe. */
  told: { fresh: number; safe: number };
  errors: string[];
  /** Pushes messages of 10 bytes from this position of the source on; else at the end. */
  push(bytes: number, position?: number): void | Promise<void>;
  /** Adds a reader that is connected, unless `away`. */
  add(name: string, offset: number, away?: "away"): Promise<StreamCursor>;
}

/** `log`: what differs from an empty one; null: there is none. */
export function made(
  { log: given = {}, limit = LIMIT, ...options }:
    & { log?: Partial<MadeLog> | MadeLog | null; limit?: number }
    & Partial<Omit<StreamOptions, "log">> = {},
): MadeStream {
  const log = given instanceof MadeLog ? given : Object.assign(new MadeLog(), given);
  const memory = new MemoryBudget(limit);
  const events: unknown[] = [];
  const told = { fresh: 0, safe: 0 };
  const errors: string[] = [];
  const stream = new Stream({
    log: given === null ? undefined : log,
    replayable: true,
    policy: policyOf("spill"),
    bound: BOUND,
    resumeBelow: RESUME,
    whenFull: "block",
    durable: false,
    memory,
    floor: (_, offset) => offset - offset % SIZE,
    onEvent: (event, cursor) => events.push(cursor ? { of: cursor.name, ...event } : event),
    onNew: () => told.fresh++,
    onSafe: () => told.safe++,
    onError: ({ message }) => errors.push(message),
    ...options,
  });
  return {
    ...{ stream, log, memory, events, told, errors },
    push(bytes, position = stream.position) {
      const offset = position - (stream.position - stream.tail);
      return stream.push(bytesFrom(offset, bytes), bytes / SIZE, position);
    },
    async add(name, offset, away) {
      const cursor = await atOnce(stream.addCursor(name, offset, true));
      if (away === undefined) stream.attach(cursor, new MadeConnection(), offset);
      else cursor.end();
      return cursor;
    },
  };
}

/** What it resolves to, without any waiting for time: else it fails. */
export async function atOnce<T>(promise: T | Promise<T>): Promise<T> {
  const none = Symbol();
  let value: T | typeof none = none;
  let failure: unknown = none;
  Promise.resolve(promise).then((each) => value = each, (error) => failure = error);
  for (let i = 0; i < 10 && value === none && failure === none; i++) await settle();
  if (failure !== none) throw failure;
  if (value === none) throw new Error("it does not resolve at once");
  return value;
}

/** The reader's next bytes: where they are, whether in memory, and the block's offset and length. */
export async function nextOf(stream: Stream, cursor: StreamCursor): Promise<unknown> {
  const next = await atOnce(stream.next(cursor));
  if (typeof next !== "object") return next;
  const { bytes, block, whole } = next;
  const end = cursor.sent + bytes.length;
  const wrong = bytesFrom(cursor.sent, bytes.length).some((byte, i) => byte !== bytes[i]);
  if (wrong || (block !== undefined && block !== whole)) return "other bytes";
  return [block === undefined ? "disk" : "memory", cursor.sent, end, whole.offset, whole.messages];
}

/** All that can be sent to this reader, as `nextOf`; the kernel accepts all of it. */
export async function allOf(stream: Stream, cursor: StreamCursor): Promise<unknown[]> {
  const all: unknown[] = [];
  for (let i = 0; i < 50; i++) {
    const next = await nextOf(stream, cursor);
    if (next === undefined) return all;
    all.push(next);
    if (typeof next === "number") stream.skip(cursor, next);
    else if (Array.isArray(next)) stream.accept(cursor, (next[2] as number) - cursor.sent);
  }
  throw new Error("it does not end");
}
