/** Frames: every way to cut a stream, against a plain search for where its messages end. */
import { describe, test } from "node:test";
import { assert, assertEquals, assertMatch, assertThrows } from "#std/assert";
import { createFramer, formatFrame, parseFrame } from "../src/message/frame.ts";
import { type Frame, FrameError } from "../src/message/framer.ts";
import { Reassembly } from "../src/message/reassembly.ts";
import { UnitError } from "../src/text/units.ts";

const LF = 10;

/** Where the whole messages of a stream end, found as simply as can be. */
function endsOf(frame: Frame, stream: Uint8Array): number[] {
  const ends: number[] = [];
  const view = new DataView(stream.buffer, stream.byteOffset, stream.length);
  switch (frame.kind) {
    case "fixed":
      for (let at = frame.size; at <= stream.length; at += frame.size) ends.push(at);
      break;
    case "line":
      stream.forEach((byte, at) => byte === LF && ends.push(at + 1));
      break;
    case "u32":
      for (let at = 0; at + 4 <= stream.length;) {
        at += 4 + view.getUint32(at);
        if (at <= stream.length) ends.push(at);
      }
      break;
    case "octet":
      for (let at = 0; at < stream.length;) {
        const space = stream.indexOf(32, at);
        if (space < 0) break;
        at = space + 1 + Number(new TextDecoder().decode(stream.subarray(at, space)));
        if (at <= stream.length) ends.push(at);
      }
      break;
    case "none":
      break;
  }
  return ends;
}

/** The same numbers each time. */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor(state / 2 ** 32 * below);
  };
}

/** Messages of these lengths, without what frames them, and the beginning of another. */
function streamOf(frame: Frame, lengths: readonly number[], rest: number): Uint8Array {
  const pieces: number[] = [];
  const octets = (length: number) => pieces.push(...new TextEncoder().encode(`${length} `));
  for (const length of lengths) {
    if (frame.kind === "octet") octets(length);
    if (frame.kind === "u32") pieces.push(length >> 24, length >> 16, length >> 8, length & 255);
    for (let i = 0; i < length; i++) pieces.push(65 + i % 26);
    if (frame.kind === "line") pieces.push(LF);
  }
  if (frame.kind === "u32") pieces.push(0, 0, 1, 0);
  if (frame.kind === "octet") octets(256);
  for (let i = 0; i < rest; i++) pieces.push(97);
  return Uint8Array.from(pieces);
}

const FRAMES: Frame[] = [
  { kind: "fixed", size: 3 },
  { kind: "line" },
  { kind: "u32" },
  { kind: "octet" },
];

/** Pushes a stream in these pieces; throws where an answer is not what a plain search says. */
function checkCuts(frame: Frame, stream: Uint8Array, cuts: readonly number[]): void {
  const ends = endsOf(frame, stream);
  const framer = createFramer(frame);
  let at = 0;
  let passed = 0;
  for (const cut of [...cuts, stream.length]) {
    const before = passed;
    while (passed < ends.length && ends[passed]! <= cut) passed++;
    const framed = framer.push(stream.subarray(at, cut));
    const first = passed > before ? ends[before]! - at : 0;
    const end = passed > before ? ends[passed - 1]! - at : 0;
    assert(
      framed.first === first && framed.end === end && framed.messages === passed - before &&
        framed.error === undefined,
      `${frame.kind}: ${framed.messages} up to ${framed.end}, from ${at} to ${cut}`,
    );
    at = cut;
  }
}

/** Puts a stream together again out of these pieces. */
function checkReassembly(frame: Frame, stream: Uint8Array, cuts: readonly number[]): void {
  const ends = new Set(endsOf(frame, stream));
  let delivered = 0;
  let count = 0;
  const reassembly = new Reassembly(createFramer(frame), (bytes, messages) => {
    assert(bytes.every((byte, i) => byte === stream[delivered + i]));
    delivered += bytes.length;
    count += messages;
    assert(ends.has(delivered), `${frame.kind}: ends at ${delivered}`);
  });
  let at = 0;
  for (const cut of [...cuts, stream.length]) {
    // The source's buffer is used again.
    const chunk = stream.slice(at, cut);
    reassembly.take(chunk);
    chunk.fill(0xee);
    at = cut;
  }
  assertEquals([delivered, count], [Math.max(0, ...ends), ends.size]);
  assertEquals(reassembly.partial, stream.slice(delivered));
}

describe("parseFrame", () => {
  test("reads what formatFrame writes", () => {
    for (const text of ["fixed:13", "fixed:1", "fixed:64k", "line", "u32", "octet", "none"]) {
      assertEquals(formatFrame(parseFrame(text)), text);
    }
    assertEquals(parseFrame("fixed:13"), { kind: "fixed", size: 13 });
    assertEquals(parseFrame(" line "), { kind: "line" });
  });

  test("says what would be right", () => {
    for (
      const text of ["", "lines", "fixed", "fixed:", "fixed:0", "fixed:65M", "fixed:x", "u32:4"]
    ) {
      const { message } = assertThrows(() => parseFrame(text), UnitError);
      assertEquals(
        message,
        "must be fixed:N (N bytes each, from 1 to 64M), line, u32, octet or none",
      );
    }
    assertThrows(() => createFramer({ kind: "fixed", size: 0.5 }), RangeError, "is 0.5");
  });
});

