/** What is recorded of readers, when, and what the source may discard then. */
import { describe, test } from "node:test";
import { assertEquals } from "#std/assert";
import type { Cursor, Log } from "../src/queue/queue.ts";
import { Blocks } from "../src/relay/blocks.ts";
import { Records } from "../src/relay/records.ts";
import { StreamCursor } from "../src/relay/stream_cursor.ts";
import type { StreamOptions, StreamState } from "../src/relay/stream_options.ts";
import { policyOf } from "../src/send/overflow.ts";
import { settle, withClock } from "./made_clock.ts";

/** A log of which the test decides when it has settled. */
class MadeLog implements Pick<Log, "start" | "end" | "durableEnd" | "settled"> {
  start = 0;
  end = 0;
  durableEnd = 0;
  /** How often it was to settle. */
  asked = 0;
  #record: PromiseWithResolvers<void> = Promise.withResolvers();

  settled(): Promise<void> {
    this.asked++;
    this.#record = Promise.withResolvers();
    return this.#record.promise;
  }

  async written(): Promise<void> {
    this.#record.resolve();
    await settle();
  }

  async failed(): Promise<void> {
    this.#record.reject(new Error("no disk"));
    await settle();
  }
}

interface Made {
  records: Records;
  state: StreamState;
  log: MadeLog;
  /** What it told: that something is safe, or an error. */
  told: string[];
  /** What was recorded of each reader, in order. */
  released: [name: string, offset: number][];
  /** Adds a reader. */
  add(
    name: string,
    delivered: number,
    more?: { durable?: number; connected?: boolean },
  ): StreamCursor;
}

function made(
  { log: given = {}, tail = 0, ...options }:
    & { log?: Partial<MadeLog> | null; tail?: number }
    & Partial<Pick<StreamOptions, "durable" | "policy" | "floor">>,
): Made {
  const log = Object.assign(new MadeLog(), given);
  const told: string[] = [];
  const released: [string, number][] = [];
  const blocks = new Blocks(1000, () => {});
  const state: StreamState = { tail, blocks, cursors: new Set(), missing: [] };
  const records = new Records(
    {
      log: given === null ? undefined : log as unknown as Log,
      durable: false,
      policy: policyOf("spill"),
      onSafe: () => told.push("safe"),
      onError: ({ message }: Error) => told.push(message),
      ...options,
    } as Partial<StreamOptions> as StreamOptions,
    state,
  );
  return {
    ...{ records, state, log, told, released },
    add(name, delivered, { durable, connected = false } = {}) {
      const release = (offset: number) => void released.push([name, offset]);
      const stored = durable === undefined ? undefined : { durable, release } as unknown as Cursor;
      const cursor = new StreamCursor(name, delivered, stored, delivered);
      if (connected) cursor.begin({ blockedSince: undefined }, delivered, undefined);
      state.cursors.add(cursor);
      return cursor;
    },
  };
}

describe("what the source may discard", () => {
  test("is without a log what all readers have", () => {
    const { records, add } = made({ log: null, tail: 100 });
    assertEquals([records.safe, records.runStart], [undefined, 0]);
    add("ahead", 120);
    assertEquals(records.safe, 100);
    add("a", 50);
    assertEquals(records.safe, 50);
    add("b", 60);
    assertEquals(records.safe, 50);
    add("c", 0);
    assertEquals(records.safe, 0);
  });

  test("is known with a log only once a reader is recorded", () => {
    const { records, add } = made({ tail: 100, log: { end: 20, durableEnd: 20 } });
    assertEquals(records.safe, undefined);
    add("new", 70);
    assertEquals(records.safe, undefined);
    add("known", 90, { durable: 80 });
    assertEquals(records.safe, 70);
    add("another", 60);
    assertEquals(records.safe, 60);
  });

  test("is what is recorded, not what is delivered", () => {
    const { records, add } = made({ tail: 100, log: { durableEnd: 20 } });
    add("known", 90, { durable: 30 });
    assertEquals(records.safe, 30);
  });

  test("is also what is stored, but only from the start of the last run on", () => {
    const { records, log, add } = made({ tail: 100, log: { durableEnd: 40, start: 30 } });
    add("known", 90, { durable: 30 });
    assertEquals([records.runStart, records.safe], [30, 40]);
    log.durableEnd = 120;
    assertEquals(records.safe, 100);
    records.runStart = 31;
    assertEquals(records.safe, 30);
  });

  test("is with `durable` all that is stored", () => {
    const { records, add } = made({ tail: 100, durable: true, log: { durableEnd: 80 } });
    assertEquals(records.safe, 80);
    add("known", 90, { durable: 30 });
    assertEquals(records.safe, 80);
    records.runStart = 60;
    assertEquals(records.safe, 30);
    const without = made({ tail: 100, durable: true, log: null });
    assertEquals(without.records.safe, 0);
  });

  test("leaves out readers that are away where nothing is kept for them", () => {
    const { records, add } = made({ tail: 100, policy: policyOf("close") });
    add("away", 20, { durable: 20 });
    assertEquals(records.safe, undefined);
    add("here", 70, { durable: 60, connected: true });
    assertEquals(records.safe, 60);
    const keeping = made({ tail: 100 });
    keeping.add("away", 20, { durable: 20 });
    keeping.add("here", 70, { durable: 60, connected: true });
    assertEquals(keeping.records.safe, 20);
  });
});

