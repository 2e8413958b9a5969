/** Templates: what is in each message, however the stream is cut into slices. */
import { describe, test } from "node:test";
import { crc32 } from "node:zlib";
import { assert, assertEquals, assertMatch, assertThrows } from "#std/assert";
import { createFramer, parseFrame } from "../src/message/frame.ts";
import { LONGEST_WRITE, type Message } from "../src/message/message.ts";
import { TemplateError, templateMessage } from "../src/message/template.ts";
import { streamOf } from "./message_stream.ts";

const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

const make = (template: string, frame = "line") => templateMessage(template, parseFrame(frame));

/** Its first messages as text. */
function messagesOf(message: Message, count: number, limit = 1000): string[] {
  const stream = streamOf(message, message.offsetOf(count), limit);
  return Array.from(
    { length: count },
    (_, i) => decode(stream.subarray(message.offsetOf(i), message.offsetOf(i + 1))),
  );
}

describe("a template", () => {
  test("{seq} counts, with ten digits", () => {
    for (const limit of [1, 7, 40, 1000]) {
      assertEquals(messagesOf(make("n={seq}!"), 3, limit), [
        "n=1000000000!\n",
        "n=1000000001!\n",
        "n=1000000002!\n",
      ]);
    }
  });

  test("{pick} takes one after the other, of any length", () => {
    assertEquals(messagesOf(make("{pick:a|bcd|}-{pick:1|22}"), 7, 3), [
      "a-1\n",
      "bcd-22\n",
      "-1\n",
      "a-22\n",
      "bcd-1\n",
      "-22\n",
      "a-1\n",
    ]);
  });

  test("{pad} is filler, {crc} is of all bytes before it, {time} is now", () => {
    const before = Date.now() - 1;
    const [one] = messagesOf(make("{time} {pad:30} {seq} {crc}"), 1);
    const [, time, filler, crc] = /^(\S+) (\S+) 1000000000 (\S+)\n$/.exec(one!)!;
    assertMatch(time!, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/);
    const ms = Date.parse(time!);
    assert(ms >= before && ms <= Date.now() + 1, time);
    assertEquals(filler!.length, 30);
    assertEquals(Number.parseInt(crc!, 16), crc32(one!.slice(0, -9)));
  });

  test("the rest of a message belongs to its beginning, whatever time has passed", async () => {
    const message = make("{time} {seq} {crc}");
    const head = decode(message.slice(0, 30));
    await new Promise((resolve) => setTimeout(resolve, 5));
    const whole = head + decode(message.slice(30, 1000)).split("\n")[0];
    const crc = whole.slice(-8);
    assertEquals(Number.parseInt(crc, 16), crc32(whole.slice(0, -8)));
  });

  test("each frame can be read by its framer", () => {
    for (const frame of ["line", "u32", "octet"]) {
      const message = make("{seq} {pick:|xyz}", frame);
      const stream = streamOf(message, message.offsetOf(100), 1000);
      const framer = createFramer(parseFrame(frame));
      assertEquals(framer.push(stream).messages, 100, frame);
      assertEquals(framer.lengthOf(stream), message.offsetOf(1));
    }
    assertEquals(messagesOf(make("hello", "octet"), 1), ["5 hello"]);
    assertEquals(messagesOf(make("hello", "none"), 1), ["hello"]);
    assertEquals(messagesOf(make("hello\n"), 1), ["hello\n"]);
  });

  test("the CRC is that of the message without its length", () => {
    const [one] = messagesOf(make("abc{crc}", "octet"), 1);
    assertEquals(one, `11 abc${crc32("abc").toString(16).padStart(8, "0")}`);
  });

  test("other braces are text", () => {
    assertEquals(messagesOf(make('{"n":{seq},"o":{}}'), 1), ['{"n":1000000000,"o":{}}\n']);
  });

  test("each connection has its own stream, and a slice is at most as long as one write", () => {
    const message = make("{seq} {pad:100}");
    const [one, two] = [message.forConnection!(), message.forConnection!()];
    assertEquals(one.slice(0, Infinity).length, LONGEST_WRITE);
    assertEquals(decode(two.slice(0, 10)), "1000000000");
    assertEquals(decode(one.slice(LONGEST_WRITE, 5).slice()).length, 5);
    const long = make(`{seq}{pad:3000000}`);
    assertEquals(streamOf(long, long.offsetOf(2), Infinity).length, 2 * 3_000_011);
  });

  test("is refused in one line, which says what would be right", () => {
    const refused = (template: string, frame?: string) =>
      assertThrows(() => make(template, frame), TemplateError).message;
    const fields = "its fields are {seq}, {time}, {crc}, {pad:N} and {pick:a|b|c}";
    for (const field of ["{sek}", "{seq:3}", "{pad}", "{pad:0}", "{pad:x}", "{pick}"]) {
      assertEquals(refused(`a ${field}`), `must not have ${field}: ${fields}`);
    }
    assertEquals(refused("", "none"), "must not be empty");
    assertEquals(
      refused("a\nb"),
      "must not have a line feed inside: with frame line it ends a message",
    );
    assertEquals(
      refused("a", "fixed:3"),
      "has messages of its own size: its frame is line, u32, octet or none",
    );
    assertMatch(refused("{pad:99999999}"), /at most 16777216 bytes$/);
    const picks = [7, 11, 13, 17].map((n) => `{pick:${"a|".repeat(n - 1)}a}`).join("");
    assertMatch(refused(picks), /must repeat after at most 10000 messages; .* after 17017$/);
  });
});
