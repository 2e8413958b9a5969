/** What of a stream memory keeps, what goes to disk, and when the source has to wait. */
import { describe, test } from "node:test";
import { assertEquals } from "#std/assert";
import { LONGEST_WRITE } from "../src/message/message.ts";
import type { Log } from "../src/queue/queue.ts";
import { Blocks } from "../src/relay/blocks.ts";
import type { Lag } from "../src/relay/lag.ts";
import { MemoryBudget } from "../src/relay/memory_budget.ts";
import { Retention } from "../src/relay/retention.ts";
import type { Spiller } from "../src/relay/spiller.ts";
import { StreamCursor } from "../src/relay/stream_cursor.ts";
import type { StreamOptions, StreamState } from "../src/relay/stream_options.ts";
import { policyOf } from "../src/send/overflow.ts";
import { settle, withClock } from "./made_clock.ts";

/** Bytes of a block. */
const SIZE = 10;
/** High and low watermark. */
const BOUND = 100;
const RESUME = 40;
/** Of memory. A quarter of it is 250. */
const LIMIT = 1000;
/** So much that it is never used. */
const MUCH = 2 ** 40;
/** What may wait for the disk above the high watermark; bytes. */
const DISK_LAG = 16 * 2 ** 20;

class MadeSpiller implements Pick<Spiller, "on" | "full" | "start" | "stop"> {
  on = false;
  full: "max" | "disk" | undefined;
  /** What it was told, in order. */
  readonly calls: string[] = [];

  start(): void {
    this.on = true;
    this.calls.push("start");
  }

  stop(): void {
    this.on = false;
    this.calls.push("stop");
  }
}

interface ReaderState {
  delivered?: number;
  sent?: number;
  connected?: boolean;
}

/** A stream of `bytes` bytes, all in memory. Where it is not `spills`, there is no disk. */
function made(
  { bytes = 0, spills = true, limit = LIMIT, block = SIZE, ...options }:
    & { bytes?: number; spills?: boolean; limit?: number; block?: number }
    & Partial<Pick<StreamOptions, "policy" | "bound" | "whenFull" | "durable">> = {},
) {
  const memory = new MemoryBudget(limit);
  const blocks = new Blocks(block, (bytes) => memory.take(bytes));
  const state: StreamState = { tail: 0, blocks, cursors: new Set(), missing: [] };
  const log = { end: 0 };
  const spiller = new MadeSpiller();
  const events: unknown[] = [];
  const retention = new Retention(
    {
      log: spills ? log as unknown as Log : undefined,
      policy: policyOf("spill"),
      bound: BOUND,
      resumeBelow: RESUME,
      whenFull: "block",
      durable: false,
      memory,
      onEvent: (event, cursor) => events.push({ ...event, of: cursor?.name }),
      ...options,
    } as Partial<StreamOptions> as StreamOptions,
    state,
    spills ? spiller as unknown as Spiller : undefined,
    { bytes: ({ delivered }: StreamCursor) => state.tail - delivered } as unknown as Lag,
  );
  /** How many of the calls of `room` that had to wait may go on. */
  const waits = { begun: 0, ended: 0 };
  const push = (bytes: number) => {
    for (let left = bytes; left > 0; left -= block) {
      const part = new Uint8Array(Math.min(left, block));
      blocks.push(part, 1, state.tail);
      state.tail += part.length;
    }
  };
  push(bytes);
  return {
    ...{ memory, blocks, state, log, spiller, events, retention, waits, push },
    /** Adds a reader; by default it is connected, and has got nothing. */
    add({ delivered = 0, sent = delivered, connected = true }: ReaderState = {}): StreamCursor {
      const name = String(state.cursors.size);
      const cursor = new StreamCursor(name, delivered, undefined, delivered);
      if (connected) cursor.begin({ blockedSince: undefined }, sent, undefined);
      state.cursors.add(cursor);
      return cursor;
    },
    /** Where what is in memory begins, after a review. */
    first() {
      retention.review();
      return blocks.first?.offset;
    },
    /** Whether the source may go on. */
    isFree() {
      const room = retention.room();
      if (room === undefined) return true;
      waits.begun++;
      void room.then(() => waits.ended++);
      return false;
    },
  };
}

