/** A stream continues where an earlier process has ended, with the same source or another one. */
import { describe, test as plainTest } from "node:test";
import { assertEquals } from "#std/assert";
import type { Origin } from "../src/queue/queue.ts";
import { type MadeClock, settle, withClock } from "./made_clock.ts";
import { allOf, atOnce, made, MadeCursor, MadeLog } from "./made_stream.ts";

const test = (title: string, body: (clock: MadeClock) => void | Promise<void>) =>
  plainTest(title, () => withClock(body));

/** A log with batches of 100 bytes from these offsets on. */
function logOf(...offsets: number[]): MadeLog {
  const log = new MadeLog();
  for (const offset of offsets) log.store(offset, 100);
  return log;
}

const readers = (...offsets: number[]) =>
  offsets.map((offset, i) => new MadeCursor(`r${i}`, offset));

describe("a stream with a source that can begin again continues", () => {
  const tailOf = (log: Partial<MadeLog>, sourceless = false) =>
    made({ log, sourceless }).stream.tail;

  test("after all that is stored", () => {
    assertEquals(tailOf({}), 0);
    assertEquals(tailOf({ end: 100 }), 100);
    assertEquals(tailOf({ end: 100, cursors: readers(50) }), 100);
    assertEquals(tailOf({ end: 100, cursors: readers(50, 150) }), 100);
  });

  test("after all that every reader has", () => {
    assertEquals(tailOf({ end: 100, cursors: readers(150, 120) }), 120);
    assertEquals(tailOf({ end: 100, reserved: 300, cursors: readers(150, 120) }), 120);
  });

  test("after all that an earlier source has sent", () => {
    assertEquals(tailOf({ end: 100, origin: { shift: 5, since: 200 } }), 200);
    assertEquals(tailOf({ end: 100, origin: { shift: 5, since: 90 } }), 100);
  });

  test("after what was stored once, where there is no source", () => {
    assertEquals(tailOf({ end: 100, closedEnd: 300 }), 100);
    assertEquals(tailOf({ end: 100, closedEnd: 300 }, true), 300);
    assertEquals(tailOf({ end: 100, closedEnd: 30 }, true), 100);
  });

  test("with its origin", () => {
    const origin = { stream: "up", shift: 1000, since: 50 };
    const { stream } = made({ log: { end: 100, origin } });
    assertEquals([stream.position, stream.originStream], [1100, "up"]);
    assertEquals(made({ log: null }).stream.position, 0);
    assertEquals(made({ log: null }).stream.originStream, undefined);
  });
});

describe("a stream with a source that cannot begin again continues", () => {
  const streamOf = (log: Partial<MadeLog>) => made({ log, replayable: false }).stream;

  test("after all offsets that may have been used", () => {
    assertEquals(streamOf({}).tail, 0);
    assertEquals(streamOf({ end: 100, reserved: 80 }).tail, 100);
    assertEquals(streamOf({ end: 100, cursors: readers(30, 130, 120) }).tail, 130);
    assertEquals(streamOf({ end: 100, reserved: 180, cursors: readers(30, 130) }).tail, 180);
  });

  test("without a lag of the offsets that are lost", () => {
    const stream = streamOf({ end: 100, reserved: 180, cursors: readers(30, 100) });
    assertEquals([...stream.cursors].map((cursor) => stream.unstoredFor(cursor)), [0, 0]);
    const [, other] = stream.cursors;
    assertEquals(stream.lagOf(other!).lagBytes, 0);
  });
});

test("a stream continues with its readers", () => {
  const log = { end: 100, reserved: 180, cursors: readers(30, 130) };
  const { stream } = made({ log });
  const [one, other] = stream.cursors;
  assertEquals([one!.name, one!.delivered, one!.sent, one!.offered], ["r0", 30, 30, 180]);
  assertEquals([other!.name, other!.delivered, other!.offered], ["r1", 130, 180]);
  assertEquals([one!.stored === log.cursors[0], stream.cursors.size], [true, 2]);
});

test("a stream tells at once which readers are away", () => {
  const log = logOf(0);
  log.cursors = readers(30);
  const { events } = made({ log });
  assertEquals(events, [{ of: "r0", event: "spilling", why: "absent", backlog: 70 }]);
});

