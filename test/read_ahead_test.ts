/** What is read from a log before it is needed, and into which memory. */
import { describe, test } from "node:test";
import { assert, assertEquals, assertRejects } from "#std/assert";
import { endOf, type Log, type StoredBatch } from "../src/queue/queue.ts";
import { ReadAhead } from "../src/relay/read_ahead.ts";
import { settle } from "./made_clock.ts";

const MIB = 2 ** 20;

/** A log in memory, which notes what is read. */
class MadeLog implements Pick<Log, "end" | "batchEnd" | "read"> {
  readonly batches: StoredBatch[] = [];
  readonly reads: { offset: number; into: ArrayBufferLike | undefined }[] = [];
  /** Batches of which is not known where they end, by their offsets. */
  readonly unknown: Set<number> = new Set();
  /** The reads that fail, by their offsets. */
  readonly failing: Set<number> = new Set();
  #noted = 0;

  /** With so many batches. */
  constructor(count: number, length: number) {
    for (let i = 0; i < count; i++) this.add(i * length, length);
  }

  add(offset: number, length: number): void {
    this.batches.push({ offset, bytes: new Uint8Array(length), messages: 1, storedAtMs: 0 });
  }

  get end(): number {
    return endOf(this.batches.at(-1)!);
  }

  batchEnd(offset: number): number | undefined {
    const found = this.batches.find((batch) => batch.offset <= offset && offset < endOf(batch));
    return found === undefined || this.unknown.has(found.offset) ? undefined : endOf(found);
  }

  async read(offset: number, into?: ArrayBufferLike): Promise<StoredBatch | null> {
    this.reads.push({ offset, into });
    const found = this.batches.find((batch) => endOf(batch) > offset);
    await null;
    if (this.failing.has(offset)) throw new Error("no disk");
    if (found === undefined) return null;
    return { ...found, bytes: new Uint8Array(into ?? new ArrayBuffer(found.bytes.length)) };
  }