describe("where a reader continues after a restart", () => {
  /** Messages of 30 bytes in memory from 150 to 240, of which those before 200 are stored as well. */
  const recorded = async (...delivered: number[]) => {
    const floored: [length: number, at: number][] = [];
    const { records, state, log, add, released } = made({
      tail: 300,
      log: { end: 200, durableEnd: 200 },
      floor: ({ length }, at) => {
        floored.push([length, at]);
        return at - at % 30;
      },
    });
    state.blocks.push(new Uint8Array(90), 3, 150);
    for (const each of delivered) add(String(each), each, { durable: 0 });
    add("not recorded yet", 170);
    const done = records.now();
    await log.written();
    await done;
    return { released: released.map(([, offset]) => offset), floored };
  };

  test("is where it is, of what is stored", async () => {
    assertEquals(await recorded(10, 170, 200), { released: [10, 170, 200], floored: [] });
  });

  test("is the start of a message, of what only memory has", async () => {
    assertEquals(await recorded(201, 215), {
      released: [180, 210],
      floored: [[90, 51], [90, 65]],
    });
  });

  test("is the end of the stream at most", async () => {
    assertEquals(await recorded(300, 301, 400), { released: [300, 300, 300], floored: [] });
  });

  test("stays as it is where nothing has the bytes", async () => {
    assertEquals(await recorded(240, 299), { released: [], floored: [] });
  });
});

describe("readers are recorded", () => {
  test("at once, and then it is told what is safe", async () => {
    const { records, log, told } = made({});
    let done = false;
    void records.now().then(() => done = true);
    await settle();
    assertEquals([log.asked, done, told], [1, false, []]);
    await log.written();
    assertEquals([log.asked, done, told], [1, true, ["safe"]]);
  });

  test("never without a log", () =>
    withClock(async (clock) => {
      const { records, log, told } = made({ log: null });
      await records.now();
      records.awaitSync();
      assertEquals([log.asked, told, clock.timers], [0, [], 0]);
    }));

  test("before a part is stored that does not continue what is stored", async () => {
    const { records, log, told } = made({ log: { start: 10 } });
    void records.beginRun(50);
    await settle();
    assertEquals([records.runStart, told], [10, []]);
    await log.written();
    assertEquals([records.runStart, told], [50, ["safe"]]);
  });

  test("within 50 ms, once for all that came meanwhile", () =>
    withClock(async (clock) => {
      const { records, log, told } = made({});
      records.soon();
      clock.pass(20);
      records.soon();
      assertEquals(clock.timers, 1);
      clock.pass(29);
      assertEquals([log.asked, clock.timers], [0, 1]);
      clock.pass(1);
      assertEquals([log.asked, clock.timers], [1, 0]);
      await log.written();
      assertEquals([told, clock.timers], [["safe"], 0]);
      records.soon();
      clock.pass(50);
      assertEquals(log.asked, 2);
    }));

  test("again until what is written has survived a sync", () =>
    withClock(async (clock) => {
      const { records, log } = made({ log: { end: 20, durableEnd: 10 } });
      records.awaitSync();
      clock.pass(50);
      assertEquals(log.asked, 1);
      await log.written();
      assertEquals(clock.timers, 1);
      clock.pass(50);
      assertEquals(log.asked, 2);
      log.durableEnd = 20;
      await log.written();
      assertEquals(clock.timers, 0);
      records.awaitSync();
      assertEquals(clock.timers, 0);
    }));

  test("and an error is told", () =>
    withClock(async (clock) => {
      const { records, log, told } = made({ log: { end: 20, durableEnd: 10 } });
      records.soon();
      clock.pass(50);
      await log.failed();
      assertEquals([told, clock.timers], [["no disk"], 0]);
    }));

  test("only when asked, from `stop` to `start`", () =>
    withClock(async (clock) => {
      const { records, log } = made({});
      records.soon();
      records.stop();
      records.soon();
      assertEquals(clock.timers, 0);
      void records.now();
      assertEquals(log.asked, 1);
      await log.written();
      records.start();
      clock.pass(49);
      assertEquals(log.asked, 1);
      clock.pass(1);
      assertEquals(log.asked, 2);
    }));
});
