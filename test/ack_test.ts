/** The acknowledgement protocol's lines, as both sides write and read them. */
import { describe, test } from "node:test";
import { assert, assertEquals, assertMatch, assertThrows } from "#std/assert";
import {
  AckParser,
  formatAck,
  formatAt,
  formatHello,
  formatResume,
  formatStreamOffset,
  isReaderName,
  isStream,
  LineReader,
  LONGEST_LINE,
  newStream,
  parseAck,
  parseAt,
  parseHello,
  parseResume,
  parseStreamOffset,
  ProtocolError,
} from "../src/message/protocol.ts";

const STREAM = "0123456789abcdef";
const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text);

function assertRefused(what: () => unknown, message: string): void {
  const error = assertThrows(what, ProtocolError, message);
  assertMatch(error.message, /^[^\n]{1,160}$/);
}

/** Offsets that are none. */
const WRONG_OFFSETS = ["", "-1", "+1", "01", "1.5", "1e3", "0x10", " 1", "x", "1\r", "NaN"]
  .concat("Infinity", "01".repeat(20));

describe("the protocol's lines", () => {
  test("are read as they were written", () => {
    const line = (text: string) => {
      assertEquals(text.indexOf("\n"), text.length - 1);
      return text.slice(0, -1);
    };
    assertEquals(parseHello(line(formatHello("a.B_9-"))), "a.B_9-");
    assertEquals(formatResume(), "resume - -\n");
    assertEquals(parseResume(line(formatResume())), undefined);
    for (const offset of [0, 1, 64, 2 ** 32, Number.MAX_SAFE_INTEGER]) {
      const place = { offset, stream: STREAM };
      assertEquals(formatResume(place), `resume ${offset} ${STREAM}\n`);
      assertEquals(parseResume(line(formatResume(place))), place);
      assertEquals(formatAt(place), `at ${offset} ${STREAM}\n`);
      assertEquals(parseAt(line(formatAt(place))), place);
      assertEquals(formatAck(offset), `ack ${offset}\n`);
      assertEquals(parseAck(line(formatAck(offset))), offset);
    }
  });

  test("names", () => {
    for (const name of ["a", "A-b_c.9", "x".repeat(64)]) assertEquals(isReaderName(name), true);
    for (const name of ["", "x".repeat(65), "a b", "a/b", "é", "a\n", "a\r", "a\0"]) {
      assertEquals(isReaderName(name), false);
      assertRefused(() => parseHello(name), "must be its name");
    }
  });

  test("streams", () => {
    assertEquals(isStream(STREAM), true);
    for (const stream of ["", STREAM.slice(1), `${STREAM}0`, STREAM.toUpperCase(), `${STREAM}\n`]) {
      assertEquals(isStream(stream), false);
    }
    const streams = Array.from({ length: 100 }, newStream);
    assert(streams.every(isStream));
    assertEquals(new Set(streams).size, streams.length);
  });

  test("offsets of a stream, as offset files have them", () => {
    const place = { offset: 120, stream: STREAM };
    assertEquals(formatStreamOffset(place), `120 ${STREAM}`);
    assertEquals(parseStreamOffset(`120 ${STREAM}`), place);
    for (const text of ["", " ", "120", "120 ", STREAM, ` ${STREAM}`, `120 ${STREAM} `]) {
      assertEquals(parseStreamOffset(text), undefined);
    }
  });

  test("what is refused is shown, up to 60 characters", () => {
    assertRefused(() => parseAck("x".repeat(60)), `the reader's line "${"x".repeat(60)}" must`);
    assertRefused(() => parseAck("x".repeat(61)), `the reader's line "${"x".repeat(57)}..." must`);
    assertRefused(() => parseAck("short"), 'the reader\'s line "short" must');
  });

  test("whatever else is refused, in one line", () => {
    const streams = ["", "-", STREAM.slice(1), `${STREAM}0`, STREAM.toUpperCase(), `${STREAM} `];
    const places = [
      ...WRONG_OFFSETS.map((offset) => `${offset} ${STREAM}`),
      ...streams.map((stream) => `5 ${stream}`),
      "- 5",
      "5 -",
      `5  ${STREAM}`,
      STREAM,
      "5",
      "",
    ];
    for (const place of places) {
      assertRefused(() => parseResume(`resume ${place}`), 'must be "resume OFFSET STREAM" or');
      assertRefused(() => parseAt(`at ${place}`), 'must be "at OFFSET STREAM"');
    }
    for (const offset of WRONG_OFFSETS) {
      assertRefused(() => parseAck(`ack ${offset}`), 'must be "ack OFFSET"');
    }
    for (const offset of ["9007199254740992", "9007199254740993", "1".repeat(400)]) {
      assertRefused(() => parseResume(`resume ${offset} ${STREAM}`), "too high: the highest is");
      assertRefused(() => parseAck(`ack ${offset}`), "too high: the highest is 2^53 - 1");
      assertRefused(() => parseAt(`at ${offset} ${STREAM}`), 'must be "at OFFSET STREAM"');
    }
    for (const line of ["", "ack", "ACK 5", " ack 5", "acknowledged 5", "Hi i got the data"]) {
      assertRefused(() => parseAck(line), 'must be "ack OFFSET"');
    }
    assertRefused(() => parseAt("resume - -"), "must be");
    assertRefused(() => parseAt("at - -"), "must be");
    assertRefused(() => parseResume("GET / HTTP/1.1\r"), '"GET / HTTP/1.1\\r"');
  });
});

