/** What a stream sends next to a reader: from memory or from disk, and where there is nothing. */
import { describe, test as plainTest } from "node:test";
import { assert, assertEquals, assertRejects } from "#std/assert";
import { type MadeClock, settle, withClock } from "./made_clock.ts";
import { allOf, atOnce, made, MadeLog, nextOf } from "./made_stream.ts";

const test = (title: string, body: (clock: MadeClock) => void | Promise<void>) =>
  plainTest(title, () => withClock(body));

describe("what is sent next", () => {
  test("is nothing at the end, and with `durable` at the end of what is stored", async () => {
    const { stream, push, add, log } = made({ durable: true });
    const cursor = await add("a", 0);
    assertEquals(await nextOf(stream, cursor), undefined);
    let store = () => {};
    log.held.set("append", new Promise((resolve) => store = resolve));
    push(100);
    push(10);
    await settle();
    assertEquals(await nextOf(stream, cursor), undefined);
    store();
    await settle();
    assertEquals(await allOf(stream, cursor), [["memory", 0, 100, 0, 10]]);
    log.end = 105;
    assertEquals(await nextOf(stream, cursor), ["memory", 100, 105, 100, 1]);
    // Not more than there is.
    log.end = 1000;
    assertEquals(await allOf(stream, cursor), [["memory", 100, 110, 100, 1]]);
  });

  test("comes from memory, from where the reader is in a block up to a hole", async () => {
    const { stream, push, add } = made();
    const cursor = await add("a", 0);
    push(80);
    cursor.sent = 15;
    assertEquals(await nextOf(stream, cursor), ["memory", 15, 80, 0, 8]);
    cursor.holes.push({ from: 30, to: 50 });
    assertEquals(await nextOf(stream, cursor), ["memory", 15, 30, 0, 8]);
    cursor.sent = 30;
    assertEquals(await nextOf(stream, cursor), 50);
    cursor.sent = 50;
    assertEquals(await nextOf(stream, cursor), ["memory", 50, 80, 0, 8]);
    cursor.sent = 80;
    assertEquals(await nextOf(stream, cursor), undefined);
  });

  test("may have to end with a message: then it is so many bytes at most, or one message", async () => {
    const { stream, push, add } = made();
    const cursor = await add("a", 0);
    push(100);
    const piece = await stream.next(cursor);
    assert(typeof piece === "object");
    const wholes = [[0, 35, 30], [0, 30, 30], [0, 5, 10], [15, 12, 5], [15, 2, 5], [90, 1, 10]];
    for (const [sent, most, whole] of [...wholes, [0, 100, 100], [20, 1000, 80]]) {
      assertEquals(stream.wholeMessages(piece, sent!, most!), whole, `${sent}, at most ${most}`);
    }
  });

  test("comes from the disk where memory has it no more", async () => {
    const log = new MadeLog();
    log.store(0, 100);
    log.store(150, 50);
    const { stream, add, push } = made({ log });
    const cursor = await add("a", 0);
    push(30);
    cursor.sent = 20;
    assertEquals(await nextOf(stream, cursor), ["disk", 20, 100, 0, 10]);
    cursor.holes.push({ from: 60, to: 70 });
    assertEquals(await nextOf(stream, cursor), ["disk", 20, 60, 0, 10]);
    cursor.sent = 99;
    assertEquals(await nextOf(stream, cursor), ["disk", 99, 100, 0, 10]);
    cursor.sent = 100;
    assertEquals(await nextOf(stream, cursor), 150);
    cursor.sent = 150;
    assertEquals(await nextOf(stream, cursor), ["disk", 150, 200, 150, 5]);
    cursor.sent = 200;
    assertEquals(await nextOf(stream, cursor), ["memory", 200, 230, 200, 3]);
  });

  test("is in memory where neither has what is before it", async () => {
    const log = new MadeLog();
    log.store(0, 100);
    const { stream, add, push } = made({ log });
    const cursor = await add("a", 0);
    push(30, 140);
    cursor.sent = 100;
    assertEquals(await nextOf(stream, cursor), 140);
    cursor.sent = 120;
    assertEquals(await nextOf(stream, cursor), 140);
    assertEquals(log.calls.filter((call) => call.startsWith("read")), []);
  });

  test("is at the end where nobody has anything any more", async () => {
    const { stream, push, add } = made();
    push(30);
    const cursor = await add("a", 10);
    assertEquals(await nextOf(stream, cursor), 30);
    const without = made({ log: null });
    without.push(30);
    assertEquals(await nextOf(without.stream, await without.add("a", 0)), 30);
    const log = new MadeLog();
    log.end = 40;
    const other = made({ log });
    const late = await other.add("a", 10);
    assertEquals(await nextOf(other.stream, late), 40);
  });

  test("fails with the log", async () => {
    const log = new MadeLog();
    log.store(0, 100);
    const { stream, add } = made({ log });
    const cursor = await add("a", 0);
    log.failing = "read";
    await assertRejects(() => atOnce(stream.next(cursor)), Error, "no read");
  });

  test("may have come into memory while the disk was read", async () => {
    const log = new MadeLog();
    log.store(0, 100);
    const { stream, add } = made({ log });
    const cursor = await add("a", 0);
    cursor.sent = 50;
    let read = () => {};
    log.held.set("read", new Promise((resolve) => read = resolve));
    const next = stream.next(cursor);
    log.batches = [];
    log.start = 100;
    read();
    assertEquals(await atOnce(next), 100);
  });
});

