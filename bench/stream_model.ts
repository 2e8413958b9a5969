/**
 * Random operations on a `Stream`, compared with a model: what byte a reader must get at each offset is
 * known, and whether it may miss any. The log is one in memory whose steps are done one by one, so that a
 * kill can come between any two of them.
 */
import { assert, assertEquals, assertGreaterOrEqual } from "#std/assert";
import {
  type Amount,
  type Batch,
  type Cursor,
  endOf,
  type Log,
  messagesIn,
  type Origin,
  QueueError,
  QueueFull,
  type StoredBatch,
} from "../src/queue/queue.ts";
import { MemoryBudget } from "../src/relay/memory_budget.ts";
import { policyOf } from "../src/send/overflow.ts";
import { Stream } from "../src/relay/stream.ts";
import type { StreamCursor } from "../src/relay/stream_cursor.ts";
import type { WhenFull } from "../src/relay/stream_event.ts";
import { randomFrom } from "./random.ts";

/** Bytes of a message. */
const SIZE = 10;

export interface ModelOptions {
  seed: number;
  /** Number of operations. */
  steps: number;
  replayable: boolean;
  whenFull: WhenFull;
  durable: boolean;
  /** Bytes that the disk takes; Infinity: all. */
  disk: number;
  /** Chance of a kill at each operation. */
  kills: number;
  /** Chance that the upstream is replaced at each operation. */
  replacements: number;
}

/** What differs between the streams that are tried. */
export const MODELS: Record<string, Omit<ModelOptions, "seed" | "steps" | "kills">> = {
  "that can be read again": {
    ...{ replayable: true, whenFull: "block", durable: false, disk: Infinity, replacements: 0 },
  },
  "that is stored before it is delivered": {
    ...{ replayable: true, whenFull: "block", durable: true, disk: Infinity, replacements: 0 },
  },
  "whose disk is full again and again": {
    ...{ replayable: true, whenFull: "block", durable: false, disk: 3000, replacements: 0 },
  },
  "that cannot be read again": {
    ...{ replayable: false, whenFull: "block", durable: false, disk: Infinity, replacements: 0 },
  },
  "whose newest messages are dropped": {
    ...{ replayable: false, whenFull: "drop-newest", durable: false, disk: 3000, replacements: 0 },
  },
  "whose oldest messages are dropped": {
    ...{ replayable: true, whenFull: "drop-oldest", durable: false, disk: 3000, replacements: 0 },
  },
  "whose upstream is replaced": {
    ...{ replayable: true, whenFull: "block", durable: false, disk: Infinity, replacements: 0.001 },
  },
};

/** What has happened. */
export interface ModelRun {
  pushed: number;
  delivered: number;
  kills: number;
  restarts: number;
  stored: number;
  gaps: number;
}

/** What survives a kill. */
class Disk {
  records: StoredBatch[] = [];
  readonly cursors: Map<string, { offset: number; acknowledges: boolean }> = new Map();
  reserved = 0;
  origin: Origin = { shift: 0, since: 0 };
  most: number;
  stored = 0;

  constructor(most: number) {
    this.most = most;
  }

  get used(): number {
    return this.records.reduce((sum, { bytes }) => sum + bytes.length, 0);
  }
}

class ModelCursor implements Cursor {
  readonly name: string;
  offset: number;
  durable: number;
  acknowledges: boolean;
  readonly #log: ModelLog;

  constructor(log: ModelLog, name: string, offset: number, acknowledges: boolean) {
    this.#log = log;
    this.name = name;
    this.offset = this.durable = offset;
    this.acknowledges = acknowledges;
  }

  release(offset: number): void {
    this.offset = Math.max(this.offset, offset);
  }

  async seek(offset: number): Promise<void> {
    this.offset = offset;
    await this.#log.settled();
  }

  async setAcknowledges(): Promise<void> {
    this.acknowledges = true;
    await this.#log.settled();
  }

  forget(): Promise<void> {
    return this.#log.remove(this.name);
  }
}