describe("the oldest messages for a new reader", () => {
  test("are those in memory, where nothing is stored", async () => {
    for (const log of [null, {}]) {
      const { stream, add, push } = made({ log });
      push(30);
      assertEquals([stream.oldest, stream.beginning("oldest"), stream.beginning("now")], [
        ...[30, 30, 30],
      ]);
      await add("a", 30);
      push(20);
      assertEquals([stream.oldest, stream.beginning("oldest"), stream.beginning("now")], [
        ...[30, 30, 50],
      ]);
    }
  });

  test("are on disk, where memory continues it", async () => {
    const { stream, add, push } = made({ log: logOf(50, 150) });
    assertEquals([stream.oldest, stream.beginning("now")], [50, 250]);
    await add("a", 250);
    push(20);
    assertEquals([stream.oldest, stream.beginning("oldest")], [50, 50]);
  });

  test("are in memory, where the disk ends before it", async () => {
    const { stream, add, push } = made({ log: logOf(0) });
    push(20);
    assertEquals(stream.oldest, 120);
    await add("a", 120);
    push(20);
    assertEquals(stream.oldest, 120);
  });

  test("are on disk, where only lost offsets are between", async () => {
    const log = Object.assign(logOf(0), { reserved: 150 });
    const { stream, add, push } = made({ log, replayable: false });
    assertEquals(stream.oldest, 0);
    await add("a", 150);
    push(20);
    assertEquals(stream.oldest, 0);
    // Nothing is stored, or all of it is deleted.
    assertEquals(made({ log: { reserved: 150 }, replayable: false }).stream.oldest, 150);
    // What was lost begins after what is stored: a reader had more.
    const more = Object.assign(logOf(0), { reserved: 150, cursors: readers(130) });
    assertEquals(made({ log: more, replayable: false }).stream.oldest, 150);
    const late = made({ log: Object.assign(logOf(0), { reserved: 150 }), replayable: false });
    late.push(20);
    assertEquals(late.stream.oldest, 170);
  });

  test("begin where what is stored has no gap", async () => {
    const log = logOf(0);
    const { stream, push, add } = made({ log, durable: true });
    await add("a", 255);
    push(100, 150);
    push(10, 250);
    await settle();
    assertEquals([log.end, log.start], [250, 0]);
    assertEquals(stream.oldest, 150);
  });

  test("are all that is stored, since the database was made anew", () => {
    const { stream } = made({ log: Object.assign(logOf(50), { repairedEnd: 100 }) });
    assertEquals([stream.beginning("now"), stream.beginning("oldest")], [50, 50]);
    const other = made({ log: Object.assign(logOf(50), { repairedEnd: 50 }) });
    assertEquals(other.stream.beginning("now"), 150);
    const empty = made({ log: { start: 100, end: 100, repairedEnd: 200 } });
    assertEquals([empty.stream.tail, empty.stream.beginning("now")], [100, 100]);
    empty.push(10);
    assertEquals(empty.stream.beginning("now"), 110);
  });
});

describe("what the source may discard", () => {
  test("is counted in its positions", async () => {
    const { stream, add, push } = made({ log: null });
    assertEquals(stream.safePosition, undefined);
    const cursor = await add("a", 0);
    assertEquals(stream.safePosition, 0);
    stream.follow("up", 1000);
    push(50);
    assertEquals(stream.safePosition, 1000);
    stream.acknowledge(cursor, 20);
    assertEquals(stream.safePosition, 1020);
  });

  test("is nothing of an upstream from before this one", async () => {
    const { stream, add, push } = made({ log: null });
    const cursor = await add("a", 0);
    push(50);
    stream.follow("up", 1000);
    assertEquals(stream.safePosition, undefined);
    stream.acknowledge(cursor, 49);
    assertEquals(stream.safePosition, undefined);
    stream.acknowledge(cursor, 50);
    assertEquals(stream.safePosition, 1000);
  });

  test("is known only once it is recorded which upstream this is", async () => {
    const { stream, add, log } = made();
    await add("a", 0);
    assertEquals(stream.safePosition, 0);
    let record = () => {};
    log.held.set("setOrigin", new Promise((resolve) => record = resolve));
    stream.follow("up", 1000);
    await settle();
    assertEquals(stream.safePosition, undefined);
    record();
    await settle();
    assertEquals(stream.safePosition, 1000);
  });
});