describe("memory is freed", () => {
  test("of what all readers have", () => {
    const { add, first } = made({ bytes: 100, spills: false });
    add({ delivered: 30, sent: 50 });
    assertEquals(first(), 30);
    const away = add({ delivered: 20, connected: false });
    assertEquals(first(), 30);
    away.delivered = 70;
    assertEquals(first(), 30);
  });

  test("of what no reader has to get", () => {
    const { first, blocks } = made({ bytes: 100, spills: false });
    assertEquals([first(), blocks.bytes], [undefined, 0]);
  });

  test("of what is sent, where nothing is kept for a reader that is away", () => {
    const { add, first } = made({ bytes: 100, spills: false, policy: policyOf("close") });
    add({ delivered: 10, connected: false });
    add({ delivered: 30, sent: 50 });
    add({ delivered: 60, sent: 60 });
    assertEquals(first(), 50);
  });

  test("of what is dropped for all who would get it", () => {
    const { add, first, blocks } = made({ bytes: 100, spills: false });
    const [one, other] = [add(), add({ delivered: 40 })];
    one.drop(20, 60, 4);
    assertEquals([first(), blocks.at(20), blocks.at(30), blocks.at(40)?.offset], [
      ...[0, undefined, undefined, 40],
    ]);
    assertEquals([blocks.at(10)?.offset, blocks.at(60)?.offset, blocks.bytes], [10, 60, 80]);
    other.drop(50, 70, 2);
    assertEquals([first(), blocks.at(40)?.offset, blocks.at(50), blocks.at(60)?.offset], [
      ...[0, 40, undefined, 60],
    ]);
  });

  test("of what is stored, but for readers that are near", () => {
    const { add, first, log } = made({ bytes: 100 });
    log.end = 60;
    const near = add({ delivered: 0, sent: 30 });
    assertEquals(first(), 30);
    add({ delivered: 0, sent: 50 });
    assertEquals(first(), 30);
    near.sent = 80;
    assertEquals(first(), 50);
  });

  test("of what is stored, and not of what only memory has", () => {
    const { add, first, log } = made({ bytes: 100 });
    log.end = 60;
    const away = add({ delivered: 10, connected: false });
    assertEquals(first(), 60);
    log.end = 70;
    away.delivered = 80;
    assertEquals(first(), 80);
  });

  test("also for a reader that is connected, but far behind", () => {
    // The high watermark, and a quarter of the memory.
    const { add, first, log, push } = made({ bytes: 20 + BOUND + LIMIT / 4 });
    log.end = 60;
    add({ sent: 20 });
    assertEquals(first(), 20);
    push(1);
    assertEquals(first(), 60);
  });

  test("also for a reader whose next bytes are not in memory any more", () => {
    const { add, first, log, blocks } = made({ bytes: 100 });
    log.end = 60;
    blocks.release(20);
    const cursor = add({ sent: 20 });
    assertEquals(first(), 20);
    cursor.sent = 19;
    assertEquals(first(), 60);
  });

  test("of all that is stored once half of it is used", () => {
    const { add, first, log, memory } = made({ bytes: 100 });
    log.end = 60;
    add();
    memory.take(LIMIT / 2 - 100);
    assertEquals(first(), 0);
    memory.take(1);
    assertEquals(first(), 60);
  });
});

