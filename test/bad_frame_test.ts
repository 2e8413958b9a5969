/** Messages that are too long for their frame: what each kind of source does with them. */
import { describe, test } from "node:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assertEquals, assertMatch, assertRejects } from "#std/assert";
import { runtime } from "../src/kernel/runtime.ts";
import { createFramer } from "../src/message/frame.ts";
import { type Frame, FrameError } from "../src/message/framer.ts";
import type { Connection } from "../src/net/net.ts";
import { serve } from "../src/relay/serve.ts";
import { FileSource } from "../src/source/file_source.ts";
import { Reassembly } from "../src/message/reassembly.ts";
import type { OnBadFrame, Sink, Source, SourceEvent } from "../src/source/source.ts";
import { TcpSource } from "../src/source/tcp_source.ts";
import { send, withServer } from "./peer.ts";
import { connect, eventsOf, json, serving, withFolder } from "./serving.ts";
import { until, within } from "./within.ts";

const LINE: Frame = { kind: "line" };
const U32: Frame = { kind: "u32" };
const MOST = 20;
const encode = (text: string) => new TextEncoder().encode(text);

/** A message with a body of that length, in which line feeds occur only in the frame that allows it. */
function message({ kind }: Frame, length: number): Uint8Array {
  const body = new Uint8Array(length).map((_, i) => kind === "u32" ? i % 13 : 97 + i % 26);
  if (kind === "line") return Uint8Array.of(...body.subarray(0, -1), 10);
  const header = new Uint8Array(4);
  new DataView(header.buffer).setUint32(0, length);
  return Uint8Array.of(...header, ...body);
}

const concat = (parts: readonly Uint8Array[]) =>
  Uint8Array.from(parts.flatMap((part) => [...part]));

describe("reassembly that skips", () => {
  for (const frame of [LINE, U32]) {
    test(`${frame.kind}: all others come whole, however the stream is cut`, async () => {
      const lengths = [5, 21, 1, 20, 300, 40, 20, 21, 7, 1000, 3, 22];
      const messages = lengths.map((length) => message(frame, length));
      const stream = concat(messages);
      const good = concat(messages.filter((_, i) => lengths[i]! <= MOST));
      const bad = lengths.filter((length) => length > MOST).length;
      for (let size = 1; size <= stream.length; size = Math.ceil(size * 1.3)) {
        const came: Uint8Array[] = [];
        let count = 0;
        let found = 0;
        let skipped = 0;
        const reassembly = new Reassembly(
          createFramer(frame, MOST),
          (bytes, messages) => {
            came.push(bytes.slice());
            count += messages;
            return size % 2 === 0 ? Promise.resolve() : undefined;
          },
          { found: () => found++, skipped: (bytes) => skipped += bytes },
        );
        for (let at = 0; at < stream.length; at += size) {
          await reassembly.take(stream.subarray(at, at + size));
        }
        assertEquals(concat(came), good, `in pieces of ${size}`);
        assertEquals([count, found], [lengths.length - bad, bad], `in pieces of ${size}`);
        assertEquals(skipped, stream.length - good.length, `in pieces of ${size}`);
        assertEquals(reassembly.partial.length, 0);
      }
    });
  }

  test("without it, the first one ends the stream", async () => {
    const reassembly = new Reassembly(createFramer(LINE, MOST), () => {});
    await assertRejects(
      async () => await reassembly.take(encode(`${"x".repeat(30)}\nabc\n`)),
      FrameError,
      "a line is longer than 20",
    );
  });
});

/** Keeps all that a source says. */
class Collector implements Sink {
  text = "";
  readonly positions: number[] = [];
  readonly events: SourceEvent[] = [];

  push(bytes: Uint8Array, _: number, position: number): void {
    this.text += new TextDecoder().decode(bytes);
    this.positions.push(position);
  }

  note(event: SourceEvent): void {
    this.events.push(event);
  }

  /** That of its `opened` event. */
  get stream(): string | undefined {
    return this.events.flatMap((each) => each.event === "opened" ? [each.stream] : [])[0];
  }

  get names(): string[] {
    return this.events.map(({ event }) => event);
  }

  get bad(): Extract<SourceEvent, { event: "bad-frame" }>[] {
    return this.events.filter((each) => each.event === "bad-frame");
  }
}