describe("an upstream", () => {
  test("is followed from its position on", async () => {
    const { stream, log, push } = made();
    push(50);
    assertEquals(stream.follow("up", 1000), false);
    assertEquals([stream.originStream, stream.position, stream.tail], ["up", 1000, 50]);
    await settle();
    assertEquals(log.origin, { stream: "up", shift: 950, since: 50 });
    assertEquals(stream.follow("up", 3000), false);
    await settle();
    assertEquals([stream.position, log.calls], [1000, ["setOrigin"]]);
    push(20, 1000);
    push(20, 1010);
    assertEquals([stream.tail, stream.position, stream.duplicates], [80, 1030, 1]);
  });

  test("that is the first one goes on, though a reader may have more", () => {
    const { stream } = made({ log: { end: 100, reserved: 500, cursors: readers(100) } });
    assertEquals(stream.follow("up", 1000), false);
    assertEquals([stream.tail, stream.position], [100, 1000]);
  });

  test("that replaces another one begins after all that may have been sent", async () => {
    const { stream, log, push, add, events } = made();
    stream.follow("up", 0);
    await settle();
    const [cursor, other] = [await add("a", 0), await add("b", 0)];
    push(50);
    // An earlier process has sent more.
    other.sent = 70;
    other.inFlight = 10;
    assertEquals(stream.follow("other", 1000), true);
    assertEquals([stream.originStream, stream.position, stream.tail], ["other", 1000, 80]);
    await settle();
    assertEquals(log.origin, { stream: "other", shift: 920, since: 80 });
    // The offsets between have no bytes.
    assertEquals(stream.unstoredFor(cursor), 50);
    push(20);
    assertEquals(await allOf(stream, cursor), [
      ["memory", 0, 50, 0, 5],
      80,
      ["memory", 80, 100, 80, 2],
    ]);
    assertEquals(events, [
      { of: "a", event: "gap", from: 50, to: 80, why: "source", atMost: true },
    ]);
  });

  test("that replaces another one loses nothing where no reader has more", async () => {
    const { stream, push, add, events } = made({
      log: { end: 100, reserved: 130, origin: { stream: "up", shift: 0, since: 0 } },
      replayable: false,
    });
    const cursor = await add("a", 100);
    assertEquals(stream.tail, 130);
    assertEquals(stream.follow("other", 1000), true);
    assertEquals([stream.tail, stream.position], [130, 1000]);
    push(10);
    await settle();
    stream.skip(cursor, 130);
    stream.reportGaps();
    // What was lost before is still known.
    assertEquals(events, [
      { of: "a", event: "gap", from: 100, to: 130, why: "killed", atMost: true },
    ]);
  });

  test("adds nothing before it is recorded which offsets are its own", async () => {
    const { stream, log, push, told } = made();
    const records: (() => void)[] = [];
    const hold = () => log.held.set("setOrigin", new Promise((resolve) => records.push(resolve)));
    hold();
    stream.follow("up", 1000);
    const pushed = push(10);
    await settle();
    assertEquals([stream.tail, pushed !== undefined], [0, true]);
    // The first record ends while the next one is written.
    hold();
    stream.follow("other", 2000);
    records[0]!();
    await settle();
    assertEquals([stream.tail, stream.originStream, told.fresh], [0, "other", 0]);
    const next = push(10);
    assertEquals(next !== undefined, true);
    records[1]!();
    await atOnce(next);
    assertEquals(stream.tail > 0, true);
    assertEquals(push(10), undefined);
  });

  test("fails with the queue", async () => {
    const { stream, errors, push } = made({ log: { failing: "setOrigin" } });
    stream.follow("up", 1000);
    await atOnce(push(10));
    assertEquals([errors, stream.tail], [["no setOrigin"], 10]);
  });

  test("is forgotten where a source without positions adds to the stream", async () => {
    const origin: Origin = { stream: "up", shift: 1000, since: 0 };
    const { stream, log, push } = made({ replayable: false, log: { end: 100, origin } });
    const pushed = push(10, 0);
    assertEquals([stream.tail, stream.originStream], [100, undefined]);
    await atOnce(pushed);
    assertEquals([stream.tail, stream.position], [110, 110]);
    assertEquals(log.origin, { shift: 0, since: 100 });
    assertEquals(push(10, 0), undefined);
    assertEquals(log.calls.filter((call) => call === "setOrigin").length, 1);
    // One with positions goes on.
    const other = made({ log: { end: 100, origin } });
    other.push(10);
    assertEquals([other.stream.originStream, other.log.calls], ["up", []]);
  });
});

describe("offsets that nothing has after a restart", () => {
  const lagsOf = (log: MadeLog, options: Parameters<typeof made>[0]) => {
    const { stream, events } = made({ log, ...options });
    const lags = [...stream.cursors].map((cursor) => stream.lagOf(cursor).lagBytes);
    return { tail: stream.tail, lags, events };
  };

  test("are no lag where another reader had got them from memory", () => {
    const log = Object.assign(logOf(0), { reserved: 180, cursors: readers(100, 130) });
    assertEquals(lagsOf(log, { replayable: false }), { tail: 180, lags: [0, 0], events: [] });
  });

  test("are no lag where they came from an upstream that was replaced", () => {
    const log = Object.assign(logOf(0), { cursors: readers(100, 230) });
    log.origin = { stream: "up", shift: 0, since: 200 };
    assertEquals(lagsOf(log, {}), { tail: 200, lags: [0, 0], events: [] });
  });

  test("are no lag where they were stored once", () => {
    const log = Object.assign(logOf(0), { closedEnd: 300, cursors: readers(100) });
    assertEquals(lagsOf(log, { sourceless: true }), { tail: 300, lags: [0], events: [] });
  });
});
