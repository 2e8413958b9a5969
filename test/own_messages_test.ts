/** Messages of different sizes, recorded or from a template, over real connections. */
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { crc32 } from "node:zlib";
import { assert, assertEquals, assertGreater } from "#std/assert";
import { runtime } from "../src/kernel/runtime.ts";
import { createFramer } from "../src/message/frame.ts";
import type { Message } from "../src/message/message.ts";
import { parseRecording } from "../src/message/recording.ts";
import { FIRST_SEQ, templateMessage } from "../src/message/template.ts";
import { loadAdapter } from "../src/net/load.ts";
import type { Connection } from "../src/net/net.ts";
import { serve } from "../src/relay/serve.ts";
import type { ServeOptions } from "../src/relay/serve_options.ts";
import { within } from "./within.ts";

const net = await loadAdapter();

/** Everything that comes, up to the end or so many bytes. */
async function readAll(connection: Connection, most = Infinity): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  while (text.length < most) {
    const chunk = await within("bytes", 10_000, connection.read(65_536));
    if (chunk === null) break;
    text += decoder.decode(chunk, { stream: true });
  }
  return text;
}

/** What one reader gets that begins to read after `waitMs`, and what the server counts. */
async function received(
  message: Message,
  options: Partial<ServeOptions>,
  waitMs = 0,
): Promise<{ text: string; dropped: number; messages: number }> {
  const server = await serve({ port: 0, message, durationMs: 400, ...options });
  try {
    const connection = await net.connect({ host: "127.0.0.1", port: server.address.port });
    await sleep(waitMs);
    const text = await readAll(connection);
    connection.close();
    const { dropped, messages } = await within("its end", 10_000, server.done);
    return { text, dropped, messages };
  } finally {
    await server.stop();
  }
}

const TEMPLATE = "{seq} {pick:|a longer one |x} {time} {crc}";
/** Whole lines, each with its right CRC; their numbers. */
function numbersOf(text: string): number[] {
  assert(text.endsWith("\n"), JSON.stringify(text.slice(-100)));
  return text.trimEnd().split("\n").map((line) => {
    assertEquals(Number.parseInt(line.slice(-8), 16), crc32(line.slice(0, -8)), line);
    return Number(line.slice(0, 10)) - FIRST_SEQ;
  });
}

describe(`messages of different sizes on ${runtime}`, () => {
  test("a flood: whole messages, in order, as many as its rate says", async () => {
    const message = templateMessage(TEMPLATE, { kind: "line" });
    const { text, messages } = await received(message, { rate: 50_000, overflow: "block" });
    const numbers = numbersOf(text);
    numbers.forEach((number, i) => assertEquals(number, i));
    assertEquals([numbers.length, messages], [20_000, 20_000]);
  });

  test("a flood that drops tells by the numbers which ones", async () => {
    const message = templateMessage(`${TEMPLATE} {pad:1000}`.replace(" {crc}", "") + " {crc}", {
      kind: "line",
    });
    const options = { rate: 100_000, overflow: "drop", sendBuffer: 65_536 } as const;
    const { text, dropped } = await received(message, options, 300);
    const numbers = numbersOf(text);
    assertGreater(dropped, 1000);
    let before = -1;
    for (const number of numbers) {
      assertGreater(number, before);
      before = number;
    }
    assertEquals(numbers.length + dropped, 40_000);
  });

  test("a recording through a flood and through a relay, again and again", async () => {
    const lines = Array.from({ length: 997 }, (_, i) => `${i} ${"x".repeat(i % 50)}\n`);
    const bytes = new TextEncoder().encode(lines.join(""));
    const { message } = parseRecording(bytes, { kind: "line" })!;
    for (const options of [{}, { readerId: "hello" }] as Partial<ServeOptions>[]) {
      const all = { rate: 20_000, overflow: "block", ...options } as const;
      const server = await serve({ port: 0, message, durationMs: 400, ...all });
      const connection = await net.connect({ host: "127.0.0.1", port: server.address.port });
      if (options.readerId === "hello") {
        await connection.write(new TextEncoder().encode("anna\n"));
      }
      const text = await readAll(connection);
      connection.close();
      await within("its end", 10_000, server.done);
      assertEquals(text, lines.join("").repeat(9).slice(0, text.length));
      const framer = createFramer({ kind: "line" });
      assertEquals(framer.push(new TextEncoder().encode(text)).messages, 8000);
    }
  });

  test("each reader of a flood has numbers of its own", async () => {
    const message = templateMessage("{seq}", { kind: "line" });
    const server = await serve({
      port: 0,
      message,
      rate: 1000,
      durationMs: 300,
      overflow: "block",
    });
    const to = { host: "127.0.0.1", port: server.address.port };
    const texts = await Promise.all([0, 20].map(async (ms) => {
      await sleep(ms);
      const connection = await net.connect(to);
      const text = await readAll(connection);
      connection.close();
      return text;
    }));
    await within("its end", 10_000, server.done);
    for (const text of texts) {
      assertGreater(text.length, 1000);
      text.trimEnd().split("\n").forEach((line, i) => assertEquals(Number(line), FIRST_SEQ + i));
    }
  });
});