const LONG = `${"long ".repeat(10)}\n`;
const REASON = "a line is longer than 20, the maximum: does each message end with a line feed?";

async function runUntil(source: Source, sink: Sink, enough: () => boolean): Promise<void> {
  const running = source.run(sink, 0);
  running.catch(() => {});
  try {
    await until("what the source does", 10_000, enough);
  } finally {
    source.stop();
  }
  await within("its end", 5000, running);
}

describe(`a tcp source on ${runtime}`, () => {
  /** Sends a line, one that is too long, and another line; each connection has its number. */
  const serveLines = () => {
    let connections = 0;
    return (connection: Connection) => {
      const n = ++connections;
      void send(connection, encode(`a${n}\n${LONG}b${n}\n`));
    };
  };
  const open = (address: { host: string; port: number }, onBadFrame?: OnBadFrame) =>
    new TcpSource({ ...address, frame: LINE, maxMessage: MOST, onBadFrame });

  test("connects again, unless told otherwise", async () => {
    const sink = new Collector();
    await withServer(serveLines(), async (address) => {
      await runUntil(open(address), sink, () => sink.text.includes("a2"));
    });
    assertMatch(sink.text, /^a1\na2\n/);
    assertEquals(sink.names.slice(0, 5), [
      ...["connected", "bad-frame", "disconnected", "retrying"],
      "connected",
    ]);
    assertEquals(sink.bad[0], { event: "bad-frame", then: "reconnect", count: 1, reason: REASON });
  });

  test("skips it, and goes on with the next line", async () => {
    const sink = new Collector();
    await withServer(serveLines(), async (address) => {
      await runUntil(open(address, "skip"), sink, () => sink.text.includes("b1"));
    });
    assertEquals([sink.text, sink.names], ["a1\nb1\n", ["connected", "bad-frame"]]);
    assertEquals(sink.bad[0], { event: "bad-frame", then: "skip", count: 1, reason: REASON });
  });

  test("skips millions, of which it tells once a second, and at the end of the rest", async () => {
    const sink = new Collector();
    const serve = (connection: Connection) =>
      void send(connection, encode(`${LONG.repeat(20_000)}end\n`));
    await withServer(serve, async (address) => {
      await runUntil(open(address, "skip"), sink, () => sink.text === "end\n");
    });
    assertEquals(sink.bad.at(-1)!.count, 20_000);
    assertEquals(sink.bad[0]!.count, 1);
  });

  test("ends with an error, if it is to stop", async () => {
    const sink = new Collector();
    await withServer(serveLines(), async (address) => {
      const source = open(address, "stop");
      const { message } = await assertRejects(
        () => within("its end", 5000, source.run(sink, 0)),
        Error,
      );
      assertMatch(
        message,
        /^invalid data from tcp:\/\/127\.0\.0\.1:\d+: a line is longer than 20,/,
      );
    });
    assertEquals([sink.text, sink.bad.map(({ then }) => then)], ["a1\n", ["stop"]]);
  });

  test("with acknowledgements, what was skipped counts as safe with the next message", async () => {
    const folder = mkdtempSync(join(tmpdir(), "speedlimit-bad-"));
    const file = join(folder, "lines");
    writeFileSync(file, `one\n${LONG}two\n`);
    const options = { port: 0, overflow: "block", ack: "reader", frame: LINE } as const;
    const server = await serve({ ...options, source: new FileSource({ path: file, frame: LINE }) });
    try {
      const source = new TcpSource({
        ...server.address,
        frame: LINE,
        maxMessage: MOST,
        onBadFrame: "skip",
        acknowledged: true,
      });
      const sink = new Collector();
      const running = source.run(sink, 0);
      await until("both", 5000, () => sink.text === "one\ntwo\n");
      assertEquals(sink.positions, [0, 4 + LONG.length]);
      source.acknowledge(4 + LONG.length + 4);
      // It ends only when its reader has acknowledged everything.
      assertEquals((await within("the server's end", 5000, server.done)).messages, 3);
      source.stop();
      await within("the source's end", 5000, running);
    } finally {
      await within("the server's end", 5000, server.stop());
      rmSync(folder, { recursive: true });
    }
  });
});