describe("LineReader", () => {
  const text = `me\nresume 5 ${STREAM}\n\nack 7\n${"x".repeat(LONGEST_LINE)}\nrest`;

  test("finds the same lines, wherever the chunks end", () => {
    for (let size = 1; size <= text.length; size++) {
      const lines = new LineReader();
      const found: string[] = [];
      assertEquals(lines.next(), undefined);
      for (let at = 0; at < text.length; at += size) {
        const chunk = bytesOf(text.slice(at, at + size));
        lines.push(chunk);
        for (let line; (line = lines.next()) !== undefined;) found.push(line);
        // It keeps nothing of the chunk.
        chunk.fill(0);
      }
      assertEquals([...found, "rest"], text.split("\n"));
    }
  });

  test("a line of 256 bytes is the longest", () => {
    assertEquals(LONGEST_LINE, 256);
    for (const length of [255, 256]) {
      const lines = new LineReader();
      lines.push(bytesOf(`${"x".repeat(length)}\ny\n`));
      assertEquals([lines.next(), lines.next()], ["x".repeat(length), "y"]);
      assertEquals(lines.next(), undefined);
    }
  });

  test("a line that is too long is refused before its end has come", () => {
    for (const size of [1, 100, 1000]) {
      assertRefused(() => {
        const lines = new LineReader();
        for (let at = 0; at <= LONGEST_LINE; at += size) {
          lines.push(new Uint8Array(size).fill(65));
          lines.next();
        }
      }, "is longer than 256 bytes");
    }
  });

  test("a chunk before the last one is taken is a mistake", () => {
    const lines = new LineReader();
    lines.push(bytesOf("a\nb\n"));
    lines.next();
    assertThrows(() => lines.push(bytesOf("c\n")), Error, "lines that were not read");
  });
});

describe("AckParser", () => {
  test("gives the highest so far, wherever the chunks end", () => {
    const text = "ack 5\nack 1000\nack 70\nack 123456789012\n";
    for (let size = 1; size <= text.length; size++) {
      const parser = new AckParser();
      const found: number[] = [];
      for (let at = 0; at < text.length; at += size) {
        found.push(parser.push(bytesOf(text.slice(at, at + size))));
      }
      assertEquals(found, found.toSorted((a, b) => a - b));
      assertEquals([found.at(-1), parser.acked], [123_456_789_012, 123_456_789_012]);
      assert(found.every((offset) => [0, 5, 1000, 123_456_789_012].includes(offset)));
    }
  });

  test("goes on with what came with the first lines", () => {
    const lines = new LineReader();
    lines.push(bytesOf("resume - -\nack 5\nack 6"));
    assertEquals(lines.next(), "resume - -");
    const parser = new AckParser(lines);
    assertEquals(parser.parse(), 5);
    assertEquals(parser.push(bytesOf("4\n")), 64);
    // What was not asked for yet is not left out.
    const early = new LineReader();
    early.push(bytesOf("resume - -\nack 7\nack 8"));
    early.next();
    const late = new AckParser(early);
    assertEquals(late.acked, 0);
    assertEquals(late.push(bytesOf("9\n")), 89);
    const beyond = new LineReader();
    beyond.push(bytesOf("resume - -\nack 9000000000000000\n"));
    beyond.next();
    assertRefused(() => new AckParser(beyond).parse(100), "only 100 have");
  });

  test("refuses any other line, and more than was sent", () => {
    const wrong = ["\n", "hello\n", "ack 5 6\n", "ack\n", "ack -5\n", "x".repeat(257)];
    for (const line of wrong) assertRefused(() => new AckParser().push(bytesOf(line)), "line");
    assertEquals(new AckParser().push(bytesOf("ack 5\n"), 5), 5);
    assertRefused(() => new AckParser().push(bytesOf("ack 6\n"), 5), "6 bytes, but only 5 have");
  });
});