describe("messages are stored", () => {
  test("while memory is short, until it is not", () => {
    const { retention, spiller, memory } = made();
    const told = (used: number) => {
      memory.take(used - memory.used);
      retention.review();
      return spiller.calls.splice(0);
    };
    assertEquals(told(LIMIT / 2), []);
    assertEquals(told(LIMIT / 2 + 1), ["start"]);
    assertEquals(told(LIMIT / 2), []);
    assertEquals(told(LIMIT / 4 + 1), []);
    assertEquals(told(LIMIT / 4), ["stop"]);
    retention.finish();
    assertEquals(told(LIMIT / 4), []);
    assertEquals(told(LIMIT / 2 + 1), ["start"]);
  });

  test("with `durable` always", () => {
    const { retention, spiller } = made({ durable: true });
    retention.review();
    assertEquals(spiller.calls, ["start"]);
  });

  test("while a reader is behind, or is not removed", () => {
    const { retention, spiller, add, state } = made({ bytes: 20 });
    const told = () => {
      retention.review();
      return spiller.calls.splice(0);
    };
    const remove = (cursor: StreamCursor) => {
      state.cursors.delete(cursor);
      retention.remove(cursor);
      return spiller.calls.splice(0);
    };
    const [near, one, other] = [add(), add({ connected: false }), add({ connected: false })];
    assertEquals(told(), ["start"]);
    assertEquals(remove(one), ["start"]);
    assertEquals(remove(near), ["start"]);
    assertEquals(remove(other), ["stop"]);
    const again = add({ connected: false });
    assertEquals(told(), ["start"]);
    again.begin({ blockedSince: undefined }, 0, undefined);
    assertEquals(told(), ["stop"]);
  });
});

describe("a reader is served from disk", () => {
  test("above the high watermark, until it is at the low one", () => {
    const { retention, add, push, events, log } = made({ bytes: BOUND + 20 });
    const cursor = add({ delivered: 10, sent: 20 });
    retention.review();
    assertEquals([cursor.behind, events], [false, []]);
    push(1);
    retention.review();
    assertEquals([cursor.behind, cursor.behindFrom], [true, 10]);
    assertEquals(events.splice(0), [
      { event: "spilling", why: "backlog", backlog: BOUND + 11, of: "0" },
    ]);
    log.end = 90;
    cursor.sent = BOUND + 21 - RESUME - 1;
    retention.review();
    assertEquals([cursor.behind, events], [true, []]);
    cursor.sent++;
    let stopped = 0;
    Object.defineProperty(cursor, "readAhead", { value: { stop: () => stopped++ } });
    retention.review();
    assertEquals([cursor.behind, stopped], [false, 1]);
    assertEquals(events, [{ event: "caught-up", spilled: 80, of: "0" }]);
  });

  test("without any of it on disk, that is 0 bytes", () => {
    const { retention, add, events } = made({ bytes: 200 });
    const cursor = add({ delivered: 50 });
    retention.review();
    cursor.sent = 200;
    retention.review();
    assertEquals(events.slice(1), [{ event: "caught-up", spilled: 0, of: "0" }]);
  });

  test("where it has not acknowledged a quarter of the memory, until it has", () => {
    const { retention, add, push } = made({ bytes: LIMIT / 4 });
    const cursor = add({ sent: LIMIT / 4 });
    retention.review();
    assertEquals(cursor.behind, false);
    push(1);
    retention.review();
    assertEquals(cursor.behind, true);
    retention.review();
    assertEquals(cursor.behind, true);
    cursor.delivered = 1;
    retention.review();
    assertEquals(cursor.behind, false);
  });

  test("while it is away, but not where it has everything", () => {
    const { retention, add, push, events, state } = made({ bytes: 20 });
    const cursor = add({ delivered: 20, connected: false });
    retention.review();
    assertEquals([cursor.behind, events], [false, []]);
    // Offsets that nothing has are no backlog.
    state.missing = [{ from: 20, to: 50 }];
    state.tail = 50;
    retention.review();
    assertEquals([cursor.behind, events], [false, []]);
    push(1);
    retention.review();
    assertEquals([cursor.behind, cursor.behindFrom], [true, 20]);
    assertEquals(events.splice(0), [{ event: "spilling", why: "absent", backlog: 31, of: "0" }]);
    retention.review();
    assertEquals([cursor.behind, events], [true, []]);
  });

  test("not yet where it is expected", () =>
    withClock((clock) => {
      const { retention, add, push } = made({ bytes: BOUND });
      const cursor = add({ connected: false });
      const other = add({ connected: false });
      for (const each of [cursor, other]) each.expect();
      retention.review();
      assertEquals(cursor.behind, false);
      push(1);
      cursor.delivered = 1;
      retention.review();
      assertEquals([cursor.behind, other.behind], [false, true]);
      clock.pass(1000);
      retention.review();
      assertEquals(cursor.behind, true);
    }));

  test("until the end, once the source has ended", () => {
    const { retention, add } = made({ bytes: 200 });
    const cursor = add();
    retention.review();
    retention.finish();
    cursor.sent = cursor.delivered = 200;
    retention.review();
    assertEquals(cursor.behind, true);
  });

  test("never where there is no disk", () => {
    const { retention, add, events } = made({ bytes: 200, spills: false });
    const cursors = [add(), add({ connected: false })];
    retention.review();
    assertEquals([cursors.map(({ behind }) => behind), events], [[false, false], []]);
  });

  test("never where nothing is kept for it while it is away", () => {
    const { retention, add, events } = made({ bytes: 200, policy: policyOf("close") });
    add({ connected: false });
    retention.review();
    assertEquals(events, []);
  });
});

