/** A log in a folder: what it finds there, stores, counts and deletes, and what a failed disk does to it. */
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { type FileHandle, open, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { setImmediate } from "node:timers";
import { assert, assertEquals, assertRejects } from "#std/assert";
import { DiskLog, type DiskLogContext, DiskSpace, NO_FOLDER } from "../src/queue/disk_log.ts";
import { type Damage, endOf, QueueError, QueueFull } from "../src/queue/queue.ts";
import { segmentName } from "../src/queue/segment.ts";
import { afterOf, formatFileHeader } from "../src/queue/segment_format.ts";
import type { QueueState } from "../src/queue/state.ts";
import type { CursorState, LogState, RangeState } from "../src/queue/state_database.ts";
import { type MadeClock, settle, withClock } from "./made_clock.ts";
import { within } from "./within.ts";

const STREAM = "0123456789abcdef";
const ROW: LogState = {
  ...{ key: "", stream: STREAM, epoch: 3, reserved: 9, originStream: null, shift: 5, since: 7 },
};
/** Of the header of a file, and of that of a record. */
const HEADER = 32;
/** In a file; of 100 bytes. */
const RECORD = HEADER + 100;

/** Notes what it is to record, which it does when the test says so. */
class MadeState {
  readonly logs: LogState[] = [];
  readonly cursors: CursorState[] = [];
  readonly forgotten: string[] = [];
  /** From now on nothing is recorded before `record`. */
  held = false;
  #waiting: (() => void)[] = [];

  putLog(log: LogState): void {
    this.logs.push(log);
  }

  putCursor(cursor: CursorState): void {
    this.cursors.push(cursor);
  }

  forget(key: string, name: string): void {
    this.forgotten.push(`${key} ${name}`);
  }

  recorded(): Promise<void> {
    if (!this.held) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  record(): Promise<void> {
    this.held = false;
    for (const resolve of this.#waiting.splice(0)) resolve();
    return settle();
  }
}

interface Options extends Partial<Omit<DiskLogContext, "folder" | "state" | "space">> {
  /** Bytes that all logs may take. */
  most?: number;
  row?: Partial<LogState>;
  cursors?: readonly CursorState[];
  ranges?: readonly RangeState[];
}

/** A log in this folder, and what it told. */
class Made {
  readonly state: MadeState = new MadeState();
  readonly damages: Damage[] = [];
  readonly failures: Error[] = [];
  readonly syncs: number[] = [];
  readonly space: DiskSpace;
  readonly log: DiskLog;
  /** Of its stream. */
  readonly folder: string;

  constructor(folder: string, options: Options) {
    const { most = 2 ** 30, row = {}, cursors: _, ranges: __, ...context } = options;
    this.space = new DiskSpace(most);
    this.folder = join(folder, STREAM);
    this.log = new DiskLog({
      ...{ folder, state: this.state as unknown as QueueState, space: this.space },
      ...{ sync: "never", syncEveryMs: 100, segmentBytes: 2 ** 20, segmentAgeMs: 3_600_000 },
      largestBatch: 777,
      onDamage: (damage) => this.damages.push(damage),
      onSync: (seconds) => this.syncs.push(seconds),
      onFailed: (error) => this.failures.push(error),
      ...context,
    }, { ...ROW, ...row });
  }

  /** Where its segments begin, by their files. */
  get files(): number[] {
    return readdirSync(this.folder).filter((name) => name.endsWith(".segment")).sort()
      .map((name) => Number.parseInt(name, 10));
  }

  path(start: number): string {
    return join(this.folder, segmentName(start));
  }

  get fileBytes(): number {
    return this.files.reduce((sum, start) => sum + statSync(this.path(start)).size, 0);
  }

  /** Appends so many batches of 100 bytes and 10 messages, each once the last one is stored. */
  async fill(count: number, length = 100): Promise<void> {
    for (let i = 0; i < count; i++) await this.log.append(batch(this.log.end, length));
  }

  /** All must be in order: the space that the files take is that which is reckoned with. */
  assertSpace(): void {
    assertEquals([this.space.used, this.log.bytes], [this.fileBytes, this.fileBytes]);
  }

  /** The offsets of all that can be read. */
  async offsets(from = 0): Promise<number[]> {
    const offsets: number[] = [];
    for (let at = from;;) {
      const read = await this.log.read(at);
      if (read === null) return offsets;
      assertEquals(read.bytes, bytesAt(read.offset, read.bytes.length));
      offsets.push(read.offset);
      at = endOf(read);
    }
  }
}

const bytesAt = (offset: number, length: number): Uint8Array =>
  Uint8Array.from({ length }, (_, i) => 97 + (offset + i) % 26);
const batch = (offset: number, length = 100, messages = 10) => ({
  ...{ offset, bytes: bytesAt(offset, length), messages },
});

async function openIn(folder: string, options: Options = {}): Promise<Made> {
  const made = new Made(folder, options);
  await made.log.recover(options.cursors ?? [], options.ranges);
  return made;
}

/** A test with a folder for queues. */
const inFolder = (title: string, body: (folder: string) => Promise<void>): Promise<void> | void =>
  test(title, async () => {
    const folder = realpathSync(mkdtempSync(join(tmpdir(), "speedlimit-log-")));
    try {
      // Its deadline is of the clock that no test stops.
      await within(title, 2000, Promise.resolve().then(() => body(folder)));
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

/** A test with a new log. */
const withLog = (
  title: string,
  body: (made: Made) => Promise<void>,
  options: Options = {},
): Promise<void> | void =>
  inFolder(title, async (folder) => {
    const made = await openIn(folder, options);
    await body(made);
    await made.log.close();
  });

/** A test with a new log, whose clock stands still. */
const withLogAndClock = (
  title: string,
  body: (made: Made, clock: MadeClock) => Promise<void>,
  options: Options = {},
): Promise<void> | void =>
  inFolder(title, (folder) =>
    withClock(async (clock) => {
      const made = await openIn(folder, options);
      await body(made, clock);
      await made.log.close();
    }));

/** A method of a file handle. */
type Method = (this: FileHandle, ...args: unknown[]) => unknown;

/** Runs with another method of all file handles, made from the one that is there. */
async function withMethod(
  name: "read" | "write" | "datasync" | "stat" | "sync",
  make: (original: Method) => Method,
  run: () => Promise<void>,
): Promise<void> {
  const handle = await open(new URL(import.meta.url));
  const prototype = Object.getPrototypeOf(handle) as Record<string, Method>;
  await handle.close();
  const original = prototype[name]!;
  prototype[name] = make(original);
  try {
    await run();
  } finally {
    prototype[name] = original;
  }
}

/** Syncs of files, each of which waits until the test lets it end, or fail. */
class Syncs {
  /** All so far. */
  count = 0;
  #waiting: PromiseWithResolvers<void>[] = [];

  run(body: () => Promise<void>): Promise<void> {
    const sync = () => {
      this.count++;
      const waiting = Promise.withResolvers<void>();
      this.#waiting.push(waiting);
      return waiting.promise;
    };
    // That a file is still there is not asked of the disk: so nothing is waited for after the sync.
    const isThere = () => Promise.resolve({ nlink: 1 });
    return withMethod("datasync", () => sync, () => withMethod("stat", () => isThere, body));
  }

  /** Once the next one has begun. */
  async begun(count: number): Promise<void> {
    while (this.count < count) await turn();
    await turn();
    assertEquals(this.count, count);
  }

  async end(): Promise<void> {
    this.#waiting.shift()!.resolve();
    await turns(3);
  }

  async fail(): Promise<void> {
    this.#waiting.shift()!.reject(new Error("no disk"));
    await turns(3);
  }
}

/** How many files of a folder this process has open; 0 where nobody knows. */
function openFiles(folder: string): number {
  const descriptors = "/proc/self/fd";
  if (!existsSync(descriptors)) return 0;
  return readdirSync(descriptors).filter((name) => {
    try {
      return readlinkSync(join(descriptors, name)).startsWith(folder);
    } catch {
      // It was the one of the folder itself.
      return false;
    }
  }).length;
}

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));
async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await turn();
}

/** How a promise has ended so far. */
function watch(promise: Promise<unknown>): { outcome: string } {
  const watched = { outcome: "waits" };
  promise.then(() => watched.outcome = "done", (error) => watched.outcome = String(error));
  return watched;
}

const cursor = (name: string, offset: number, acknowledges = 0): CursorState => ({
  ...{ key: "", name, offset, acknowledges },
});

test("what all logs take together is limited", () => {
  const space = new DiskSpace(100);
  assertEquals([space.used, space.fits(100), space.fits(101)], [0, true, false]);
  space.used = 60;
  assertEquals([space.fits(40), space.fits(41)], [true, false]);
});

describe("a new log", () => {
  withLog("is empty, and has a folder that tells its key", async ({ log, damages, folder }) => {
    const { key, stream, epoch, reserved, origin, largestBatch } = log;
    assertEquals({ key, stream, epoch, reserved, origin, largestBatch }, {
      ...{ key: "k", stream: STREAM, epoch: 3, reserved: 9, origin: { shift: 5, since: 7 } },
      largestBatch: 777,
    });
    assertEquals(Object.keys(origin), ["shift", "since"]);
    assertEquals([log.start, log.end, log.durableEnd, log.repairedEnd, log.closedEnd], [
      ...[0, 0, 0, 0, 0],
    ]);
    assertEquals([log.bytes, log.segments, log.oldestMs, log.oldestSegmentMs], [
      ...[0, 0, undefined, undefined],
    ]);
    assertEquals([log.cursors, log.after(0), await log.read(0)], [
      [],
      { bytes: 0, messages: 0 },
      null,
    ]);
    assertEquals([log.batchEnd(0), log.storedAtMs(0), log.isDamaged(0, 1)], [
      ...[undefined, undefined, false],
    ]);
    assertEquals(damages, []);
    assertEquals(readdirSync(folder), ["key"]);
    assertEquals(readFileSync(join(folder, "key"), "utf8"), "k\n");
  }, { row: { key: "k" } });

  withLog("knows where its messages come from", async ({ log }) => {
    assertEquals(log.origin, { stream: "up", shift: 1, since: 2 });
    await log.settled();
  }, { row: { originStream: "up", shift: 1, since: 2 } });

  withLog(
    "whose folder is gone says so to its readers, the last of whom it follows",
    async (made) => {
      assertEquals(made.damages, [{ key: "", offset: 50, bytes: 0, reason: NO_FOLDER }]);
      const { log } = made;
      assertEquals([log.end, log.durableEnd, log.start], [50, 50, 50]);
      const states = log.cursors.map(({ name, offset, durable, acknowledges, recorded }) => [
        ...[name, offset, durable, acknowledges, recorded],
      ]);
      assertEquals(states, [["a", 70, 70, true, true], ["b", 50, 50, false, true]]);
      assert(existsSync(join(made.folder, "key")));
      await log.append(batch(50));
    },
    { cursors: [cursor("a", 70, 1), cursor("b", 50)] },
  );
});

describe("a log that is opened again", () => {
  inFolder("has what was stored, and goes on in its last segment", async (folder) => {
    const first = await openIn(folder, { segmentBytes: 32 + 2 * RECORD });
    await first.fill(3);
    assertEquals(first.files, [0, 200]);
    const { oldestMs, oldestSegmentMs } = first.log;
    assert(oldestMs !== undefined && oldestSegmentMs !== undefined && oldestSegmentMs >= oldestMs);
    await first.log.close();
    const made = await openIn(folder, { segmentBytes: 32 + 2 * RECORD });
    const { log } = made;
    assertEquals([log.start, log.end, log.durableEnd, log.segments], [0, 300, 300, 2]);
    assertEquals(log.oldestMs, Math.floor(oldestMs));
    made.assertSpace();
    await made.fill(1);
    assertEquals(made.files, [0, 200]);
    await made.fill(1);
    assertEquals(made.files, [0, 200, 400]);
    made.assertSpace();
    assertEquals(await made.offsets(), [0, 100, 200, 300, 400]);
    assertEquals(made.damages, []);
    await log.close();
  });

  inFolder("is cut where a kill has left a part of a record", async (folder) => {
    const first = await openIn(folder);
    await first.fill(3);
    await first.log.close();
    const whole = readFileSync(first.path(0));
    writeFileSync(first.path(0), whole.subarray(0, whole.length - 7));
    const made = await openIn(folder);
    assertEquals([made.log.end, made.fileBytes, made.damages], [200, HEADER + 2 * RECORD, []]);
    made.assertSpace();
    await made.fill(1);
    made.assertSpace();
    assertEquals(readFileSync(made.path(0)).length, whole.length);
    await made.log.close();
  });

  inFolder("has no segment at its end that was begun and never written", async (folder) => {
    const first = await openIn(folder);
    await first.fill(2);
    await first.log.close();
    writeFileSync(first.path(200), formatFileHeader(STREAM, 200));
    writeFileSync(first.path(900), formatFileHeader(STREAM, 200));
    const made = await openIn(folder, { cursors: [cursor("a", 100)] });
    assertEquals([made.files, made.log.end, made.log.segments, made.damages], [[0], 200, 1, []]);
    made.assertSpace();
    await made.log.close();
    rmSync(made.path(0));
    writeFileSync(made.path(200), formatFileHeader(STREAM, 200));
    const other = await openIn(folder, { cursors: [cursor("a", 170), cursor("b", 150)] });
    assertEquals([other.files, other.log.end, other.log.durableEnd], [[], 150, 150]);
    assertEquals([other.space.used, other.damages], [0, []]);
    await other.log.append(batch(150));
    assertEquals(other.files, [150]);
    await other.log.close();
    rmSync(other.path(150));
    const third = await openIn(folder, { cursors: [cursor("a", 170)] });
    assertEquals([third.log.end, third.log.durableEnd, third.files], [170, 170, []]);
    await third.log.close();
    const fourth = await openIn(folder);
    assertEquals([fourth.log.end, fourth.log.durableEnd], [0, 0]);
    await fourth.log.close();
  });

  inFolder("has checked all bytes of its last segment, and no others yet", async (folder) => {
    const first = await openIn(folder, { segmentBytes: 2 * RECORD });
    await first.fill(4);
    await first.log.close();
    for (const start of [0, 200]) {
      const bytes = readFileSync(first.path(start));
      bytes[HEADER + HEADER] = 0;
      writeFileSync(first.path(start), bytes);
    }
    const made = await openIn(folder, { segmentBytes: 2 * RECORD });
    assertEquals([made.files, made.log.end], [[0, 200], 400]);
    assertEquals(made.damages.map(({ key, offset }) => [key, offset]), [["", 200]]);
    assertEquals(await made.offsets(), [100, 300]);
    assertEquals(made.damages.slice(1).map(({ offset, bytes }) => [offset, bytes]), [[0, 100]]);
    await made.log.close();
  });

  inFolder("knows what was stored when it was closed, and what a repair made", async (folder) => {
    const first = await openIn(folder);
    await first.fill(2);
    await first.log.close();
    const range = (what: RangeState["what"], end: number): RangeState => ({
      ...{ key: "", what, start: 0, end },
    });
    const made = await openIn(folder, { ranges: [range("repaired", 70), range("closed", 250)] });
    assertEquals([made.log.repairedEnd, made.log.closedEnd, made.log.end], [70, 250, 200]);
    assertEquals(made.damages.map(({ key, offset, bytes }) => [key, offset, bytes]), [
      ["", 200, 50],
    ]);
    await made.log.close();
    const other = await openIn(folder, { ranges: [range("closed", 200)] });
    assertEquals([other.log.repairedEnd, other.log.closedEnd, other.damages], [0, 200, []]);
    await other.log.close();
  });
});

describe("an append", () => {
  withLogAndClock("stores the batch, and when that was", async ({ log, files }, clock) => {
    assertEquals(files, []);
    await log.append(batch(1000, 50, 4));
    assertEquals([log.start, log.end, log.durableEnd, log.segments], [1000, 1050, 1050, 1]);
    clock.nowMs += 500;
    await log.append(batch(1050, 10, 0));
    const first = Math.floor(performance.timeOrigin + 1000);
    assertEquals(await log.read(0), { ...batch(1000, 50, 4), storedAtMs: first });
    const second = await log.read(1050);
    assertEquals(second, {
      ...batch(1050, 10, 0),
      storedAtMs: Math.floor(performance.timeOrigin + 1500),
    });
    assertEquals([log.oldestMs, log.oldestSegmentMs], [first, second!.storedAtMs]);
  });

  withLog("is refused where it is no batch", async (made) => {
    const { log } = made;
    const wrong: [offset: number, length: number, messages: number, why: string][] = [
      [0, 0, 1, "it has no bytes"],
      [-1, 1, 1, "its offset must be a whole number from 0 to 2^53 - 1, is -1"],
      [0.5, 1, 1, "its offset must be a whole number from 0 to 2^53 - 1, is 0.5"],
      [2 ** 53 - 1, 1, 1, `is ${2 ** 53 - 1}`],
      [0, 1, -1, "its messages must be a whole number below 2^32, is -1"],
      [0, 1, 1.5, "is 1.5"],
      [0, 1, 2 ** 32, "is 4294967296"],
    ];
    for (const [offset, length, messages, why] of wrong) {
      await assertRejects(
        () => log.append({ offset, bytes: new Uint8Array(length), messages }),
        QueueError,
        why,
      );
    }
    assertEquals([log.end, made.files], [0, []]);
    await log.append(batch(0, 1, 0));
    await log.append(batch(2 ** 53 - 2, 1, 2 ** 32 - 1));
    assertEquals(log.end, 2 ** 53 - 1);
    assertEquals((await log.read(1))!.messages, 2 ** 32 - 1);
  });

  withLog("is refused where the log does not end there; others are not", async ({ log }) => {
    await log.append(batch(100));
    const outcomes = [
      watch(log.append(batch(200), 200)),
      // Before the end; then not where that ends which is before it.
      watch(log.append(batch(299))),
      watch(log.append(batch(500), 400)),
      watch(log.append(batch(400), 300)),
      watch(log.append(batch(700))),
    ];
    await assertRejects(
      () => log.append(batch(1000), 900),
      QueueError,
      "a batch at 1000 cannot be stored: the log ends at 800",
    );
    assertEquals(outcomes.map(({ outcome }) => outcome.replace(/: .*: /, ": ")), [
      "done",
      "QueueError: the log ends at 300",
      "QueueError: the log ends at 300",
      "done",
      "done",
    ]);
    assertEquals(log.end, 800);
  });

  /** Appends all at once. Returns where the log ends when each is stored. */
  const endsOf = async (log: DiskLog, lengths: readonly number[]): Promise<number[]> => {
    let offset = log.end;
    const ends = await Promise.all(lengths.map(async (length) => {
      const start = offset;
      offset += length;
      await log.append({ offset: start, bytes: new Uint8Array(length), messages: 1 });
      return log.end;
    }));
    return [...new Set(ends)];
  };

  withLog("is written with up to 63 that came meanwhile", async ({ log }) => {
    assertEquals(await endsOf(log, Array(130).fill(1)), [1, 65, 129, 130]);
  });

  const MIB = 2 ** 20;
  withLog("is written with up to 8 MiB that came meanwhile", async ({ log }) => {
    const half = 4 * MIB - HEADER;
    assertEquals(await endsOf(log, [1, half, half, half, half + 1, 5, 9 * MIB, 1]), [
      ...[1, 1 + 2 * half, 1 + 3 * half, 2 + 4 * half + 5, 2 + 4 * half + 5 + 9 * MIB],
      2 + 4 * half + 6 + 9 * MIB,
    ]);
  }, { segmentBytes: 2 ** 30 });

  withLog("is written with those that follow it in its segment", async ({ log, files }) => {
    assertEquals(files, []);
    await log.append(batch(0));
    // The first one of them fills it.
    assertEquals(await endsOf(log, [100, 100, 100, 100]), [200, 400, 500]);
    assertEquals(log.segments, 3);
  }, { segmentBytes: 2 * RECORD });
});

describe("segments", () => {
  withLog("get together what came meanwhile", async ({ log }) => {
    for (let i = 0; i < 5; i++) await log.append(batch(100 * i));
    await turn();
    const ends: number[] = [];
    await Promise.all([500, 600, 700].map(async (offset) => {
      await log.append(batch(offset));
      ends.push(log.end);
    }));
    assertEquals([ends, log.segments], [[600, 800, 800], 2]);
  }, { segmentBytes: HEADER + 4 * RECORD });

  withLog("are as long as they may, and tell where the one before them ends", async (made) => {
    await made.fill(2);
    await made.log.append(batch(1000));
    await made.fill(1);
    assertEquals(made.files, [0, 1000]);
    await made.fill(1);
    assertEquals(made.files, [0, 1000, 1200]);
    assertEquals(made.files.map((start) => afterOf(readFileSync(made.path(start)))), [
      ...[0, 200, 1200],
    ]);
    made.assertSpace();
    assertEquals(await made.offsets(), [0, 100, 1000, 1100, 1200]);
  }, { segmentBytes: HEADER + 2 * RECORD });

  withLog("get one more where a byte is left", async (made) => {
    await made.fill(3);
    assertEquals(made.files, [0]);
    await made.fill(1);
    assertEquals(made.files, [0, 300]);
  }, { segmentBytes: HEADER + 2 * RECORD + 1 });

  withLogAndClock("get no more once their first batch is old", async (made, clock) => {
    // A whole number, as the time of a batch is recorded.
    clock.nowMs = 1000 + Math.ceil(performance.timeOrigin) - performance.timeOrigin;
    await made.fill(1);
    clock.nowMs += 3000;
    await made.fill(1);
    assertEquals(made.files, [0]);
    clock.nowMs += 2000;
    await made.fill(1);
    assertEquals(made.files, [0], "of just that age");
    clock.nowMs += 1;
    await made.fill(1);
    assertEquals(made.files, [0, 300]);
  }, { segmentAgeMs: 5000 });

  for (const sync of ["always", "later", "never"] as const) {
    withLog(`are found after a power failure with sync ${sync}`, async (made) => {
      let synced = 0;
      await withMethod("sync", (original) =>
        function () {
          synced++;
          return Reflect.apply(original, this, []);
        }, () => made.fill(2));
      assertEquals(synced, sync === "never" ? 0 : 1);
    }, { sync });
  }
});

describe("space", () => {
  withLog("is what the files take, to the last byte", async (made) => {
    await made.fill(2);
    made.assertSpace();
    const error = await assertRejects(
      () => made.log.append(batch(200, 101)),
      QueueFull,
      "holds as much as it may",
    );
    assertEquals(error.reason, "max");
    assertEquals([made.log.end, made.files], [200, [0]]);
    made.assertSpace();
    await made.log.append(batch(200));
    assertEquals(made.space.used, HEADER + 3 * RECORD);
  }, { most: HEADER + 3 * RECORD });

  withLog("is taken by the header of a new segment, too", async (made) => {
    await made.fill(2);
    await assertRejects(() => made.log.append(batch(200, 69)), QueueFull);
    assertEquals(made.files, [0]);
    await made.log.append(batch(200, 68));
    assertEquals(made.files, [0, 200]);
    made.assertSpace();
  }, { segmentBytes: HEADER + 2 * RECORD, most: HEADER + 3 * RECORD });

  withLog("that there is for some is taken by them; those behind fail", async (made) => {
    const { log } = made;
    const outcomes = [0, 100, 200, 300, 400].map((offset) =>
      watch(log.append(batch(offset, offset === 400 ? 1 : 100)))
    );
    await log.append(batch(500)).catch(() => {});
    assertEquals(outcomes.map(({ outcome }) => outcome.slice(0, 9)), [
      ...["done", "done", "done", "QueueFull", "QueueFull"],
    ]);
    assertEquals([log.end, made.space.used], [300, HEADER + 3 * RECORD]);
    // What comes later is stored where it fits.
    await log.append(batch(300, 1));
    assertEquals(log.end, 301);
  }, { most: HEADER + 4 * RECORD - 1 });

  withLog("is given back where a new segment cannot be written", async (made) => {
    await made.fill(1);
    let left = 1;
    await withMethod("write", (original) =>
      function (...args) {
        // The header of the file is written, and then no more.
        return left-- > 0 ? Reflect.apply(original, this, args) : Promise.reject(new Error("oh"));
      }, async () => {
      await assertRejects(() => made.log.append(batch(100)), QueueError, "cannot write the queue");
    });
    assertEquals([made.files, made.log.segments, made.log.end], [[0], 1, 100]);
    made.assertSpace();
    await made.fill(1);
    assertEquals(made.files, [0, 100]);
    made.assertSpace();
    assertEquals(await made.offsets(), [0, 100]);
  }, { segmentBytes: HEADER + RECORD });

  withLog("is given back where the first segment cannot be written", async (made) => {
    let left = 1;
    await withMethod("write", (original) =>
      function (...args) {
        return left-- > 0 ? Reflect.apply(original, this, args) : Promise.reject(new Error("oh"));
      }, async () => {
      await assertRejects(() => made.log.append(batch(0)), QueueError, "cannot write the queue");
    });
    assertEquals([made.files, made.log.segments, made.space.used], [[], 0, 0]);
    await made.fill(1);
    made.assertSpace();
    assertEquals(await made.offsets(), [0]);
  });

  withLog("is kept where another record cannot be written", async (made) => {
    await made.fill(1);
    await withMethod("write", () => () => Promise.reject(new Error("oh")), async () => {
      const outcomes = [100, 200].map((offset) => watch(made.log.append(batch(offset))));
      await assertRejects(() => made.log.append(batch(300)), QueueError, "oh");
      assertEquals(outcomes.map(({ outcome }) => outcome.slice(0, 10)), [
        "QueueError",
        "QueueError",
      ]);
    });
    assertEquals([made.files, made.log.end, made.failures], [[0], 100, []]);
    made.assertSpace();
    await made.fill(1);
    assertEquals([made.files, made.log.end], [[0], 200]);
    made.assertSpace();
  });
});

describe("with sync always", () => {
  const always: Options = { sync: "always" };

  withLog(
    "an append resolves once it is synced, with all that was written before",
    async (made) => {
      const { log } = made;
      const syncs = new Syncs();
      await syncs.run(async () => {
        const first = watch(log.append(batch(0)));
        await syncs.begun(1);
        assertEquals([first.outcome, log.end, log.durableEnd], ["waits", 100, 0]);
        const second = watch(log.append(batch(100)));
        const third = watch(log.append(batch(200)));
        while (log.end < 300) await turn();
        await turns(3);
        assertEquals([syncs.count, second.outcome, made.syncs.length], [1, "waits", 0]);
        await syncs.end();
        await syncs.begun(2);
        assertEquals([first.outcome, second.outcome, third.outcome, log.durableEnd], [
          ...["done", "waits", "waits", 100],
        ]);
        assertEquals(made.syncs.length, 1);
        await syncs.end();
        assertEquals([second.outcome, third.outcome, log.durableEnd], ["done", "done", 300]);
        assertEquals([made.syncs.length, syncs.count], [2, 2]);
        const fourth = watch(log.append(batch(300)));
        await syncs.begun(3);
        await syncs.end();
        assertEquals([fourth.outcome, log.durableEnd, made.failures], ["done", 400, []]);
      });
    },
    always,
  );

  withLogAndClock("how long a sync took is told in seconds", async (made, clock) => {
    const syncs = new Syncs();
    await syncs.run(async () => {
      const append = made.log.append(batch(0));
      await syncs.begun(1);
      clock.nowMs += 250;
      await syncs.end();
      await append;
    });
    assertEquals(made.syncs, [0.25]);
  }, always);

  withLog("a log whose disk fails can neither be read nor written", async (made) => {
    const { log } = made;
    const syncs = new Syncs();
    await syncs.run(async () => {
      const first = watch(log.append(batch(0)));
      await syncs.begun(1);
      const second = watch(log.append(batch(100)));
      while (log.end < 200) await turn();
      await syncs.fail();
      for (const { outcome } of [first, second]) {
        assert(/^QueueError: cannot sync the queue .*: no disk$/.test(outcome), outcome);
      }
      assertEquals([made.failures.map(({ name }) => name), log.durableEnd], [["QueueError"], 0]);
      assertEquals((made.failures[0]!.cause as Error).message, "no disk");
      await assertRejects(() => log.append(batch(200)), QueueError, "no disk");
      await assertRejects(() => log.read(0), QueueError, "no disk");
      assertEquals(await log.dropOldest(), 0);
      await turns(3);
      await log.close();
      assertEquals([syncs.count, made.syncs.length, log.segments], [1, 0, 1]);
    });
    await assertRejects(() => log.append(batch(200)), QueueError, "no disk");
  }, always);

  withLog("an append that is written while the disk fails is not stored", async (made) => {
    const { log } = made;
    const syncs = new Syncs();
    const writes: (() => void)[] = [];
    await syncs.run(async () => {
      const first = watch(log.append(batch(0)));
      await syncs.begun(1);
      await withMethod("write", (original) =>
        async function (...args) {
          await new Promise<void>((resolve) => writes.push(resolve));
          return await (Reflect.apply(original, this, args) as Promise<unknown>);
        }, async () => {
        const second = watch(log.append(batch(100)));
        const third = watch(log.append(batch(200)));
        while (writes.length === 0) await turn();
        await syncs.fail();
        while (second.outcome === "waits" || third.outcome === "waits") {
          for (const resolve of writes.splice(0)) resolve();
          await turn();
        }
        for (const { outcome } of [first, second, third]) {
          assert(outcome.includes("no disk"), outcome);
        }
        assertEquals([log.end, log.durableEnd, syncs.count], [100, 0, 1]);
        assertEquals(made.fileBytes, HEADER + 2 * RECORD, "the third one is not written");
      });
    });
  }, always);

  withLog(
    "full segments are synced, each once, and put aside until they are read",
    async (made) => {
      const { log } = made;
      const syncs = new Syncs();
      await syncs.run(async () => {
        const first = log.append(batch(0));
        await syncs.begun(1);
        // The second one fills the first segment; two more fill another one.
        const appends = Promise.all(
          [100, 200, 300, 400].map((offset) => log.append(batch(offset))),
        );
        while (log.end < 500) await turn();
        await syncs.end();
        await first;
        for (const count of [2, 3, 4]) {
          await syncs.begun(count);
          assertEquals(log.durableEnd, 100);
          await syncs.end();
        }
        await appends;
        assertEquals([log.durableEnd, syncs.count, made.syncs.length], [500, 4, 2]);
        assertEquals([0, 200, 400].map((at) => log.batchEnd(at)), [undefined, undefined, 500]);
        assertEquals(await made.offsets(), [0, 100, 200, 300, 400]);
        assertEquals([0, 200, 400].map((at) => log.batchEnd(at)), [100, 300, 500]);
      });
    },
    { ...always, segmentBytes: 2 * RECORD },
  );

  withLog("a segment that is read stays at hand", async (made) => {
    const { log } = made;
    const syncs = new Syncs();
    await syncs.run(async () => {
      const first = log.append(batch(0));
      await syncs.begun(1);
      assertEquals(await made.offsets(), [0]);
      const appends = Promise.all([100, 200].map((offset) => log.append(batch(offset))));
      while (log.end < 300) await turn();
      await syncs.end();
      await first;
      for (const count of [2, 3]) await syncs.begun(count).then(() => syncs.end());
      await appends;
      assertEquals([0, 200].map((at) => log.batchEnd(at)), [100, 300]);
    });
  }, { ...always, segmentBytes: 2 * RECORD });
});

describe("with sync later", () => {
  const later: Options = { sync: "later", syncEveryMs: 100 };

  withLogAndClock("appends resolve at once, and are synced every 100 ms", async (made, clock) => {
    const { log } = made;
    const syncs = new Syncs();
    await syncs.run(async () => {
      await made.fill(2);
      assertEquals([log.end, log.durableEnd, clock.timers, syncs.count], [200, 0, 1, 0]);
      clock.pass(99);
      assertEquals([clock.timers, syncs.count], [1, 0]);
      clock.pass(1);
      await syncs.begun(1);
      // What is written meanwhile waits for the next one.
      await made.fill(1);
      assertEquals([clock.timers, log.end], [0, 300]);
      await syncs.end();
      assertEquals([log.durableEnd, syncs.count, clock.timers, made.syncs.length], [200, 1, 1, 1]);
      clock.pass(100);
      await syncs.begun(2);
      await syncs.end();
      assertEquals([log.durableEnd, clock.timers], [300, 0]);
      await made.fill(1);
      assertEquals(clock.timers, 1);
      clock.pass(100);
      await syncs.begun(3);
      await syncs.end();
      assertEquals(log.durableEnd, 400);
    });
  }, later);

  withLogAndClock("what is not synced yet is synced when it is closed", async (made, clock) => {
    const { log } = made;
    const syncs = new Syncs();
    await syncs.run(async () => {
      await made.fill(1);
      clock.pass(100);
      await syncs.begun(1);
      const append = log.append(batch(100));
      const close = watch(log.close());
      await append;
      await turns(3);
      assertEquals([close.outcome, syncs.count], ["waits", 1]);
      await syncs.end();
      await syncs.begun(2);
      assertEquals(close.outcome, "waits");
      await syncs.end();
      while (close.outcome === "waits") await turn();
      assertEquals([close.outcome, log.durableEnd, clock.timers], ["done", 200, 0]);
      await assertRejects(() => log.append(batch(200)), QueueError, "is closed");
      await assertRejects(() => log.read(0), QueueError, "is closed");
    });
  }, later);

  withLogAndClock("a log that is closed does not wait for that", async (made, clock) => {
    const syncs = new Syncs();
    await syncs.run(async () => {
      await made.fill(1);
      const close = watch(made.log.close());
      await syncs.begun(1);
      await syncs.end();
      while (close.outcome === "waits") await turn();
      assertEquals([made.log.durableEnd, syncs.count, clock.timers], [100, 1, 0]);
    });
  }, later);

  withLogAndClock("a log is closed once the last sync has ended", async (made, clock) => {
    const syncs = new Syncs();
    await syncs.run(async () => {
      await made.fill(1);
      clock.pass(100);
      await syncs.begun(1);
      const close = watch(made.log.close());
      await turns(3);
      assertEquals([close.outcome, syncs.count], ["waits", 1]);
      await syncs.end();
      while (close.outcome === "waits") await turn();
      assertEquals([made.log.durableEnd, syncs.count, made.syncs.length], [100, 1, 1]);
    });
  }, later);

  withLogAndClock("nothing is waited for once it is closed", async (made, clock) => {
    const { log } = made;
    const reader = await log.openCursor("a", 0);
    await made.fill(1);
    reader.release(100);
    await log.settled();
    assertEquals([made.files, clock.timers], [[], 1]);
    await log.close();
    assertEquals(clock.timers, 0);
  }, later);

  withLogAndClock("nothing is synced of a segment that is deleted", async (made, clock) => {
    const { log } = made;
    const syncs = new Syncs();
    await syncs.run(async () => {
      const reader = await log.openCursor("a", 0);
      await made.fill(1);
      reader.release(100);
      await log.settled();
      assertEquals([log.segments, log.durableEnd, made.files], [0, 100, []]);
      clock.pass(100);
      await turns(3);
      assertEquals([syncs.count, made.syncs.length, clock.timers], [0, 0, 0]);
      await made.fill(1);
      assertEquals([made.files, clock.timers], [[100], 1]);
      assertEquals(await log.dropOldest(), 100, "it is not synced");
      assertEquals(made.files, [100]);
      clock.pass(100);
      await syncs.begun(1);
      await syncs.end();
      assertEquals([await log.dropOldest(), made.files], [200, []]);
      made.assertSpace();
      await made.fill(1);
      assertEquals(made.files, [200]);
      clock.pass(100);
      await syncs.begun(2);
      await syncs.end();
    });
  }, later);

  withLogAndClock("what is delivered stays while it is synced", async (made, clock) => {
    const { log } = made;
    const syncs = new Syncs();
    await syncs.run(async () => {
      const reader = await log.openCursor("a", 0);
      await made.fill(1);
      clock.pass(100);
      await syncs.begun(1);
      reader.release(100);
      const settled = watch(log.settled());
      await turns(3);
      assertEquals([settled.outcome, log.segments], ["waits", 1]);
      await syncs.end();
      while (settled.outcome === "waits") await turn();
      assertEquals([settled.outcome, log.segments], ["done", 0]);
    });
  }, later);
});

describe("what is told of the stored batches", () => {
  const short: Options = { segmentBytes: HEADER + 2 * RECORD };

  withLog("where they end", async ({ log }) => {
    await log.append(batch(100));
    await log.append(batch(300));
    await log.append(batch(500, 50));
    assertEquals([99, 100, 199, 200, 300, 399, 499, 500, 549, 550].map((at) => log.batchEnd(at)), [
      ...[undefined, 200, 200, undefined, 400, 400, undefined, 550, 550, undefined],
    ]);
  }, short);

  withLogAndClock("when they were stored", async ({ log }, clock) => {
    const times: number[] = [];
    for (const offset of [0, 100, 500, 600]) {
      clock.nowMs += 1000;
      await log.append(batch(offset));
      times.push(Math.floor(performance.timeOrigin + clock.nowMs));
    }
    assertEquals([0, 99, 100, 199, 200, 499, 500, 600, 699].map((at) => log.storedAtMs(at)), [
      ...[times[0], times[0], times[1], times[1], times[2], times[2], times[2], times[3], times[3]],
    ]);
    assertEquals(log.storedAtMs(700), undefined);
  }, short);

  inFolder("where a segment was not read yet, that its times are not known", async (folder) => {
    const first = await openIn(folder, short);
    await first.fill(3);
    await first.log.close();
    const { log } = await openIn(folder, short);
    assertEquals([log.storedAtMs(0), log.storedAtMs(199)], [undefined, undefined]);
    assert(log.storedAtMs(200) !== undefined);
    await log.read(0);
    assert(log.storedAtMs(0) !== undefined);
    await log.close();
  });

  withLog("how much there is from an offset on", async ({ log }) => {
    await log.append(batch(0, 100, 10));
    await log.append(batch(100, 100, 20));
    await log.append(batch(500, 100, 40));
    assertEquals([0, 50, 100, 200, 499, 500, 575, 600, 700].map((at) => log.after(at)), [
      { bytes: 300, messages: 70 },
      { bytes: 250, messages: 65 },
      { bytes: 200, messages: 60 },
      ...[200, 499, 500].map(() => ({ bytes: 100, messages: 40 })),
      { bytes: 25, messages: 10 },
      ...[600, 700].map(() => ({ bytes: 0, messages: 0 })),
    ]);
  }, short);

  inFolder("that there is a message where its size is not known", async (folder) => {
    const first = await openIn(folder, short);
    await first.fill(2);
    await first.log.append(batch(200, 100, 0));
    await first.log.close();
    const { log } = await openIn(folder, short);
    assertEquals(log.after(0), { bytes: 300, messages: 1 });
    assertEquals(log.after(199), { bytes: 101, messages: 1 });
    assertEquals(log.after(200), { bytes: 100, messages: 0 });
    await log.close();
  });

  inFolder("about how much there is in segments that were not read", async (folder) => {
    const first = await openIn(folder, short);
    await first.fill(2);
    await first.log.append(batch(200, 100, 5));
    await first.log.append(batch(300, 100, 5));
    await first.log.append(batch(9000, 100, 30));
    await first.log.append(batch(9100, 100, 30));
    await first.log.append(batch(9200, 50, 20));
    await first.log.close();
    const { log } = await openIn(folder, short);
    // The last one is known: 20 messages of 50 bytes. The others may have all bytes of their files.
    assertEquals(log.after(9200), { bytes: 50, messages: 20 });
    assertEquals(log.after(9150), { bytes: 100, messages: 40 });
    assertEquals(log.after(9000), { bytes: 250, messages: 100 });
    assertEquals(log.after(8000), { bytes: 514, messages: 206 });
    assertEquals(log.after(399), { bytes: 514, messages: 206 });
    assertEquals(log.after(0), { bytes: 714, messages: 286 });
    assertEquals(log.after(150), { bytes: 564, messages: 226 });
    // The first one is known now, with 20 messages of 200 bytes.
    await log.read(0);
    assertEquals(log.after(0), { bytes: 714, messages: 20 + 74 + 20 });
    assertEquals(log.after(50), { bytes: 664, messages: 15 + 74 + 20 });
    assertEquals(log.after(9000), { bytes: 250, messages: 32 + 20 });
    await log.close();
  });
});

describe("a read", () => {
  const short: Options = { segmentBytes: 2 * RECORD };

  withLog("is of the batch that contains the offset, or else the next one", async ({ log }) => {
    await log.append(batch(100));
    await log.append(batch(300));
    await log.append(batch(500));
    const at = async (offset: number) => (await log.read(offset))?.offset;
    assertEquals([await at(0), await at(100), await at(199), await at(200)], [100, 100, 100, 300]);
    assertEquals([await at(399), await at(400), await at(500), await at(599)], [
      ...[300, 500, 500, 500],
    ]);
    assertEquals(await log.read(600), null);
  }, short);

  withLog("may put the bytes into the memory of the caller", async ({ log }) => {
    await log.append(batch(0));
    const into = new ArrayBuffer(2000);
    assertEquals((await log.read(0, into))!.bytes.buffer, into);
    assert((await log.read(0, new ArrayBuffer(10)))!.bytes.buffer !== into);
  });

  withLog("keeps the files of the last 16 segments at hand, and of the last one", async (made) => {
    const { log } = made;
    await made.fill(40);
    assertEquals(log.segments, 20);
    const known = () => {
      const all = Array.from({ length: 20 }, (_, i) => i);
      return all.filter((i) => log.batchEnd(200 * i) !== undefined);
    };
    assertEquals(known().length, 20);
    // The first one is read once more after the second.
    for (const i of [0, 1, 0, ...Array.from({ length: 14 }, (_, i) => i + 2)]) {
      await log.read(200 * i);
    }
    assertEquals(known().length, 20);
    await log.read(200 * 16);
    assertEquals(known(), [0, ...[2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]]);
    // What was known of it is still known.
    assertEquals(log.after(200), { bytes: 3800, messages: 380 });
    assertEquals(log.after(250), { bytes: 3750, messages: 375 });
    assertEquals(log.storedAtMs(200), undefined);
    for (const i of [19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3]) {
      await log.read(200 * i);
    }
    assertEquals(known(), [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]);
    assertEquals((await made.offsets()).length, 40);
    made.assertSpace();
  }, short);

  inFolder("goes on behind a segment that is deleted meanwhile", async (folder) => {
    const first = await openIn(folder, short);
    await first.fill(4);
    await first.log.close();
    const { log } = await openIn(folder, short);
    // Its index is made first: then its file is closed.
    const read = log.read(0);
    assertEquals(await log.dropOldest(), 200);
    assertEquals((await read)!.offset, 200);
    await log.close();
  });

  inFolder("of a log that is closed meanwhile says so", async (folder) => {
    const first = await openIn(folder, short);
    await first.fill(4);
    await first.log.close();
    const { log } = await openIn(folder, short);
    const read = log.read(0);
    const close = log.close();
    const { message } = await assertRejects(() => read, QueueError);
    assertEquals(message, `the queue ${folder} is closed`);
    await close;
  });

  withLog("fails where its file cannot be read", async (made) => {
    const { log } = made;
    await made.fill(40);
    for (let i = 0; i < 20; i++) await log.read(200 * i);
    rmSync(made.path(0));
    await assertRejects(() => log.read(0), QueueError, "cannot read the queue");
    assertEquals((await log.read(200))!.offset, 200);
  }, short);

  withLog("of a segment that cannot be put aside makes the log fail", async (made) => {
    const { log } = made;
    await made.fill(40);
    await withMethod("read", (original) =>
      function (...args) {
        const close = this.close;
        this.close = async () => {
          await Reflect.apply(close, this, []);
          throw new Error("oh");
        };
        return Reflect.apply(original, this, args);
      }, async () => void await log.read(0));
    for (let i = 1; i < 17; i++) await log.read(200 * i);
    while (made.failures.length === 0) await turn();
    await assertRejects(() => log.read(0), QueueError, "oh");
    assertEquals(made.failures.length, 1);
  }, short);
});

describe("damage", () => {
  inFolder("is told of, and remembered: its last 100 places", async (folder) => {
    const made = await openIn(folder);
    const { log, damages } = made;
    for (let i = 0; i < 102; i++) await log.append(batch(10 * i, 2));
    const file = made.path(0);
    const bytes = readFileSync(file);
    for (let i = 0; i < 101; i++) bytes[HEADER + i * (HEADER + 2) + HEADER] = 0;
    writeFileSync(file, bytes);
    assertEquals((await log.read(0))!.offset, 1010);
    assertEquals(damages.length, 101);
    assertEquals(damages.map(({ key, offset, bytes }) => [key, offset, bytes])[1], ["", 10, 2]);
    assert(damages[0]!.reason.includes("its CRC-32 is wrong"));
    // Of the first of them, nobody knows any more.
    assertEquals([log.isDamaged(0, 10), log.isDamaged(0, 11)], [false, true]);
    assertEquals([log.isDamaged(12, 20), log.isDamaged(13, 20)], [true, false]);
    assertEquals([log.isDamaged(1002, 1003), log.isDamaged(1003, 2000)], [true, false]);
    await log.close();
  });
});

describe("the state of a log is recorded", () => {
  withLog("how far it is reserved, and where its messages come from", async ({ log, state }) => {
    await log.reserve(9);
    assertEquals(state.logs, []);
    state.held = true;
    const reserve = watch(log.reserve(500));
    await settle();
    assertEquals([reserve.outcome, log.reserved], ["waits", 9]);
    assertEquals(state.logs, [{ ...ROW, key: "k", originStream: "up", reserved: 500 }]);
    await state.record();
    assertEquals([reserve.outcome, log.reserved], ["done", 500]);
    state.held = true;
    const origin = watch(log.setOrigin({ shift: 70, since: 80 }));
    await settle();
    assertEquals([origin.outcome, log.origin], ["waits", { stream: "up", shift: 5, since: 7 }]);
    await state.record();
    assertEquals([origin.outcome, log.origin], ["done", { shift: 70, since: 80 }]);
    await log.setOrigin({ stream: "b", shift: 71, since: 81 });
    await log.reserve(501);
    await log.setOrigin({ shift: 72, since: 82 });
    await log.reserve(502);
    const row = { ...ROW, key: "k" };
    assertEquals(state.logs.slice(1), [
      { ...row, reserved: 500, originStream: null, shift: 70, since: 80 },
      { ...row, reserved: 500, originStream: "b", shift: 71, since: 81 },
      { ...row, reserved: 501, originStream: "b", shift: 71, since: 81 },
      { ...row, reserved: 501, originStream: null, shift: 72, since: 82 },
      { ...row, reserved: 502, originStream: null, shift: 72, since: 82 },
    ]);
  }, { row: { key: "k", originStream: "up" } });

  withLog("how far its readers are", async ({ log, state }) => {
    await assertRejects(() => log.openCursor("a\n", 0), QueueError, "the reader's name");
    assertEquals([state.cursors, log.cursors], [[], []]);
    state.held = true;
    const opened = log.openCursor("a", 40);
    const watched = watch(opened);
    await settle();
    assertEquals([watched.outcome, log.cursors[0]!.recorded], ["waits", false]);
    await state.record();
    const reader = await opened;
    assertEquals([log.cursors.length, log.cursors[0]!.recorded], [1, true]);
    assertEquals(state.cursors, [{ key: "k", name: "a", offset: 40, acknowledges: 0 }]);
    // It is the same one, wherever it would begin now.
    assert(await log.openCursor("a", 0) === reader);
    assertEquals([reader.offset, reader.acknowledges, state.cursors.length], [40, false, 1]);
    await reader.setAcknowledges();
    assertEquals(state.cursors[1], { key: "k", name: "a", offset: 40, acknowledges: 1 });
    state.held = true;
    const seek = watch(reader.seek(30));
    await settle();
    assertEquals(seek.outcome, "waits");
    await state.record();
    assertEquals(seek.outcome, "done");
    await reader.forget();
    assertEquals([log.cursors, state.forgotten], [[], ["k a"]]);
  }, { row: { key: "k" } });
});

describe("what is delivered is deleted", () => {
  const short: Options = { segmentBytes: 2 * RECORD };

  withLog("once that is recorded for all readers", async (made) => {
    const { log, state } = made;
    const [a, b] = [await log.openCursor("a", 0), await log.openCursor("b", 0)];
    await made.fill(6);
    a.release(600);
    await log.settled();
    assertEquals([a.durable, made.files], [600, [0, 200, 400]]);
    b.release(199);
    await log.settled();
    assertEquals(made.files, [0, 200, 400]);
    b.release(400);
    state.held = true;
    const settled = watch(log.settled());
    await turns(3);
    assertEquals([settled.outcome, b.durable, made.files], ["waits", 199, [0, 200, 400]]);
    // What comes meanwhile is not recorded with it.
    b.release(600);
    await state.record();
    while (settled.outcome === "waits") await turn();
    assertEquals([b.durable, made.files], [400, [400]]);
    made.assertSpace();
    await log.settled();
    assertEquals([b.durable, made.files, log.start, log.end], [600, [], 600, 600]);
    made.assertSpace();
    assertEquals(openFiles(made.folder), 0);
    await made.fill(1);
    assertEquals([made.files, log.start], [[600], 600]);
  }, short);

  withLog(
    "in order, so that a kill leaves no gap: also where the first one is still read",
    async (made) => {
      const { log } = made;
      const reader = await log.openCursor("a", 0);
      await made.fill(5);
      let go = () => {};
      const held = new Promise<void>((resolve) => go = resolve);
      const holding = (read: Method): Method =>
        async function (...args) {
          await held;
          return await read.apply(this, args);
        };
      await withMethod("read", (read) => holding(read), async () => {
        const reading = log.read(0);
        await turns(3);
        reader.release(500);
        const both = [watch(log.settled()), watch(log.settled())];
        // Time enough to delete another one.
        for (let i = 0; i < 100; i++) await stat(made.folder);
        assertEquals([made.files, both[0]!.outcome], [[0, 200, 400], "waits"]);
        go();
        assertEquals((await reading)?.offset, 0);
        while (both.some(({ outcome }) => outcome === "waits")) await turn();
        assertEquals([made.files, log.start], [[], 500]);
      });
      made.assertSpace();
    },
    short,
  );

  withLog("but not what a reader needs again that was moved back meanwhile", async (made) => {
    const { log, state } = made;
    const reader = await log.openCursor("a", 0);
    await made.fill(4);
    reader.release(400);
    state.held = true;
    const settled = log.settled();
    const seek = reader.seek(100);
    await state.record();
    await settled;
    await seek;
    assertEquals([reader.durable, made.files], [100, [0, 200]]);
  }, short);

  withLog("but not the last segment before all of it is delivered", async (made) => {
    const { log } = made;
    const reader = await log.openCursor("a", 0);
    await made.fill(2);
    reader.release(199);
    await log.settled();
    assertEquals(made.files, [0]);
    reader.release(200);
    await log.settled();
    assertEquals(made.files, []);
  });

  withLog("but not of a shared stream whose readers are not known", async (made) => {
    const { log, state } = made;
    await made.fill(4);
    await log.settled();
    assertEquals(made.files, [0, 200]);
    state.held = true;
    const opened = log.openCursor("a", 400);
    state.held = false;
    await log.settled();
    assertEquals(made.files, [0, 200], "it is not recorded yet");
    await state.record();
    await opened;
    await log.settled();
    assertEquals(made.files, []);
  }, short);

  withLog("as soon as one reader of several is recorded", async (made) => {
    const { log, state } = made;
    await made.fill(4);
    await log.openCursor("a", 400);
    state.held = true;
    const opened = log.openCursor("b", 200);
    state.held = false;
    await log.settled();
    assertEquals(made.files, [200]);
    await state.record();
    await opened;
  }, short);

  withLog("all of it where a stream of one reader has none any more", async (made) => {
    await made.fill(4);
    await made.log.settled();
    assertEquals(made.files, []);
  }, { ...short, row: { key: "k" } });

  withLog("and all where the last reader is forgotten", async (made) => {
    const { log } = made;
    const [a, b] = [await log.openCursor("a", 0), await log.openCursor("b", 100)];
    await made.fill(4);
    await a.forget();
    assertEquals(made.files, [0, 200]);
    await b.forget();
    assertEquals([made.files, log.end], [[], 400]);
    made.assertSpace();
  }, short);

  withLog("but not what is just being written", async (made) => {
    const { log } = made;
    const reader = await log.openCursor("a", 0);
    await made.fill(1);
    const append = log.append(batch(100));
    reader.release(100);
    await log.settled();
    await append;
    assertEquals([made.files, log.end], [[0], 200]);
    assertEquals((await log.read(100))!.offset, 100);
  });

  withLog("but nothing once it is closed", async (made) => {
    const { log } = made;
    const reader = await log.openCursor("a", 0);
    await made.fill(4);
    await log.close();
    reader.release(400);
    await log.settled();
    assertEquals(made.files, [0, 200]);
    assertEquals([await log.dropOldest(), made.files], [0, [0, 200]]);
  }, short);

  withLog("but not its only segment once it is closed", async (made) => {
    const { log } = made;
    const reader = await log.openCursor("a", 0);
    await made.fill(1);
    await log.close();
    reader.release(100);
    await log.settled();
    assertEquals(made.files, [0]);
    assertEquals([await log.dropOldest(), made.files], [0, [0]]);
  });

  withLog("and it fails where that is not possible", async (made) => {
    const { log } = made;
    await made.fill(4);
    rmSync(made.path(0));
    await assertRejects(() => log.dropOldest(), QueueError, "cannot delete from the queue");
    assertEquals([log.start, made.space.used], [200, HEADER + 2 * RECORD]);
  }, short);
});

describe("the oldest segment is dropped", () => {
  withLog("though a reader needs it", async (made) => {
    const { log } = made;
    await log.openCursor("a", 0);
    assertEquals(await log.dropOldest(), 0);
    await made.fill(3);
    assertEquals([await log.dropOldest(), made.files], [200, [200]]);
    made.assertSpace();
    await made.fill(1);
    assertEquals([made.files, await made.offsets()], [[200], [200, 300]]);
    assertEquals([await log.dropOldest(), made.files], [400, []]);
    assertEquals([log.start, log.end, log.segments], [400, 400, 0]);
    made.assertSpace();
    await made.fill(1);
    assertEquals(made.files, [400]);
  }, { segmentBytes: 2 * RECORD });

  withLog("but not while it is written", async (made) => {
    const { log } = made;
    await made.fill(1);
    const append = log.append(batch(100));
    assertEquals(await log.dropOldest(), 0);
    await append;
    assertEquals([log.end, made.files, await made.offsets()], [200, [0], [0, 100]]);
  });

  withLog("also while others are written", async (made) => {
    const { log } = made;
    await made.fill(3);
    const append = log.append(batch(300));
    assertEquals(await log.dropOldest(), 200);
    await append;
    assertEquals([made.files, await made.offsets()], [[200], [200, 300]]);
  }, { segmentBytes: 2 * RECORD });
});

withLog(
  "a log that is closed stores what was appended before, and closes its files",
  async (made) => {
    const { log } = made;
    const appends = [0, 100, 200].map((offset) => watch(log.append(batch(offset))));
    await log.close();
    assertEquals(openFiles(made.folder), 0);
    assertEquals(appends.map(({ outcome }) => outcome), ["done", "done", "done"]);
    assertEquals([made.files, log.end], [[0, 200], 300]);
    await assertRejects(() => log.append(batch(300)), QueueError, "is closed");
    await assertRejects(() => log.read(0), QueueError, "is closed");
  },
  { segmentBytes: 2 * RECORD },
);