describe("framers", () => {
  test("any two cuts of a small stream", () => {
    for (const frame of FRAMES) {
      const stream = streamOf(frame, [3, 0, 1, 7, 0, 0, 2], 2);
      for (let i = 0; i <= stream.length; i++) {
        for (let j = i; j <= stream.length; j++) {
          checkCuts(frame, stream, [i, j]);
          checkReassembly(frame, stream, [i, j]);
        }
      }
      const each = Array.from(stream.keys());
      checkCuts(frame, stream, each);
      checkReassembly(frame, stream, each);
    }
  });

  test("random cuts of long streams, of long and short messages", () => {
    const below = random(1);
    for (const frame of FRAMES) {
      for (const longest of [2, 20, 300, 9000]) {
        const lengths = Array.from({ length: 40_000 / longest + 10 }, () => below(longest));
        const stream = streamOf(frame, lengths, 200);
        for (const piece of [10, 700, 20_000]) {
          const cuts: number[] = [];
          for (let at = 0; (at += below(piece)) < stream.length;) cuts.push(at);
          checkCuts(frame, stream, cuts);
          checkReassembly(frame, stream, cuts);
        }
      }
    }
  });

  test("lines are counted whatever else is in them, and wherever they lie", () => {
    const below = random(2);
    for (let i = 0; i < 300; i++) {
      // All values, near misses of \n among them, and sometimes nothing but \n.
      const most = [256, 16, 1][i % 3]!;
      const start = below(8);
      const stream = Uint8Array.from(
        { length: start + 100 + below(3000) },
        () => most === 1 ? LF : below(most) ^ [0, 0x80][below(2)]!,
      ).subarray(start);
      checkCuts({ kind: "line" }, stream, []);
    }
  });

  test("without a frame every chunk is a message", () => {
    const framer = createFramer({ kind: "none" });
    assertEquals({ ...framer.push(new Uint8Array(5)) }, {
      first: 5,
      end: 5,
      messages: 1,
      error: undefined,
    });
    assertEquals(framer.push(new Uint8Array(0)).messages, 0);
    assertEquals(framer.lengthOf(new Uint8Array(5)), 5);
    assertEquals(framer.lengthOf(new Uint8Array(0)), undefined);
    assertEquals(framer.floor(new Uint8Array(5), 3), 3);
  });

  test("no more messages than are wanted, and the rest can follow", () => {
    for (const frame of FRAMES) {
      const stream = streamOf(frame, [3, 0, 1, 7, 0, 0, 2], 2);
      const ends = endsOf(frame, stream);
      for (let most = 0; most <= ends.length + 1; most++) {
        const framer = createFramer(frame);
        const seen: number[] = [];
        for (let at = 0, tries = 0; tries < 10; tries++) {
          const { end, messages } = framer.push(stream.subarray(at), most);
          assert(messages <= most);
          if (messages === 0) break;
          at += end;
          seen.push(at);
        }
        const expected = ends.filter((end, i) => (i + 1) % most === 0 || end === ends.at(-1));
        assertEquals(seen, most === 0 ? [] : expected, `${frame.kind}, ${most} at most`);
      }
    }
  });

  test("the length of the first message, and where the message of any byte begins", () => {
    for (const frame of FRAMES) {
      const stream = streamOf(frame, [3, 0, 1, 7, 0, 0, 2], 2);
      const ends = endsOf(frame, stream);
      const framer = createFramer(frame);
      for (let length = 0; length <= stream.length; length++) {
        const expected = length >= ends[0]! ? ends[0] : undefined;
        assertEquals(framer.lengthOf(stream.subarray(0, length)), expected);
      }
      for (let offset = 0; offset <= stream.length; offset++) {
        const expected = Math.max(0, ...ends.filter((end) => end <= offset));
        assertEquals(framer.floor(stream, offset), expected, `${frame.kind} at ${offset}`);
      }
    }
  });

  test("a message may be as long as the bound, and not longer, however it is cut", () => {
    for (const kind of ["line", "u32", "octet"] as const) {
      const longest = 8;
      const body = kind === "line" ? longest - 1 : longest;
      const good = streamOf({ kind }, [1, body], 0).subarray(
        0,
        { line: 10, u32: 17, octet: 13 }[kind],
      );
      const bad = streamOf({ kind }, [1, body, body + 1, 1], 0);
      for (let cut = 0; cut <= bad.length; cut++) {
        const framer = createFramer({ kind }, longest);
        let end = 0;
        let messages = 0;
        let error: FrameError | undefined;
        for (const [from, to] of [[0, cut], [cut, bad.length]] as const) {
          const framed = framer.push(bad.subarray(from, to));
          if (framed.messages > 0) end = from + framed.end;
          messages += framed.messages;
          error = framed.error;
        }
        assert(error instanceof FrameError, `${kind} cut at ${cut}`);
        assertEquals([end, messages], [good.length, 2], `${kind} cut at ${cut}`);
        assertMatch(error.message, kind === "line" ? /longer than 8, / : /announces 9 bytes, /);
        assert(!error.message.includes("\n"));
        // What follows makes no sense, until it begins anew.
        assertEquals(framer.push(good).error, error);
        framer.reset();
        assertEquals({ ...framer.push(good) }.messages, 2);
      }
    }
    const framer = createFramer({ kind: "u32" });
    const { error } = framer.push(Uint8Array.of(0xff, 0xff, 0xff, 0xff));
    assertMatch(error!.message, /announces 4294967295 bytes, at most 64M /);
  });

  test("octet: what has no length is refused, and goes on after the next line feed", () => {
    for (const wrong of ["<13>1 x\n", " 5 x\n", "12345678901 x\n", "3x\n"]) {
      const bytes = new TextEncoder().encode(`2 ok${wrong}2 go`);
      for (let cut = 0; cut <= bytes.length; cut++) {
        const framer = createFramer({ kind: "octet" });
        let passed = 0;
        const messages: string[] = [];
        for (const [from, to] of [[0, cut], [cut, bytes.length]] as const) {
          let at = from;
          while (at < to) {
            const piece = bytes.subarray(at, to);
            if (framer.skipping) {
              at += framer.skip(piece);
              continue;
            }
            const { end, messages: found, error } = framer.push(piece, 1);
            if (found > 0) {
              messages.push(new TextDecoder().decode(bytes.subarray(passed, at + end)));
            }
            at = passed = at + end;
            if (error !== undefined) {
              assertMatch(error.message, /^a message does not begin with its length and a space: /);
              at += framer.skip(bytes.subarray(at, to));
              passed = at;
            } else if (found === 0) at = to;
          }
        }
        assertEquals(
          [messages[0], messages.at(-1)?.slice(-4)],
          ["2 ok", "2 go"],
          `${wrong}, ${cut}`,
        );
      }
    }
  });
});