/** A log whose steps are done by `turn`. */
class ModelLog implements Log {
  readonly key = "";
  readonly stream: string = "0".repeat(16);
  readonly largestBatch = 200;
  readonly epoch = 1;
  readonly segments = 1;
  readonly oldestMs = undefined;
  readonly oldestSegmentMs = undefined;
  readonly repairedEnd = 0;
  readonly closedEnd = 0;
  end: number;
  readonly disk: Disk;
  readonly #steps: (() => void)[] = [];
  readonly #live: Map<string, ModelCursor> = new Map();

  constructor(disk: Disk) {
    this.disk = disk;
    for (const [name, { offset, acknowledges }] of disk.cursors) {
      this.#live.set(name, new ModelCursor(this, name, offset, acknowledges));
    }
    const offsets = [...disk.cursors.values()].map(({ offset }) => offset);
    const last = disk.records.at(-1);
    const least = offsets.length === 0 ? 0 : Math.min(...offsets);
    this.end = last === undefined ? least : endOf(last);
  }

  get durableEnd(): number {
    return this.end;
  }

  get start(): number {
    return this.disk.records[0]?.offset ?? this.end;
  }

  get bytes(): number {
    return this.disk.used;
  }

  get reserved(): number {
    return this.disk.reserved;
  }

  get origin(): Origin {
    return this.disk.origin;
  }

  get cursors(): Cursor[] {
    return [...this.#live.values()];
  }

  /** Does the next step; false if no step is left. */
  turn(): boolean {
    const step = this.#steps.shift();
    step?.();
    return step !== undefined;
  }

  #step<T>(work: () => T): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    this.#steps.push(() => {
      try {
        resolve(work());
      } catch (error) {
        reject(error);
      }
    });
    return promise;
  }

  append(batch: Batch, after: number): Promise<void> {
    const stored = { ...batch, bytes: batch.bytes.slice(), storedAtMs: 0 };
    return this.#step(() => {
      const { disk } = this;
      if (after !== this.end) throw new QueueError("one before it failed");
      if (disk.used + stored.bytes.length > disk.most) throw new QueueFull("full", "max");
      assertGreaterOrEqual(stored.offset, this.end, "appended before the end");
      disk.records.push(stored);
      disk.stored += stored.bytes.length;
      this.end = endOf(stored);
    });
  }

  read(offset: number): Promise<StoredBatch | null> {
    return this.#step(() => this.disk.records.find((batch) => endOf(batch) > offset) ?? null);
  }

  batchEnd(offset: number): number | undefined {
    const batch = this.disk.records.find((batch) => endOf(batch) > offset);
    return batch !== undefined && batch.offset <= offset ? endOf(batch) : undefined;
  }

  storedAtMs(offset: number): number | undefined {
    return this.disk.records.find((batch) => endOf(batch) > offset)?.storedAtMs;
  }

  after(offset: number): Amount {
    const amount = { bytes: 0, messages: 0 };
    for (const batch of this.disk.records) {
      const bytes = Math.max(0, Math.min(batch.bytes.length, endOf(batch) - offset));
      amount.bytes += bytes;
      amount.messages += messagesIn(bytes, batch.bytes.length, batch.messages);
    }
    return amount;
  }

  isDamaged(): boolean {
    return false;
  }

  reserve(offset: number): Promise<void> {
    // To a whole message, so that messages begin at multiples of their size after a kill, too.
    return this.#step(() => void (this.disk.reserved = Math.ceil(offset / SIZE) * SIZE));
  }

  setOrigin(origin: Origin): Promise<void> {
    return this.#step(() => void (this.disk.origin = origin));
  }

  async openCursor(name: string, offset: number): Promise<Cursor> {
    const cursor = this.#live.get(name) ?? new ModelCursor(this, name, offset, false);
    this.#live.set(name, cursor);
    await this.settled();
    return cursor;
  }

  settled(): Promise<void> {
    const cursors = [...this.#live.values()].map((cursor) => ({ cursor, offset: cursor.offset }));
    return this.#step(() => {
      for (const { cursor, offset } of cursors) {
        if (!this.#live.has(cursor.name)) continue;
        this.disk.cursors.set(cursor.name, { offset, acknowledges: cursor.acknowledges });
        cursor.durable = offset;
      }
      // Without a reader that is recorded, nobody would know after a kill where the stream was.
      if (this.disk.cursors.size === 0) return;
      const needed = Math.min(...[...this.#live.values()].map(({ durable }) => durable));
      this.disk.records = this.disk.records.filter((batch) => endOf(batch) > needed);
    });
  }

  remove(name: string): Promise<void> {
    this.#live.delete(name);
    return this.#step(() => void this.disk.cursors.delete(name));
  }

  dropOldest(): Promise<number> {
    return this.#step(() => {
      this.disk.records.shift();
      return this.start;
    });
  }
}

