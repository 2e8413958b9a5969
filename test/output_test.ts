/** What a reader puts out: counted by messages, by their numbers, from a file and from connections. */
import { after, describe, test } from "node:test";
import {
  appendFileSync,
  mkdtempSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assertEquals, assertThrows } from "#std/assert";
import { parseFrame } from "../src/message/frame.ts";
import { loadAdapter } from "../src/net/load.ts";
import { FileTail } from "../src/output/file_tail.ts";
import { formatOutputPlace, Output, parseOutputPlace } from "../src/output/output.ts";
import { type CounterOptions, OutputCounter } from "../src/output/output_counter.ts";
import { UnitError } from "../src/text/units.ts";
import { until, within } from "./within.ts";

const folder = mkdtempSync(join(tmpdir(), "speedlimit-output-"));
after(() => rmSync(folder, { recursive: true }));

const encode = (text: string) => new TextEncoder().encode(text);

/** Of an output in pieces of so many bytes: messages, lost, duplicated, reordered. */
function counted(text: string, options: Partial<CounterOptions> = {}, piece = 7): number[] {
  let nowMs = 0;
  const now = () => nowMs;
  const counter = new OutputCounter({ frame: { kind: "line" }, numbered: false, now, ...options });
  const bytes = encode(text);
  for (let at = 0; at < bytes.length; at += piece) counter.push(bytes.slice(at, at + piece));
  assertEquals([counter.error, counter.lost], [undefined, 0]);
  nowMs = 1000;
  return [counter.messages, counter.lost, counter.duplicated, counter.reordered];
}

const numbers = (...values: number[]) => values.map((n) => `x ${1e9 + n} y\n`).join("");

describe("an output", () => {
  for (const piece of [1, 3, 1000]) {
    test(`in pieces of ${piece} bytes: whole messages count`, () => {
      assertEquals(counted("a\nbb\n\nrest", {}, piece), [3, 0, 0, 0]);
      assertEquals(counted("12345678", { frame: parseFrame("fixed:3") }, piece), [2, 0, 0, 0]);
      assertEquals(counted("2 ok3 not5 x", { frame: parseFrame("octet") }, piece), [2, 0, 0, 0]);
      assertEquals(counted("12345678", { frame: parseFrame("none") }, piece), [8, 0, 0, 0]);
      const match = /^ok/;
      assertEquals(counted("ok 1\nfail\nok 2\nok", { match }, piece), [2, 0, 0, 0]);
    });

    test(`in pieces of ${piece} bytes: numbers tell what is lost, comes twice, or late`, () => {
      const numbered = (text: string, more = {}) =>
        counted(text, { numbered: true, ...more }, piece);
      assertEquals(numbered(numbers(0, 1, 2)), [3, 0, 0, 0]);
      assertEquals(numbered(numbers(0, 3, 4)), [3, 2, 0, 0]);
      // Before the first one the reader was not ready.
      assertEquals(numbered(numbers(1, 2)), [3, 0, 0, 0]);
      // Elsewhere in the message, and beside other digits.
      assertEquals(numbered(`${numbers(0)}longer ${numbers(1)}1000000002\n`), [3, 0, 0, 0]);
      assertEquals(numbered(`${numbers(0)}x 10000000010 1000000001\n`), [2, 0, 0, 0]);
      assertEquals(numbered(`${numbers(0)}x1000000005 1000000001 y\n`), [2, 4, 0, 0]);
      assertEquals(numbered(numbers(0, 2, 1, 3)), [4, 0, 0, 1]);
      assertEquals(numbered(numbers(0, 0, 1, 1, 1)), [2, 0, 3, 0]);
      assertEquals(numbered(numbers(0, 5, 2, 2)), [3, 3, 1, 1]);
      assertEquals(numbered(`no number\n20000000001\n${numbers(0)}`), [1, 0, 0, 0]);
      const text = "1000000009 id=1000000000\n1000000009 id=1000000002\n";
      assertEquals(numbered(text, { match: /id=(\d+)/ }), [2, 1, 0, 0]);
    });
  }

  test("what is late by less than a second is not lost", () => {
    let nowMs = 0;
    const counter = new OutputCounter({
      ...{ frame: { kind: "line" }, numbered: true, now: () => nowMs },
    });
    const seen = (text: string) => {
      counter.push(encode(text));
      return [counter.messages, counter.lost, counter.reordered, counter.waits];
    };
    assertEquals(seen(numbers(0, 3)), [2, 0, 0, true]);
    nowMs = 500;
    assertEquals(seen(numbers(6, 1)), [4, 0, 1, true]);
    nowMs = 1000;
    // Of 1 and 2 one is lost; 4 and 5 may still come.
    assertEquals(seen(""), [4, 1, 1, true]);
    assertEquals(seen(numbers(5, 4)), [6, 1, 3, false]);
    // It was not lost after all.
    assertEquals(seen(numbers(2)), [7, 0, 4, false]);
  });

  test("begins anew with the next reader", () => {
    const counter = new OutputCounter({ frame: { kind: "line" }, numbered: true });
    counter.push(encode(`${numbers(0, 4)}x 10000`));
    counter.begin();
    counter.push(encode(numbers(0, 1)));
    const { messages, lost } = counter;
    assertEquals([messages, lost], [2, 0]);
  });

  test("with another frame than expected is counted no further, and says so", async () => {
    const counter = new OutputCounter({ frame: { kind: "octet" }, numbered: false });
    counter.push(encode("2 okhello"));
    await until("an error", 2000, () => counter.error !== undefined);
    assertEquals(counter.messages, 1);
  });
});