describe("where a reader can go on", () => {
  test("is where there are bytes that are not dropped for it", async () => {
    const log = new MadeLog();
    log.store(0, 100);
    log.store(150, 50);
    const { stream, add, push } = made({ log });
    const cursor = await add("a", 0);
    push(50, 230);
    const available = (offset: number) => atOnce(stream.available(cursor, offset));
    assertEquals(await available(20), 20);
    assertEquals(await available(100), 150);
    assertEquals(await available(199), 199);
    log.calls.length = 0;
    assertEquals([await available(200), await available(240)], [230, 240]);
    assertEquals([await available(280), await available(300)], [280, 300]);
    assertEquals(log.calls, []);
    cursor.holes.push({ from: 50, to: 100 }, { from: 235, to: 280 });
    assertEquals([await available(60), await available(240)], [150, 280]);
    assertEquals(await available(234), 234);
  });

  test("is the end where there is nothing", async () => {
    const { stream, add, push } = made({ log: null });
    push(30);
    const cursor = await add("a", 0);
    assertEquals(await atOnce(stream.available(cursor, 0)), 30);
    assertEquals(await atOnce(stream.available(cursor, 10)), 30);
  });

  test("begins with a whole message, in memory or on disk", async () => {
    const log = new MadeLog();
    log.store(5, 100);
    const { stream, add, push } = made({ log });
    const cursor = await add("a", 0);
    push(50, 125);
    const startAt = (delivered: number) => {
      cursor.delivered = delivered;
      return atOnce(stream.startOfMessage(cursor));
    };
    assertEquals([await startAt(5), await startAt(14), await startAt(15)], [5, 5, 15]);
    assertEquals([await startAt(3), await startAt(104)], [3, 95]);
    log.calls.length = 0;
    assertEquals([await startAt(105), await startAt(110)], [105, 110]);
    assertEquals([await startAt(125), await startAt(134), await startAt(175)], [125, 125, 175]);
    assertEquals(log.calls, []);
    const empty = made({ log: null });
    assertEquals(await atOnce(empty.stream.startOfMessage(await empty.add("a", 7))), 7);
    empty.push(30);
    assertEquals(await atOnce(empty.stream.startOfMessage(await empty.add("b", 0))), 0);
  });
});
