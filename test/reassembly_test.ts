/** Whole messages from chunks: what is delivered, skipped and kept, byte by byte. */
import { describe, test } from "node:test";
import { assert, assertEquals, assertRejects } from "#std/assert";
import { createFramer } from "../src/message/frame.ts";
import { type Frame, FrameError } from "../src/message/framer.ts";
import { Reassembly } from "../src/message/reassembly.ts";

const LINE: Frame = { kind: "line" };
const FOUR: Frame = { kind: "fixed", size: 4 };
/** A block begins with so many bytes. */
const BLOCK = 4096;
const MIB = 1 << 20;

const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text);
const textOf = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

/** A reassembly that notes what it delivers: the bytes, and how many messages they are. */
function reassemblyOf(
  frame: Frame,
  { asynchronous = false, longest }: { asynchronous?: boolean; longest?: number } = {},
) {
  const delivered: [text: string, messages: number][] = [];
  const reassembly = new Reassembly(createFramer(frame, longest), (bytes, messages) => {
    const index = delivered.push([textOf(bytes), messages]) - 1;
    if (!asynchronous) return undefined;
    // They stay as they are until it has settled.
    return Promise.resolve().then(() => assertEquals(textOf(bytes), delivered[index]![0]));
  });
  return { reassembly, delivered };
}

/** One that skips lines of more than 8 bytes, and notes all in its order. */
function skipping(asynchronous: boolean) {
  const noted: string[] = [];
  const note = (what: string) => {
    // A mistake would repeat it for ever.
    if (noted.push(what) > 100) throw new Error("it does not end");
  };
  const reassembly = new Reassembly(createFramer(LINE, 8), (bytes, messages) => {
    note(`${messages}: ${textOf(bytes).replaceAll("\n", ";")}`);
    return asynchronous ? Promise.resolve() : undefined;
  }, {
    found: () => note("found"),
    skipped: (bytes) => note(`skipped ${bytes}`),
  });
  return { reassembly, noted };
}

/** The size of the block that holds what is incomplete. */
const blockOf = ({ partial }: Reassembly): number => partial.buffer.byteLength;

/** A chunk of a long line. */
const x = (length: number): Uint8Array => new Uint8Array(length).fill(120);

describe("whole messages", () => {
  for (const asynchronous of [false, true]) {
    const how = asynchronous ? "to a sink that takes its time" : "to a sink that is done at once";

    test(`${how}: what crosses chunks comes alone, the rest together`, async () => {
      const { reassembly, delivered } = reassemblyOf(FOUR, { asynchronous });
      const steps: [chunk: string, delivered: [string, number][], partial: string][] = [
        ["", [], ""],
        ["aaaa", [["aaaa", 1]], ""],
        ["bbbbccccd", [["bbbbcccc", 2]], "d"],
        ["d", [], "dd"],
        // As many bytes before the first end as after the last one.
        ["ddeeeeff", [["dddd", 1], ["eeee", 1]], "ff"],
        ["ff", [["ffff", 1]], ""],
        ["g", [], "g"],
        ["ggghhhhiiiijjjj", [["gggg", 1], ["hhhhiiiijjjj", 3]], ""],
        ["kkkkl", [["kkkk", 1]], "l"],
        ["lllm", [["llll", 1]], "m"],
        ["mmmnnnn", [["mmmm", 1], ["nnnn", 1]], ""],
      ];
      for (const [chunk, expected, partial] of steps) {
        const taking = reassembly.take(bytesOf(chunk));
        // Nothing is waited for but the sink.
        assertEquals(taking instanceof Promise, asynchronous && expected.length > 0);
        await taking;
        assertEquals(delivered.splice(0), expected);
        assertEquals(textOf(reassembly.partial), partial);
      }
    });
  }

  test("views of the chunk, unless they cross", () => {
    const chunks = ["aaaabbbb", "cccc", "dd", "ddeeee"].map(bytesOf);
    const views: Uint8Array[] = [];
    const reassembly = new Reassembly(createFramer(FOUR), (bytes) => void views.push(bytes));
    for (const chunk of chunks) reassembly.take(chunk);
    const chunkOf = ({ buffer }: Uint8Array) =>
      chunks.findIndex((chunk) => chunk.buffer === buffer);
    assertEquals(views.map(chunkOf), [0, 1, -1, 3]);
    assertEquals(views.map(({ byteOffset }) => byteOffset), [0, 0, 0, 2]);
  });

  test("reset: the next chunk begins with a message", () => {
    const { reassembly, delivered } = reassemblyOf(FOUR);
    reassembly.take(bytesOf("aaaabbb"));
    reassembly.reset();
    assertEquals(reassembly.partial.length, 0);
    reassembly.take(bytesOf("ccccd"));
    assertEquals([delivered, textOf(reassembly.partial)], [[["aaaa", 1], ["cccc", 1]], "d"]);
  });

  test("one that is too long: what is before it is delivered, and the stream is over", async () => {
    for (const asynchronous of [false, true]) {
      const { reassembly, delivered } = reassemblyOf(LINE, { asynchronous, longest: 8 });
      await reassembly.take(bytesOf("o"));
      const fails = (chunk: string) =>
        assertRejects(async () => await reassembly.take(bytesOf(chunk)), FrameError, "than 8,");
      await fails("ne\ntwo\nthree\nfour is long\nfive\n");
      assertEquals(delivered, [["one\n", 1], ["two\nthree\n", 2]]);
      await fails("six\n");
      assertEquals(delivered.length, 2);
      reassembly.reset();
      await reassembly.take(bytesOf("seven\n"));
      assertEquals(delivered[2], ["seven\n", 1]);
    }
  });
});