describe("the source waits", () => {
  test("while all memory is used, also by other streams", async () => {
    const { memory, isFree, waits } = made({ limit: LIMIT });
    memory.take(LIMIT);
    assertEquals(isFree(), true);
    memory.take(1);
    assertEquals(isFree(), false);
    await settle();
    assertEquals(waits.ended, 0);
    memory.take(-1);
    await settle();
    assertEquals(waits.ended, 1);
  });

  test("not where messages are dropped instead", () => {
    const isFree = (options: Parameters<typeof made>[0], full?: "max") => {
      const { memory, isFree, spiller } = made(options);
      spiller.full = full;
      memory.take(LIMIT + 1);
      return isFree();
    };
    assertEquals(isFree({ spills: false, policy: policyOf("block") }), false);
    assertEquals(isFree({ spills: false, policy: policyOf("drop") }), true);
    assertEquals(isFree({ spills: false, policy: policyOf("close") }), true);
    assertEquals(isFree({ spills: false, whenFull: "drop-newest" }), false);
    assertEquals(isFree({ whenFull: "drop-newest" }), false);
    assertEquals(isFree({ whenFull: "drop-newest" }, "max"), true);
    assertEquals(isFree({ whenFull: "block" }, "max"), false);
  });

  test("not where a review frees enough, which is done only then", async () => {
    const { memory, isFree, blocks } = made({ bytes: 100 });
    assertEquals([isFree(), blocks.bytes], [true, 100]);
    memory.take(LIMIT);
    assertEquals([isFree(), blocks.bytes], [true, 0]);
    await settle();
  });

  test("not any more once the server is ending", async () => {
    const { memory, retention, isFree, waits } = made();
    memory.take(LIMIT + 1);
    assertEquals(isFree(), false);
    retention.unblock();
    await settle();
    assertEquals([waits.ended, isFree()], [1, true]);
  });

  test("for the disk, where no reader keeps up", async () => {
    const { add, isFree, state, log, waits, retention } = made({ bytes: 60, limit: MUCH });
    add({ connected: false });
    // Nothing is stored so far.
    state.tail = BOUND + DISK_LAG;
    retention.review();
    assertEquals(isFree(), true);
    state.tail++;
    assertEquals(isFree(), false);
    // The block that ends after it stays.
    log.end = 55;
    retention.review();
    await settle();
    assertEquals(waits.ended, 1);
    state.tail += 54;
    assertEquals(isFree(), true);
    state.tail++;
    assertEquals(isFree(), false);
  });

  test("for the disk from the first review on", () => {
    const { add, isFree, state, spiller } = made({ bytes: 60, limit: MUCH });
    add({ connected: false });
    spiller.on = true;
    state.tail = BOUND + DISK_LAG + 1;
    assertEquals(isFree(), false);
  });

  test("for the disk, but not with what nobody needs", () => {
    const { add, isFree, state, retention } = made({ bytes: 60, limit: MUCH });
    const cursor = add({ delivered: 20, connected: false });
    state.tail = 20 + BOUND + DISK_LAG;
    retention.review();
    assertEquals(isFree(), true);
    state.tail++;
    assertEquals(isFree(), false);
    cursor.delivered = 60;
    assertEquals(isFree(), true);
  });

  test("for a disk that is full earlier, unless the newest messages are dropped", () => {
    for (const whenFull of ["block", "drop-newest"] as const) {
      const { add, isFree, state, spiller, retention } = made({
        ...{ bytes: 60, limit: MUCH, whenFull },
      });
      add({ connected: false });
      spiller.full = "disk";
      state.tail = BOUND + LONGEST_WRITE;
      retention.review();
      assertEquals(isFree(), true);
      state.tail++;
      assertEquals(isFree(), whenFull === "drop-newest");
    }
  });

  test("not for the disk where a reader keeps up, or nothing is being stored", () => {
    const { add, isFree, state, retention, spiller } = made({ bytes: 60, limit: MUCH });
    add({ connected: false });
    const near = add({ sent: BOUND + DISK_LAG + 1 });
    state.tail = BOUND + DISK_LAG + 1;
    retention.review();
    assertEquals([near.behind, isFree()], [false, true]);
    near.end();
    near.delivered = near.sent = state.tail;
    retention.review();
    assertEquals([near.behind, isFree()], [false, false]);
    near.begin({ blockedSince: undefined }, state.tail, undefined);
    near.behind = true;
    retention.finish();
    retention.review();
    assertEquals(isFree(), false);
    spiller.start = () => {};
    spiller.on = false;
    assertEquals(isFree(), true);
  });

  test("for a reader with too much, where the policy says so", async () => {
    for (const bound of [BOUND, 2 * LONGEST_WRITE]) {
      const most = Math.max(bound, LONGEST_WRITE);
      const { add, isFree, push, state, waits, retention } = made({
        ...{ spills: false, limit: MUCH, policy: policyOf("block"), bound, block: LONGEST_WRITE },
      });
      const kept = add();
      const slow = add();
      push(most);
      // Offsets that nothing has: only what is in memory counts.
      state.tail += 100;
      assertEquals(isFree(), true);
      push(1);
      kept.sent = state.tail;
      slow.sent = state.tail - most;
      assertEquals(isFree(), true);
      slow.sent--;
      assertEquals(isFree(), false);
      slow.sent++;
      retention.progress();
      await settle();
      assertEquals(waits.ended, 1);
    }
  });

  test("not for readers where the policy does not say so", () => {
    const { add, isFree } = made({
      ...{ spills: false, limit: MUCH, block: LONGEST_WRITE, bytes: LONGEST_WRITE + 1 },
    });
    add();
    assertEquals(isFree(), true);
  });

  test("until a reader comes further, where there are few readers", async () => {
    for (const [readers, ended] of [[64, 1], [65, 0]] as const) {
      const { add, isFree, waits, retention, memory } = made({ bytes: 100, spills: false });
      const cursors = Array.from({ length: readers }, () => add());
      memory.take(LIMIT - 50);
      assertEquals(isFree(), false);
      for (const cursor of cursors) cursor.delivered = cursor.sent = 100;
      retention.progress();
      await settle();
      assertEquals(waits.ended, ended);
      retention.review();
      await settle();
      assertEquals(waits.ended, 1);
    }
  });

  test("and where it does not wait, that a reader comes further changes nothing", () => {
    const { add, retention, blocks } = made({ bytes: 100 });
    add({ delivered: 100 });
    retention.progress();
    assertEquals(blocks.bytes, 100);
  });
});
