/** The cursor of a log on disk: what it tells its log, and when it calls an offset durable. */
import { describe, test } from "node:test";
import { assert, assertEquals, assertThrows } from "#std/assert";
import { checkName, type CursorLog, DiskCursor } from "../src/queue/disk_cursor.ts";
import { QueueError } from "../src/queue/queue.ts";

/** A log that notes what it is told, and records it when the test says so. */
class MadeLog implements CursorLog {
  readonly calls: string[] = [];
  readonly #recorded: (() => void)[] = [];

  putCursor({ name, offset, durable, acknowledges }: DiskCursor): void {
    this.calls.push(`put ${name} ${offset} ${durable}${acknowledges ? " acknowledges" : ""}`);
  }

  recorded(): Promise<void> {
    this.calls.push("recorded");
    return new Promise((resolve) => this.#recorded.push(resolve));
  }

  forget(name: string): Promise<void> {
    this.calls.push(`forget ${name}`);
    return Promise.resolve();
  }

  /** What the first of those who wait has put is durable. */
  record(): void {
    this.#recorded.shift()!();
  }
}

const placesOf = ({ offset, durable }: DiskCursor) => [offset, durable];

describe("DiskCursor", () => {
  test("begins where it is told", () => {
    for (const [acknowledges, recorded] of [[true, false], [false, true]] as const) {
      const log = new MadeLog();
      const cursor = new DiskCursor(log, "me", 7, acknowledges, recorded);
      assertEquals([cursor.name, ...placesOf(cursor)], ["me", 7, 7]);
      assertEquals([cursor.acknowledges, cursor.recorded], [acknowledges, recorded]);
      assertEquals(log.calls, []);
    }
  });

  test("a release moves it forth only, and is put each time it does", () => {
    const log = new MadeLog();
    const cursor = new DiskCursor(log, "me", 100, false, true);
    for (const offset of [0, 99, 100]) cursor.release(offset);
    assertEquals([placesOf(cursor), log.calls], [[100, 100], []]);
    cursor.release(101);
    cursor.release(2 ** 40);
    cursor.release(2 ** 40);
    cursor.release(102);
    // The log says what is durable.
    assertEquals(placesOf(cursor), [2 ** 40, 100]);
    assertEquals(log.calls, ["put me 101 100", `put me ${2 ** 40} 100`]);
  });

  test("moved back: what it needs is needed at once", async () => {
    const log = new MadeLog();
    const cursor = new DiskCursor(log, "me", 100, false, true);
    const seeking = cursor.seek(30);
    assertEquals(placesOf(cursor), [30, 30]);
    assertEquals(log.calls, ["put me 30 30", "recorded"]);
    log.record();
    await seeking;
    assertEquals(placesOf(cursor), [30, 30]);
    assertEquals(log.calls.length, 2);
  });

  test("moved forth: what is before it is needed until that is recorded", async () => {
    const log = new MadeLog();
    const cursor = new DiskCursor(log, "me", 100, false, true);
    let settled = false;
    const seeking = cursor.seek(300).then(() => settled = true);
    // Longer than it takes where nothing is waited for.
    for (let i = 0; i < 10; i++) await Promise.resolve();
    assertEquals([placesOf(cursor), settled], [[300, 100], false]);
    assertEquals(log.calls, ["put me 300 100", "recorded"]);
    log.record();
    await seeking;
    assertEquals(placesOf(cursor), [300, 300]);
  });

  test("moved back before an earlier move is recorded: what it needs now stays needed", async () => {
    const log = new MadeLog();
    const cursor = new DiskCursor(log, "me", 100, false, true);
    const [first, second] = [cursor.seek(50), cursor.seek(20)];
    log.record();
    await first;
    assertEquals(placesOf(cursor), [20, 20]);
    log.record();
    await second;
    assertEquals(placesOf(cursor), [20, 20]);
  });

  test("that its reader acknowledges is put once, and durable when settled", async () => {
    const log = new MadeLog();
    const cursor = new DiskCursor(log, "me", 5, false, true);
    let settled = false;
    const setting = cursor.setAcknowledges().then(() => settled = true);
    for (let i = 0; i < 10; i++) await Promise.resolve();
    assertEquals([cursor.acknowledges, settled], [true, false]);
    assertEquals(log.calls, ["put me 5 5 acknowledges", "recorded"]);
    log.record();
    await setting;
    await cursor.setAcknowledges();
    assertEquals([cursor.acknowledges, log.calls.length], [true, 2]);
    assertEquals(placesOf(cursor), [5, 5]);
  });

  test("is forgotten by its log", async () => {
    const log = new MadeLog();
    const forgetting = new DiskCursor(log, "me", 5, false, true).forget();
    assert(forgetting instanceof Promise);
    await forgetting;
    assertEquals(log.calls, ["forget me"]);
  });
});

test("names are one line of up to 200 characters", () => {
  // The shared stream has the key "".
  for (const name of ["", "a", "é ü", "x".repeat(200)]) checkName(name);
  for (const name of ["\n", "a\0", "a\u007fb", "x".repeat(201)]) {
    const { message } = assertThrows(() => checkName(name), QueueError);
    const shown = JSON.stringify(name.slice(0, 60));
    assertEquals(message, `the reader's name ${shown} must be one line of 1 to 200 characters`);
  }
});