describe("messages that are skipped", () => {
  for (const asynchronous of [false, true]) {
    const how = asynchronous ? "a sink that takes its time" : "a sink that is done at once";

    test(`are counted with the bytes that came earlier: ${how}`, async () => {
      const steps: [chunk: string, noted: string[], partial: string][] = [
        ["a\nb\nc", ["2: a;b;"], "c"],
        // In one chunk, between others, of which the first crosses.
        ["c\nd\n12345678\ne\nf", ["1: cc;", "1: d;", "found", "skipped 9", "1: e;"], "f"],
        ["f\n", ["1: ff;"], ""],
        // Over several chunks, the first of which it fits in.
        ["g\n12345", ["1: g;"], "12345"],
        ["6789", ["found"], ""],
        ["012", [], ""],
        ["", [], ""],
        ["34\n", ["skipped 15"], ""],
        // One byte of the next message comes together with its end.
        ["123456789", ["found"], ""],
        ["\nh", ["skipped 10"], "h"],
        ["\n", ["1: h;"], ""],
        ["123456789\ni", ["found", "skipped 10"], "i"],
        ["i\n123456789\n", ["1: ii;", "found", "skipped 10"], ""],
        // Several in one chunk, the last one unfinished.
        ["123456789\n12345678\nj\n1234567890", [
          ...["found", "skipped 10", "found", "skipped 9", "1: j;", "found"],
        ], ""],
        ["1\nkk\n123456789", ["skipped 12", "1: kk;", "found"], ""],
        ["\n1234567\n", ["skipped 10", "1: 1234567;"], ""],
      ];
      const { reassembly, noted } = skipping(asynchronous);
      for (const [chunk, expected, partial] of steps) {
        await reassembly.take(bytesOf(chunk));
        assertEquals(noted.splice(0), expected, `after ${JSON.stringify(chunk)}`);
        assertEquals(textOf(reassembly.partial), partial);
      }
    });
  }
});

describe("the block of an incomplete message", () => {
  test("begins small, and at least doubles where it is too small", () => {
    const { reassembly, delivered } = reassemblyOf(LINE);
    reassembly.take(x(10));
    assertEquals(blockOf(reassembly), BLOCK);
    const { buffer } = reassembly.partial;
    reassembly.take(x(BLOCK - 10));
    assert(reassembly.partial.buffer === buffer);
    reassembly.take(bytesOf("y"));
    assertEquals(blockOf(reassembly), 2 * BLOCK);
    reassembly.take(x(20_000));
    assertEquals(blockOf(reassembly), BLOCK + 20_001);
    reassembly.take(bytesOf("\n"));
    const expected = `${"x".repeat(BLOCK)}y${"x".repeat(20_000)}\n`;
    assert(delivered.length === 1 && delivered[0]![0] === expected);
  });

  test("is used again up to 1 MiB, and freed beyond", () => {
    const { reassembly } = reassemblyOf(LINE);
    const fill = (length: number) => {
      reassembly.reset();
      reassembly.take(x(length));
      return blockOf(reassembly);
    };
    assertEquals(fill(MIB), MIB);
    const { buffer } = reassembly.partial;
    assertEquals(fill(5), MIB);
    assert(reassembly.partial.buffer === buffer);
    assertEquals(fill(MIB + 1), 2 * MIB);
    // As long as it is needed, it stays.
    assertEquals(fill(MIB + 1), 2 * MIB);
    assertEquals(fill(MIB), MIB);
    assertEquals(fill(MIB + 1), 2 * MIB);
    assertEquals(fill(5000), 5000);
    assertEquals(fill(MIB + 1), MIB + 1);
    assertEquals(fill(5), BLOCK);
  });

  test("is not freed while it holds the beginning of a message", () => {
    const { reassembly } = reassemblyOf(LINE);
    reassembly.take(x(700_000));
    reassembly.take(bytesOf("y"));
    reassembly.take(bytesOf("z"));
    assertEquals(blockOf(reassembly), 1_400_000);
    const { partial } = reassembly;
    assertEquals([partial.length, textOf(partial.subarray(-3))], [700_002, "xyz"]);
  });
});
