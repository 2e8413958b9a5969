/** The newest part of a stream, in memory: which block has a byte, how much there is, what is freed. */
import { describe, test } from "node:test";
import { assert, assertEquals } from "#std/assert";
import { Block, Blocks } from "../src/relay/blocks.ts";
import { withClock } from "./made_clock.ts";

const FIRST = 16_384;

interface Made {
  blocks: Blocks;
  /** Appends so many bytes in one message after the last ones; returns their block. */
  push: (length: number, messages?: number) => Block;
  /** So many offsets have no bytes. */
  skip: (length: number) => void;
  /** Sum of what `onBytes` was told. */
  counted: () => number;
}

function made(longest: number): Made {
  let counted = 0;
  let offset = 0;
  const blocks = new Blocks(longest, (bytes) => counted += bytes);
  return {
    blocks,
    push(length, messages = 1) {
      const bytes = Uint8Array.from({ length }, (_, i) => offset + i & 255);
      blocks.push(bytes, messages, offset);
      offset += length;
      return blocks.last!;
    },
    skip: (length) => void (offset += length),
    counted: () => counted,
  };
}

/** Blocks at 0 to 100, 100 to 150, 170 to 200 and 200 to 300. */
function four(): Made {
  const all = made(100);
  all.push(100, 10);
  all.push(50, 5);
  all.skip(20);
  all.push(30, 3);
  all.push(100, 2);
  return all;
}

const placesOf = (blocks: Blocks, at: readonly number[], how: "at" | "after") =>
  at.map((offset) => blocks[how](offset)?.offset);

describe("a block", () => {
  test("begins empty", () =>
    withClock((clock) => {
      const { sinceMs, length, messages, sealed, pins, end, bytes } = new Block(
        ...[30, 5, new Uint8Array(10)] as const,
      );
      assertEquals([sinceMs, length, messages, sealed, pins, end, bytes.length], [
        ...[5, 0, 0, false, 0, 30, 0],
      ]);
      const { push } = made(100);
      const block = push(10);
      clock.pass(50);
      push(10);
      assertEquals(block.sinceMs, clock.nowMs - 50);
    }));

  test("has copies of the messages that follow one another", () => {
    const { blocks, push, counted } = made(100);
    const block = push(60, 6);
    assert(push(30, 3) === block && blocks.first === block);
    assertEquals([block.offset, block.end, block.length, block.messages], [0, 90, 90, 9]);
    assertEquals(block.bytes, Uint8Array.from({ length: 90 }, (_, i) => i));
    assertEquals([blocks.bytes, counted(), block.sealed], [90, 90, false]);
    // Up to its last byte.
    assert(push(10) === block);
  });

  test("is not continued where it is full, or sealed, or offsets are left out", () => {
    const { blocks, push, skip } = made(100);
    const full = push(100);
    assertEquals(full.sealed, false);
    const second = push(1);
    assertEquals([full.sealed, second.offset], [true, 100]);
    assertEquals([push(100).offset, second.sealed], [101, true]);
    const sealed = push(1);
    sealed.sealed = true;
    const before = push(1);
    assertEquals(before.offset, 202);
    skip(1);
    const after = push(1);
    assertEquals([before.sealed, before.end, after.offset], [true, 203, 204]);
    assertEquals([blocks.first!.offset, blocks.last!.offset, blocks.bytes], [0, 204, 204]);
  });
});

describe("blocks are found", () => {
  test("by a byte in them", () => {
    const { blocks } = four();
    assertEquals(placesOf(blocks, [0, 99, 100, 149, 150, 169, 170, 199, 200, 299, 300], "at"), [
      ...[0, 0, 100, 100, undefined, undefined, 170, 170, 200, 200, undefined],
    ]);
    blocks.release(100);
    assertEquals(placesOf(blocks, [99, 100], "at"), [undefined, 100]);
    assertEquals(placesOf(new Blocks(100, () => {}), [0], "at"), [undefined]);
  });

  test("by where they end", () => {
    const { blocks } = four();
    assertEquals(placesOf(blocks, [0, 99, 100, 150, 199, 200, 299, 300], "after"), [
      ...[0, 0, 100, 170, 170, 200, 200, undefined],
    ]);
  });
});

