/** One stream of messages: what is kept of what comes from the source. */
import { describe, test as plainTest } from "node:test";
import { assertEquals } from "#std/assert";
import { LONGEST_WRITE } from "../src/message/message.ts";
import { policyOf } from "../src/send/overflow.ts";
import { type MadeClock, settle, withClock } from "./made_clock.ts";
import { allOf, atOnce, made } from "./made_stream.ts";

const test = (title: string, body: (clock: MadeClock) => void | Promise<void>) =>
  plainTest(title, () => withClock(body));

/** Whole messages of these lengths; each begins with a 1. */
const messages = (...lengths: number[]) =>
  Uint8Array.from(lengths.flatMap((length) => Array.from({ length }, (_, i) => i === 0 ? 1 : 0)));
const floor = (bytes: Uint8Array, offset: number) =>
  offset >= bytes.length ? bytes.length : bytes.lastIndexOf(1, offset);

describe("what comes from the source", () => {
  test("is counted, and told", async () => {
    const { stream, push, told, add } = made();
    await add("a", 0);
    assertEquals(push(30), undefined);
    assertEquals([stream.tail, stream.position, stream.messages, told.fresh], [30, 30, 3, 1]);
    push(20);
    assertEquals([stream.tail, stream.position, stream.messages, told.fresh], [50, 50, 5, 2]);
    assertEquals(stream.duplicates, 0);
  });

  test("is not kept where there is no reader, unless all is stored", () => {
    const one = made();
    one.push(30);
    assertEquals([one.memory.used, one.stream.tail], [0, 30]);
    const other = made({ durable: true });
    other.push(30);
    assertEquals(other.memory.used, 30);
  });

  test("is taken once where the source begins again", async () => {
    const { stream, push, told, add } = made();
    const cursor = await add("a", 0);
    push(100);
    push(50, 50);
    assertEquals([stream.tail, stream.messages, stream.duplicates, told.fresh], [100, 10, 5, 1]);
    push(50, 80);
    assertEquals([stream.tail, stream.messages, stream.duplicates, told.fresh], [130, 13, 7, 2]);
    assertEquals(await allOf(stream, cursor), [
      ["memory", 0, 100, 0, 10],
      ["memory", 100, 130, 100, 3],
    ]);
  });

  test("is taken once though it is only one byte", () => {
    const { stream } = made();
    stream.push(new Uint8Array(5), 5, 0);
    stream.push(new Uint8Array(3), 3, 4);
    assertEquals([stream.tail, stream.messages, stream.duplicates], [7, 7, 1]);
  });

  test("is taken as it is from a source that cannot begin again", () => {
    const { stream, push } = made({ replayable: false });
    push(100);
    push(50, 50);
    assertEquals([stream.tail, stream.messages, stream.duplicates], [150, 15, 0]);
  });

  test("leaves out offsets where the source has lost something", async () => {
    const { stream, push, add, events } = made();
    const cursor = await add("a", 0);
    push(20);
    push(30, 50);
    assertEquals([stream.tail, stream.messages], [80, 5]);
    assertEquals([stream.pendingOf(cursor), stream.unstoredFor(cursor)], [50, 50]);
    assertEquals(await allOf(stream, cursor), [
      ["memory", 0, 20, 0, 2],
      50,
      ["memory", 50, 80, 50, 3],
    ]);
    assertEquals(events, [{ of: "a", event: "gap", from: 20, to: 50, why: "source" }]);
    // Nothing is left out where nothing is lost.
    push(20);
    stream.accept(cursor, 20);
    assertEquals([stream.tail, events.length], [100, 1]);
  });

  test("still counts offsets that a reader has not passed as none of its backlog", async () => {
    const { stream, push, add } = made();
    const [slow, quick] = [await add("slow", 0), await add("quick", 0)];
    push(10);
    push(10, 20);
    push(10, 40);
    quick.delivered = quick.sent = 45;
    push(10, 60);
    assertEquals(stream.unstoredFor(slow), 40);
    assertEquals(stream.unstoredFor(quick), 15);
    slow.delivered = 30;
    push(10, 80);
    assertEquals(stream.unstoredFor(slow), 30);
    assertEquals(stream.unstoredFor(quick), 25);
  });

  test("is divided where the log could not store it at once", async () => {
    const { stream, push, add } = made();
    const cursor = await add("a", 0);
    push(250);
    assertEquals(await allOf(stream, cursor), [
      ["memory", 0, 100, 0, 10],
      ["memory", 100, 200, 100, 10],
      ["memory", 200, 250, 200, 5],
    ]);
    push(100);
    assertEquals(await allOf(stream, cursor), [["memory", 250, 350, 250, 10]]);
  });

  test("is not divided where the log could store it at once", async () => {
    const { stream, push, add } = made();
    const cursor = await add("a", 0);
    push(10);
    push(100);
    assertEquals(await allOf(stream, cursor), [
      ["memory", 0, 10, 0, 1],
      ["memory", 10, 110, 10, 10],
    ]);
  });

  test("is divided only between messages", async () => {
    const partsOf = async (...lengths: number[]) => {
      const { stream, add } = made({ floor, limit: 1e6 });
      const cursor = await add("a", 0);
      const bytes = messages(...lengths);
      stream.push(bytes, lengths.length, 0);
      const parts: number[][] = [];
      while (cursor.sent < stream.tail) {
        const next = await atOnce(stream.next(cursor));
        if (typeof next !== "object") throw new Error("no bytes");
        assertEquals(next.bytes, bytes.slice(cursor.sent, cursor.sent + next.bytes.length));
        parts.push([next.bytes.length, next.whole.messages]);
        stream.accept(cursor, next.bytes.length);
      }
      return parts;
    };
    assertEquals(await partsOf(60, 60, 60), [[60, 1], [60, 1], [60, 1]]);
    assertEquals(await partsOf(30, 30, 30, 30), [[90, 3], [30, 1]]);
    // The first message is longer than a batch.
    assertEquals(await partsOf(150, 150), [[150, 1], [150, 1]]);
    assertEquals(await partsOf(450, 30), [[450, 2], [30, 0]]);
    assertEquals(await partsOf(150, 1), [[150, 2], [1, 0]]);
    assertEquals(await partsOf(480), [[480, 1]]);
    assertEquals(await partsOf(190, 10, 50, 50), [[200, 3], [100, 1]]);
    assertEquals(await partsOf(1, 150, 100), [[1, 0], [150, 2], [100, 1]]);
    assertEquals(await partsOf(120, 30, 30, 30), [[180, 3], [30, 1]]);
  });

  test("is not divided where there is no log", async () => {
    const { stream, push, add } = made({ log: null });
    const cursor = await add("a", 0);
    push(250);
    assertEquals(await allOf(stream, cursor), [["memory", 0, 250, 0, 25]]);
  });

  test("makes the source wait while all memory is used", async () => {
    const { stream, push, add, memory } = made({ log: null, policy: policyOf("block") });
    const cursor = await add("a", 0);
    assertEquals(push(1000), undefined);
    let rooms = 0;
    void push(10)?.then(() => rooms++);
    await settle();
    assertEquals([rooms, memory.used], [0, 1010]);
    // It goes on once the reader has got enough.
    cursor.sent = 1000;
    stream.acknowledge(cursor, 1000);
    await settle();
    assertEquals([rooms, memory.used], [0, 1010]);
    cursor.sent = 1010;
    stream.acknowledge(cursor, 1010);
    await settle();
    assertEquals([rooms, memory.used], [1, 0]);
  });

  test("makes the source wait no more once the server is ending", async () => {
    const { stream, push, add } = made({ log: null, policy: policyOf("block") });
    await add("a", 0);
    const room = push(1010);
    stream.unblockSource();
    await atOnce(room);
    assertEquals(push(10), undefined);
  });

  test("is let on when the kernel accepts bytes of a policy that waits", async () => {
    const { stream, add } = made({ log: null, policy: policyOf("block"), limit: 1e9 });
    const cursor = await add("a", 0);
    let rooms = 0;
    const room = stream.push(new Uint8Array(LONGEST_WRITE + 10), 1, 0);
    void room?.then(() => rooms++);
    await settle();
    assertEquals([room !== undefined, rooms], [true, 0]);
    stream.accept(cursor, 10);
    await settle();
    assertEquals(rooms, 1);
    assertEquals(cursor.sent, 10);
  });
});

describe("offsets of a source that cannot begin again", () => {
  test("are reserved as they are used", async () => {
    const { push, log } = made({ replayable: false });
    push(10);
    await settle();
    assertEquals(log.calls, ["reserve 65546"]);
    const replayable = made();
    replayable.push(10);
    await settle();
    assertEquals(replayable.log.calls, []);
    made({ replayable: false, log: null }).push(10);
  });

  test("fail with the queue", async () => {
    const { push, errors } = made({ replayable: false, log: { failing: "reserve" } });
    push(10);
    await settle();
    assertEquals(errors, ["no reserve"]);
  });

  test("are reserved before bytes are sent to a reader that acknowledges", async () => {
    const { stream, log } = made();
    await atOnce(stream.reserve(10));
    assertEquals(log.calls, ["reserve 65546"]);
    assertEquals(stream.reserve(20), undefined);
    assertEquals(made({ log: null }).stream.reserve(10), undefined);
  });
});
