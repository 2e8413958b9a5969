/** Recordings: which messages are in a file, and the endless stream of them. */
import { after, describe, test } from "node:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assert, assertEquals, assertThrows } from "#std/assert";
import { parseFrame } from "../src/message/frame.ts";
import { LONGEST_WRITE } from "../src/message/message.ts";
import {
  describeRecording,
  parseRecording,
  readRecording,
  RecordingError,
} from "../src/message/recording.ts";
import { streamOf } from "./message_stream.ts";

const folder = mkdtempSync(join(tmpdir(), "speedlimit-recording-"));
after(() => rmSync(folder, { recursive: true }));

const encode = (text: string) => new TextEncoder().encode(text);
const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

describe("a recording", () => {
  const cases: [frame: string, text: string, messages: string[], incomplete: number][] = [
    ["line", "one\nfour\n\nx\n", ["one\n", "four\n", "\n", "x\n"], 0],
    ["line", "one\nfour\nrest", ["one\n", "four\n"], 4],
    ["fixed:3", "abcdefgh", ["abc", "def"], 2],
    ["u32", "\0\0\0\x02ok\0\0\0\0\0\0\0\x05rest", ["\0\0\0\x02ok", "\0\0\0\0"], 8],
    ["octet", "2 ok11 hello world3 no", ["2 ok", "11 hello world"], 4],
  ];
  for (const [frame, text, messages, incomplete] of cases) {
    test(`with frame ${frame}: ${JSON.stringify(text)}`, () => {
      const recording = parseRecording(encode(text), parseFrame(frame))!;
      assertEquals([recording.messages, recording.incomplete], [messages.length, incomplete]);
      const { message } = recording;
      const lap = messages.join("");
      for (const limit of [1, 3, 1000]) {
        assertEquals(decode(streamOf(message, 3 * lap.length, limit)), lap.repeat(3));
      }
      for (let i = 0; i < 2 * messages.length; i++) {
        const from = message.offsetOf(i);
        const one = message.slice(from, message.offsetOf(i + 1) - from);
        assertEquals(decode(one), messages[i % messages.length]);
      }
    });
  }

  test("without messages each byte may be sent by itself", () => {
    const { message, messages } = parseRecording(encode("hello"), { kind: "none" })!;
    assertEquals([message.size, messages, message.offsetOf(7)], [1, 5, 7]);
    assertEquals(decode(streamOf(message, 12, 4)), "hellohellohe");
  });

  test("of 20 MB: nothing is copied, and it begins again at its end", () => {
    const bytes = new Uint8Array(20e6).fill(97);
    for (let i = 99; i < bytes.length; i += 100) bytes[i] = 10;
    bytes[0] = 98;
    const { message, messages } = parseRecording(bytes, { kind: "line" })!;
    assertEquals([messages, message.size, message.constant], [200_000, 100, false]);
    assertEquals(message.slice(5, LONGEST_WRITE).buffer, bytes.buffer);
    assertEquals(message.slice(20e6 - 10, 1000).length, 10);
    assertEquals(decode(message.slice(20e6, 3)), "baa");
  });

  test("is described in one line", () => {
    const described = (frame: string, text: string) =>
      describeRecording("day.log", parseRecording(encode(text), parseFrame(frame))!);
    assertEquals(
      described("line", "one\nfour\nrest"),
      "replaying day.log: 2 messages of 5 B on average; its last 4 B are no whole message and are " +
        "not sent",
    );
    assertEquals(described("none", "rest"), "replaying day.log: 4 B");
  });
});

describe("a file that cannot be replayed is refused in one line:", () => {
  test("it has no whole message, is not there, is a folder", () => {
    const file = join(folder, "rest");
    writeFileSync(file, "no line feed");
    const messageOf = (path: string) =>
      assertThrows(() => readRecording(path, { kind: "line" }), RecordingError).message;
    assertEquals(
      messageOf(file),
      `${file} has no whole message with frame line: nothing can be replayed`,
    );
    assert(messageOf(join(folder, "gone")).startsWith(`cannot read ${join(folder, "gone")}: `));
    assert(messageOf(folder).startsWith(`cannot read ${folder}: `));
    writeFileSync(file, "");
    assert(messageOf(file).includes("no whole message"));
  });
});