describe("a file", () => {
  const decoder = new TextDecoder();
  const path = join(folder, "app.log");
  const tail = new FileTail(path);
  after(() => tail.close());
  const read = () => {
    let text = "";
    tail.read((bytes) => text += decoder.decode(bytes));
    return text;
  };

  test("is read from where it ends now, also if it is not there yet, is truncated or replaced", () => {
    assertEquals(read(), "");
    writeFileSync(path, "first");
    assertEquals(read(), "first");
    tail.skip();
    assertEquals(read(), "");
    appendFileSync(path, "second");
    assertEquals(read(), "second");
    truncateSync(path, 0);
    appendFileSync(path, "x");
    assertEquals(read(), "x");
    appendFileSync(path, "last of it");
    renameSync(path, `${path}.1`);
    writeFileSync(path, "another");
    assertEquals(read(), "last of it");
    assertEquals(read(), "another");
    appendFileSync(path, "y".repeat(600_000));
    assertEquals(read().length, 600_000);
  });
});

describe("where the output is", () => {
  test("is read from the command line", () => {
    for (const text of ["replies", "stdout", "file:/a:b", "connect:{out}", "listen:127.0.0.1:80"]) {
      assertEquals(formatOutputPlace(parseOutputPlace(text)), text);
    }
    for (const text of ["", "file:", "connect:x", "listen:", "stderr"]) {
      assertThrows(() => parseOutputPlace(text), UnitError);
    }
  });

  test("a reader connects to us, or we to it, again and again", async () => {
    const net = await loadAdapter();
    const options = { frame: { kind: "line" }, numbered: false } as const;
    const into = await Output.open({ place: { kind: "connect" }, ...options }, net, "127.0.0.1");
    const { host, port } = into.address!;
    // It passes on what it is sent, so one output is the other's reader.
    const out = await Output.open({ place: { kind: "listen", host, port }, ...options }, net, host);
    try {
      for (let i = 0; i < 2; i++) {
        const reader = await net.connect({ host, port });
        await reader.write(encode("one\ntwo\n"));
        await until("two messages", 5000, () => into.counter.messages === 2);
        into.begin();
        assertEquals(into.counter.messages, 0);
        assertEquals(await within("its end", 5000, reader.read(1)), null);
        reader.close();
      }
    } finally {
      await out.close();
      await into.close();
    }
  });
});