describe("Reassembly", () => {
  test("copies nothing but messages that cross from one chunk into another", () => {
    const views: ArrayBufferLike[] = [];
    const reassembly = new Reassembly(
      createFramer({ kind: "fixed", size: 4 }),
      (bytes) => void views.push(bytes.buffer),
    );
    const [one, two] = [new Uint8Array(4094), new Uint8Array(4098)];
    reassembly.take(one);
    reassembly.take(two);
    assertEquals(views.length, 3);
    assert(views[0] === one.buffer && views[2] === two.buffer);
    assert(views[1] !== one.buffer && views[1] !== two.buffer);
  });

  test("one delivery at a time, and the bytes stay as they are until it has settled", async () => {
    const frame: Frame = { kind: "line" };
    const stream = streamOf(frame, Array.from({ length: 300 }, (_, i) => i % 50), 3);
    let inside = 0;
    let delivered = 0;
    const reassembly = new Reassembly(createFramer(frame), async (bytes) => {
      assertEquals(++inside, 1);
      await new Promise((resolve) => setTimeout(resolve, 0));
      assertEquals(bytes, stream.slice(delivered, delivered + bytes.length));
      delivered += bytes.length;
      inside--;
    });
    for (let at = 0; at < stream.length; at += 97) {
      const chunk = stream.slice(at, at + 97);
      await reassembly.take(chunk);
      chunk.fill(0xee);
    }
    assertEquals(delivered, endsOf(frame, stream).at(-1));
  });

  test("delivers what comes before a mistake, and rejects", async () => {
    for (const asynchronous of [false, true]) {
      let delivered = 0;
      const reassembly = new Reassembly(createFramer({ kind: "line" }, 8), (_, messages) => {
        delivered += messages;
        return asynchronous ? Promise.resolve() : undefined;
      });
      await reassembly.take(new TextEncoder().encode("on"));
      const taking = reassembly.take(new TextEncoder().encode("e\ntwo\nthree is too long\n"));
      const error = await Promise.resolve(taking).then(() => undefined, (error) => error);
      assert(error instanceof FrameError);
      assertEquals(delivered, 2);
      assertEquals(reassembly.partial.length, 0);
    }
  });

  test("a long message grows its block, which is given back", () => {
    const lengths: number[] = [];
    const buffers: number[] = [];
    const reassembly = new Reassembly(createFramer({ kind: "line" }), (bytes) => {
      lengths.push(bytes.length);
      buffers.push(bytes.buffer.byteLength);
    });
    for (const length of [5_000_000, 10]) {
      const message = streamOf({ kind: "line" }, [length], 0);
      for (let at = 0; at < message.length; at += 65_536) {
        reassembly.take(message.subarray(at, at + Math.min(65_536, length / 2)));
        if (length === 10) reassembly.take(message.subarray(at + 5));
      }
    }
    assertEquals(lengths, [5_000_001, 11]);
    assert(buffers[0]! < 10_000_002 && buffers[1]! <= 4096, `${buffers}`);
  });
});