/** A reader as it sees itself. */
interface ModelReader {
  name: string;
  acknowledges: boolean;
  /** It has all bytes before, but for gaps; undefined: it has never been connected. */
  has: number | undefined;
  /** What it has acknowledged. */
  acked: number;
  cursor: StreamCursor | undefined;
  /** An operation of it is in progress. */
  busy: boolean;
  /** Number of its connection. */
  connection: number;
}

const byteOf = (index: number, at: number): number => (index * 31 + at * 7 + (index >> 8)) & 255;

/** Runs random operations; throws an AssertionError if a reader gets what it must not. */
export async function runModel(options: ModelOptions): Promise<ModelRun> {
  const random = randomFrom(options.seed);
  const below = (most: number) => Math.floor(random() * most);
  const chance = (share: number) => random() < share;
  const { replayable, whenFull, durable } = options;
  const lossless = replayable && whenFull === "block" && options.replacements === 0;
  const run: ModelRun = { pushed: 0, delivered: 0, kills: 0, restarts: 0, stored: 0, gaps: 0 };

  const disk = new Disk(options.disk);
  /** By number of the message in the stream: which one of the source it is. */
  const pushed = new Map<number, number>();
  /** The same, of those of which a reader that acknowledges has got a byte. */
  const received = new Map<number, number>();
  /** The upstream's generation, its end, and what it may have deleted; positions in bytes. */
  let generation = 0;
  let produced = 0;
  let safe = 0;
  const indexAt = (position: number) => generation * 100_000 + position / SIZE;

  const readers: ModelReader[] = [];
  let log!: ModelLog;
  let stream!: Stream;
  /** Where the source stands in this life; undefined: a push is in progress. */
  let sourceAt: number | undefined;
  let failure: Error | undefined;
  let life = 0;

  const begin = () => {
    life++;
    const own = life;
    log = new ModelLog(disk);
    stream = new Stream({
      log,
      replayable,
      policy: policyOf("spill"),
      bound: 300,
      resumeBelow: 100,
      whenFull,
      durable,
      memory: new MemoryBudget(2000),
      floor: (_, offset) => offset - offset % SIZE,
      onEvent() {},
      onNew() {},
      onSafe() {
        if (own !== life || !replayable) return;
        const position = stream.safePosition;
        if (position === undefined) return;
        assert(position <= produced, `safe position ${position}, produced ${produced}`);
        safe = Math.max(safe, position);
      },
      onError: (error) => failure ??= error,
    });
    // An upstream that is not known begins with the oldest that it has.
    if (replayable && stream.originStream !== String(generation)) {
      stream.follow(String(generation), safe);
    }
    sourceAt = replayable ? stream.position : produced;
    if (replayable && options.replacements === 0) {
      assertGreaterOrEqual(sourceAt, safe, "the source has deleted what is needed");
    }
    for (const reader of readers) {
      reader.cursor = undefined;
      reader.busy = false;
      reader.connection++;
    }
  };
  begin();

  const note = (start: number, position: number, count: number) => {
    for (let i = 0; i < count; i++) {
      const number = start / SIZE + i;
      const index = indexAt(position + i * SIZE);
      const known = received.get(number);
      assert(known === undefined || known === index, `offset ${number * SIZE} is used twice`);
      pushed.set(number, index);
    }
  };

  const push = () => {
    if (sourceAt === undefined) return;
    const own = life;
    const position = sourceAt;
    const count = 1 + below(8);
    const bytes = new Uint8Array(count * SIZE);
    for (let i = 0; i < bytes.length; i++) {
      bytes[i] = byteOf(indexAt(position + i - i % SIZE), i % SIZE);
    }
    produced = Math.max(produced, position + bytes.length);
    const before = stream.tail;
    const pushing = stream.push(bytes, count, replayable ? position : 0);
    // It waits until the origin is recorded.
    const waits = stream.tail === before;
    if (!waits) note(stream.tail - bytes.length, position, count);
    run.pushed += count;
    sourceAt = undefined;
    const done = () => {
      if (own !== life) return;
      sourceAt = position + bytes.length;
      if (waits) note(stream.tail - bytes.length, position, count);
    };
    if (pushing instanceof Promise) void pushing.then(done);
    else done();
  };

  const missed = (reader: ModelReader, from: number, to: number) => {
    if (to <= from) return;
    run.gaps++;
    assert(!lossless, `${reader.name} misses ${from} to ${to}`);
  };

  /** One operation of a reader, in the background. */
  const act = (reader: ModelReader, work: () => Promise<void>) => {
    if (reader.busy) return;
    reader.busy = true;
    const own = life;
    work().then(
      () => {
        if (own === life) reader.busy = false;
      },
      (error) => failure ??= error,
    );
  };

  const connect = (reader: ModelReader) =>
    act(reader, async () => {
      const own = life;
      // What an earlier process had not recorded is not known any more.
      if (stream.cursorOf(reader.name) === undefined) reader.has = undefined;
      const cursor = stream.cursorOf(reader.name) ??
        await stream.addCursor(reader.name, stream.tail);
      if (own !== life) return;
      reader.cursor = cursor;
      const connection = { blockedSince: undefined };
      if (!reader.acknowledges) {
        const at = await stream.startOfMessage(cursor);
        if (own !== life) return;
        if (reader.has !== undefined) missed(reader, reader.has, at);
        reader.has = at;
        reader.connection++;
        stream.attach(cursor, connection, at);
        return;
      }
      const requested = reader.has ?? cursor.delivered;
      assert(requested <= Math.max(cursor.offered, stream.tail), `${requested} was never offered`);
      const at = await stream.available(cursor, Math.max(requested, cursor.delivered));
      if (own !== life) return;
      if (reader.has !== undefined) missed(reader, reader.has, at);
      reader.has = at;
      stream.acknowledge(cursor, at);
      reader.connection++;
      stream.attach(cursor, connection, at);
    });

  const disconnect = (reader: ModelReader) => {
    const { cursor } = reader;
    if (cursor === undefined || !cursor.connected || reader.busy) return;
    // It stores more than it has acknowledged, or not.
    if (reader.acknowledges && chance(0.5)) reader.has = Math.max(reader.acked, cursor.delivered);
    stream.detach(cursor);
  };

  const send = (reader: ModelReader) =>
    act(reader, async () => {
      const own = life;
      const cursor = reader.cursor!;
      const answer = stream.next(cursor);
      const next = answer instanceof Promise ? await answer : answer;
      if (own !== life || next === undefined) return;
      if (typeof next === "number") {
        if (next <= cursor.sent) return;
        missed(reader, cursor.sent, next);
        stream.skip(cursor, next);
        if (reader.acknowledges) stream.detach(cursor);
        else reader.has = next;
        return;
      }
      const length = chance(0.5) ? next.bytes.length : 1 + below(next.bytes.length);
      if (reader.acknowledges) {
        if (next.block !== undefined) next.block.pins++;
        await stream.reserve(cursor.sent + length);
        if (own !== life) return;
        if (next.block !== undefined) next.block.pins--;
      }
      for (let i = 0; i < length; i++) {
        const offset = cursor.sent + i;
        const number = Math.floor(offset / SIZE);
        const index = pushed.get(number);
        assert(index !== undefined, `nothing was pushed at ${offset}`);
        assertEquals(next.bytes[i], byteOf(index, offset % SIZE), `at ${offset}`);
        // Only readers that acknowledge know offsets.
        if (reader.acknowledges) received.set(number, index);
      }
      assertEquals(cursor.sent, reader.has, "not where the reader is");
      reader.has = cursor.sent + length;
      run.delivered += length;
      stream.accept(cursor, length);
      if (!reader.acknowledges) stream.acknowledge(cursor, cursor.sent);
    });

  const acknowledge = (reader: ModelReader) => {
    const { cursor, has } = reader;
    if (cursor === undefined || !cursor.connected || !reader.acknowledges) return;
    reader.acked = cursor.delivered + below(has! - cursor.delivered + 1);
    stream.acknowledge(cursor, reader.acked);
  };

  const turns = async (most: number) => {
    for (let i = 0; i < most && log.turn(); i++) await settle();
    await settle();
  };

  const store = async () => {
    let stored = false;
    stream.unblockSource();
    for (const reader of readers) {
      while (reader.busy) await turns(10);
      if (reader.cursor?.connected) stream.detach(reader.cursor);
    }
    void stream.store().then(() => stored = true);
    for (let i = 0; !stored; i++) {
      await turns(10);
      assert(i < 10_000, "store does not end");
    }
  };

  const replace = () => {
    generation++;
    produced = safe = 0;
    sourceAt = 0;
    stream.follow(String(generation), 0);
  };

  for (let step = 0; step < options.steps; step++) {
    const reader = readers[below(readers.length)];
    const what = random();
    if (what < 0.3) push();
    else if (what < 0.5) await turns(1 + below(4));
    else if (what < 0.53) stream.review();
    else if (what < 0.55) stream.record().catch((error) => failure ??= error);
    else if (what < 0.57 && readers.length < 5 || readers.length === 0) {
      const acknowledges = chance(0.6);
      const name = `reader ${readers.length}`;
      const fresh = { name, acknowledges, has: undefined, acked: 0, cursor: undefined };
      readers.push({ ...fresh, busy: false, connection: 0 });
    } else if (reader !== undefined) {
      if (what < 0.62) {
        if (!reader.cursor?.connected) connect(reader);
      } else if (what < 0.64) disconnect(reader);
      else if (what < 0.9) {
        if (reader.cursor?.connected) send(reader);
      } else acknowledge(reader);
    }
    if (step % 8 === 0) await nextTurn();
    else await settle();
    if (chance(options.kills)) {
      run.kills++;
      begin();
    } else if (chance(options.kills / 2)) {
      run.restarts++;
      await store();
      begin();
    } else if (sourceAt !== undefined && chance(options.replacements)) {
      replace();
    }
    if (failure !== undefined) throw failure;
  }

  // At the end every reader gets all that is left.
  disk.most = Infinity;
  for (const reader of readers) {
    for (let i = 0; reader.busy || !reader.cursor?.connected; i++) {
      connect(reader);
      await turns(10);
      assert(i < 10_000, `${reader.name} cannot connect`);
    }
    for (let i = 0; reader.cursor.sent < stream.tail || reader.busy; i++) {
      if (!reader.cursor.connected) connect(reader);
      else send(reader);
      acknowledge(reader);
      await turns(10);
      stream.review();
      if (i % 8 === 0) await nextTurn();
      assert(i < 100_000, `${reader.name} stays at ${reader.cursor.sent} of ${stream.tail}`);
      if (failure !== undefined) throw failure;
    }
  }
  life++;
  run.stored = disk.stored;
  return run;
}

/** All that can happen without a timer. */
async function settle(): Promise<void> {
  for (let i = 0; i < 12; i++) await null;
}

/** Timers that are due run. */
const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