describe(`a tcp source that is cut off in the middle of a bad message, on ${runtime}`, () => {
  test("does not take the rest for a message", async () => {
    const stream = "0123456789abcdef";
    const whole = `one\n${LONG}two\n`;
    const asked: string[] = [];
    let connections = 0;
    const serveOnce = async (connection: Connection) => {
      let line = "";
      while (!line.endsWith("\n")) line += new TextDecoder().decode((await connection.read(1))!);
      asked.push(line.trimEnd());
      // What is not safe, which is everything, is sent again.
      await send(connection, encode(`at 0 ${stream}\n`));
      const all = ++connections > 1;
      await send(connection, encode(all ? whole : whole.slice(0, 4 + LONG.length - 8)));
      if (!all) await connection.closeWrite();
    };
    const sink = new Collector();
    await withServer(serveOnce, async (address) => {
      const source = new TcpSource({
        ...address,
        frame: LINE,
        maxMessage: MOST,
        onBadFrame: "skip",
        acknowledged: true,
      });
      await runUntil(source, sink, () => sink.text.includes("two"));
    });
    assertEquals([sink.text, sink.positions], ["one\ntwo\n", [0, 4 + LONG.length]]);
    assertEquals(asked.length, 2);
    assertEquals(sink.bad.map(({ then }) => then), ["skip", "skip"]);
  });
});

describe(`a file on ${runtime}`, () => {
  test("ends the source with an error, unless it is to be skipped", () =>
    withFolder(async (folder) => {
      const path = join(folder, "lines");
      writeFileSync(path, `one\n${LONG}two\n${LONG}three`);
      const sink = new Collector();
      const source = new FileSource({ path, frame: LINE, maxMessage: MOST });
      await assertRejects(
        () => within("its end", 5000, source.run(sink, 0)),
        Error,
        `invalid data in "${path}": ${REASON}`,
      );
      assertEquals([sink.text, sink.names], ["one\n", ["opened", "bad-frame"]]);
      const skipping = new Collector();
      const other = new FileSource({ path, frame: LINE, maxMessage: MOST, onBadFrame: "skip" });
      await within("its end", 5000, other.run(skipping, 0));
      assertEquals(skipping.text, "one\ntwo\nthree");
      const second = 4 + LONG.length;
      assertEquals(skipping.positions, [0, second, second + 4 + LONG.length]);
      assertEquals(skipping.bad.map(({ count }) => count), [1, 2]);
      assertEquals(skipping.events.at(-1), { event: "ended", discarded: 0 });
      // It goes on there after a restart.
      const rest = new Collector();
      const again = new FileSource({ path, frame: LINE, maxMessage: MOST, onBadFrame: "skip" });
      await within("its end", 5000, again.run(rest, second + 4, skipping.stream));
      assertEquals(rest.text, "three");
    }));
});

describe(`the server on ${runtime}`, () => {
  test("goes on by itself after a bad message of a tcp source", async () => {
    let connections = 0;
    const serveOnce = (connection: Connection) =>
      void send(connection, encode(++connections === 1 ? LONG : "good\n"));
    await withServer(serveOnce, async (address) => {
      const source = ["--source", `tcp://127.0.0.1:${address.port}`];
      const frame = ["--frame", "line", "--max-message", String(MOST)];
      await serving([...json, ...source, ...frame], async (program, port) => {
        const reader = await connect(port);
        let text = "";
        reader.setEncoding("utf8").on("data", (chunk: string) => text += chunk);
        await until("the message", 10_000, () => text === "good\n");
        reader.destroy();
        const told = eventsOf(program.stdout).filter((event) => event.event === "source");
        assertEquals(told.map(({ what }) => what.event), [
          ...["connected", "bad-frame", "disconnected", "retrying"],
          "connected",
        ]);
      });
    });
  });

  test("says so to people", async () => {
    const bad = (connection: Connection) => void send(connection, encode(`${LONG}good\n`));
    await withServer(bad, async (address) => {
      const source = ["--source", `tcp://127.0.0.1:${address.port}`, "--on-bad-frame", "skip"];
      const frame = ["--frame", "line", "--max-message", String(MOST)];
      await serving([...source, ...frame], async (program, port) => {
        const reader = await connect(port);
        await within(
          "the line",
          10_000,
          program.saw(/^tcp:\S+: a line is longer than 20, .*: skipped \(1 so far\)$/m),
        );
        reader.destroy();
      });
    });
  });
});