  /** The offsets that were read since the last call. */
  get news(): number[] {
    const news = this.reads.slice(this.#noted).map(({ offset }) => offset);
    this.#noted = this.reads.length;
    return news;
  }
}

/** `count` numbers from `from` on. */
const steps = (from: number, count: number, step: number) =>
  Array.from({ length: count }, (_, i) => from + i * step);

/** All readers share what they request ahead: so each stops at the end. */
async function reading(
  log: MadeLog,
  body: (made: {
    ahead: ReadAhead;
    /** Where the batch for this offset begins. */
    at: (offset: number) => Promise<number | undefined>;
    other: ReadAhead;
  }) => Promise<void>,
): Promise<void> {
  const ahead = new ReadAhead(log as unknown as Log);
  const other = new ReadAhead(log as unknown as Log);
  try {
    await body({ ahead, other, at: async (offset) => (await ahead.batch(offset))?.offset });
  } finally {
    ahead.stop();
    other.stop();
  }
}

describe("the batch of an offset", () => {
  test("contains it, or else is the first one after it", () => {
    const log = new MadeLog(2, 100);
    log.add(250, 50);
    return reading(log, async ({ ahead, at }) => {
      const first = await ahead.batch(0);
      assertEquals([first!.offset, first!.bytes.length], [0, 100]);
      assert(await ahead.batch(99) === first);
      assertEquals([await at(100), await at(199), await at(200), await at(299)], [
        ...[100, 100, 250, 250],
      ]);
      assertEquals(await at(300), undefined);
      log.add(300, 10);
      assertEquals(await at(300), 300);
    });
  });

  test("is found where batches are passed over", () => {
    const log = new MadeLog(100, 10);
    return reading(log, async ({ at }) => {
      assertEquals([await at(5), log.news.length], [0, 17]);
      // Of those that were read already.
      assertEquals([await at(150), log.news], [150, steps(170, 15, 10)]);
      // The one after those.
      assertEquals([await at(320), log.news], [320, steps(320, 17, 10)]);
      // Far after those.
      assertEquals([await at(705), log.news], [700, [705, ...steps(710, 16, 10)]]);
    });
  });

  test("is read again where it was requested before it was stored", () => {
    const log = new MadeLog(2, 10);
    return reading(log, async ({ at }) => {
      assertEquals([await at(0), log.news], [0, [0, 10, 20]]);
      await settle();
      log.add(20, 10);
      assertEquals([await at(10), log.news], [10, []]);
      assertEquals([await at(20), log.news], [20, [20]]);
    });
  });

  test("comes with the error of its read, and only that one", () => {
    const log = new MadeLog(5, 10);
    log.failing.add(20);
    return reading(log, async ({ ahead, at }) => {
      await at(0);
      assertEquals(await at(10), 10);
      await assertRejects(() => ahead.batch(20), Error, "no disk");
    });
  });
});

describe("what is read ahead", () => {
  test("are 16 batches", () => {
    const log = new MadeLog(100, 10);
    return reading(log, async ({ at }) => {
      await at(0);
      assertEquals(log.news, steps(0, 17, 10));
      await at(10);
      assertEquals(log.news, [170]);
      await at(10);
      assertEquals(log.news, []);
    });
  });

  test("are 8 MiB, and one batch at least", async () => {
    for (const [length, count] of [[3 * MIB, 2], [MIB, 8], [10 * MIB, 1]] as const) {
      const log = new MadeLog(12, length);
      await reading(log, async ({ at }) => {
        await at(0);
        assertEquals(log.news, steps(0, 1 + count, length));
      });
    }
  });

  test("are 8 MiB of all readers that read now", () => {
    const log = new MadeLog(40, MIB);
    return reading(log, async ({ ahead, other }) => {
      await ahead.batch(0);
      assertEquals(log.news.length, 1 + 8);
      await other.batch(0);
      assertEquals(log.news.length, 1 + 4);
      await other.batch(MIB);
      assertEquals(log.news.length, 1);
      // It counts once, however often it begins and stops.
      ahead.stop();
      ahead.stop();
      await other.batch(2 * MIB);
      assertEquals(log.news.length, 1 + 4);
      await ahead.batch(MIB);
      assertEquals(log.news.length, 1 + 4);
      // At the end of the log it reads no more.
      assertEquals(await ahead.batch(log.end), null);
      log.news;
      await other.batch(10 * MIB);
      assertEquals(log.news.length, 8);
    });
  });

  test("goes on after a batch of which is not known where it ends", () => {
    const log = new MadeLog(100, 10);
    log.unknown.add(30);
    return reading(log, async ({ at }) => {
      await at(0);
      assertEquals(log.news, [0, 10, 20, 30]);
      assertEquals([await at(10), await at(20), log.news], [10, 20, []]);
      assertEquals([await at(30), log.news], [30, steps(40, 16, 10)]);
    });
  });

  test("is nothing at the end of the log", () => {
    const log = new MadeLog(2, 10);
    return reading(log, async ({ at }) => {
      assertEquals([await at(10), log.news], [10, [10]]);
    });
  });

  test("is nobody's error where nobody takes it", () => {
    const log = new MadeLog(5, 10);
    log.failing.add(20);
    return reading(log, async ({ at, ahead }) => {
      await at(0);
      ahead.stop();
      await settle();
    });
  });

  test("is nothing once it is stopped, also while a batch is being read", () => {
    const log = new MadeLog(100, 10);
    return reading(log, async ({ at, ahead }) => {
      const first = at(0);
      ahead.stop();
      assertEquals([await first, log.news], [0, [0]]);
      const second = at(10);
      ahead.stop();
      assertEquals([await second, log.news], [10, [10]]);
      assertEquals([await at(20), log.news], [20, steps(20, 17, 10)]);
    });
  });

  test("is forgotten once it is stopped", () => {
    const log = new MadeLog(100, 10);
    return reading(log, async ({ at, ahead }) => {
      await at(0);
      ahead.stop();
      log.news;
      assertEquals([await at(5), log.news], [0, []]);
      assertEquals([await at(10), log.news], [10, steps(10, 17, 10)]);
    });
  });
});

describe("the memory of batches", () => {
  test("is used again once another one is returned", () => {
    const log = new MadeLog(100, 10);
    return reading(log, async ({ ahead }) => {
      const returned: ArrayBufferLike[] = [];
      for (let i = 0; i < 60; i++) returned.push((await ahead.batch(i * 10))!.bytes.buffer);
      log.reads.slice(0, 17).forEach(({ into }) => assertEquals(into, undefined));
      // The read for which there is room once a batch is passed takes that one's.
      log.reads.slice(17, 60).forEach(({ into }, i) => assert(into === returned[i], `${i}`));
      assertEquals(new Set(returned).size, 17);
    });
  });

  test("is kept of 8 of them", () => {
    const log = new MadeLog(100, 10);
    return reading(log, async ({ at }) => {
      await at(0);
      await at(150);
      const kept = log.reads.slice(17).map(({ into }) => into !== undefined);
      assertEquals(kept, steps(0, 15, 1).map((i) => i < 8));
    });
  });
});