test("how much is in memory from an offset on", () => {
  const { blocks } = four();
  const amount = (offset: number) => {
    const { bytes, messages } = blocks.amountAfter(offset);
    return [bytes, messages];
  };
  assertEquals([0, 50, 100, 120, 160, 170, 250, 300, 400].map(amount), [
    ...[[280, 20], [230, 15], [180, 10], [160, 8], [130, 5], [130, 5], [50, 1], [0, 0], [0, 0]],
  ]);
});

describe("blocks are dropped", () => {
  test("up to an offset", () => {
    const { blocks, counted } = four();
    blocks.release(99);
    assertEquals([blocks.first!.offset, blocks.bytes, counted()], [0, 280, 280]);
    blocks.release(100);
    assertEquals([blocks.first!.offset, blocks.bytes, counted()], [100, 180, 180]);
    blocks.release(199);
    assertEquals([blocks.first!.offset, blocks.bytes, counted()], [170, 130, 130]);
    blocks.release(300);
    assertEquals([blocks.first, blocks.last, blocks.bytes, counted()], [
      undefined,
      undefined,
      0,
      0,
    ]);
  });

  test("where they are not to be kept", () => {
    const { blocks, counted } = four();
    blocks.keep(({ offset }) => offset !== 100 && offset !== 200);
    assertEquals(placesOf(blocks, [0, 100, 170, 200], "at"), [0, undefined, 170, undefined]);
    assertEquals([blocks.last!.offset, blocks.bytes, counted()], [170, 130, 130]);
  });
});

describe("the buffer of a block", () => {
  const lengths = (longest: number, ...pushed: number[]) => {
    const { push } = made(longest);
    return pushed.map((length) => push(length).buffer.length);
  };

  test("has 16 KiB at first, or the longest block's length", () => {
    assertEquals(lengths(1 << 20, 1), [FIRST]);
    assertEquals(lengths(10_000, 1, 10_000), [10_000, 10_000]);
  });

  test("is twice as long where one did not suffice, up to the longest block", () => {
    assertEquals(lengths(100_000, FIRST, 1, 40_000, 60_000, 90_000), [
      ...[FIRST, 2 * FIRST, 4 * FIRST, 100_000, 100_000],
    ]);
  });

  test("is as long as needed for a longer message", () => {
    assertEquals(lengths(1 << 20, FIRST), [FIRST]);
    assertEquals(lengths(1 << 20, FIRST + 1), [2 * FIRST]);
    assertEquals(lengths(1 << 20, 4 * FIRST, 1), [4 * FIRST, 8 * FIRST]);
    assertEquals(lengths(20_000, 20_001, 1), [20_001, 20_000]);
  });

  test("stays as long where the block before was sealed early", () => {
    const { push } = made(1 << 20);
    push(10).sealed = true;
    assertEquals(push(10).buffer.length, FIRST);
  });

  test("is used again", () => {
    const { blocks, push } = made(100);
    const { buffer } = push(100);
    blocks.release(100);
    assert(push(100).buffer === buffer);
    // Also after one that did not suffice, as none is longer.
    const { buffer: second } = push(100);
    blocks.release(200);
    assert(push(100).buffer === buffer);
    blocks.release(400);
    assert(push(100).buffer === buffer);
    assert(push(100).buffer === second);
  });

  test("is used again, of 8 of them", () => {
    const { blocks, push } = made(100);
    const before = new Set(Array.from({ length: 12 }, () => push(100).buffer));
    blocks.release(1200);
    const after = Array.from({ length: 12 }, () => push(100).buffer);
    assertEquals(after.filter((buffer) => before.has(buffer)).length, 8);
  });

  test("is not used again while a write uses it", () => {
    const { blocks, push } = made(100);
    const { buffer } = push(100);
    blocks.last!.pins = 1;
    blocks.release(100);
    assert(push(100).buffer !== buffer);
  });

  test("is not used again where it is longer or shorter than the others", () => {
    const { blocks, push } = made(100);
    push(200);
    blocks.release(200);
    assertEquals(push(100).buffer.length, 100);
    const growing = made(1 << 20);
    // One that is still in use when the others grow, and two that are free then.
    growing.push(1).sealed = true;
    growing.push(1).sealed = true;
    growing.push(1);
    growing.blocks.release(2);
    assertEquals(growing.push(FIRST).buffer.length, 2 * FIRST);
    growing.blocks.release(3);
    assertEquals(growing.push(2 * FIRST).buffer.length, 4 * FIRST);
    growing.blocks.last!.sealed = true;
    assertEquals(growing.push(1).buffer.length, 4 * FIRST);
  });
});
