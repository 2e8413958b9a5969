/** Sources: real sockets, files and pipes, and a sink that sees whatever they deliver. */
import { describe, test } from "node:test";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { assert, assertEquals, assertMatch, assertRejects, assertThrows } from "#std/assert";
import { FileSource } from "../src/source/file_source.ts";
import { FloodSource } from "../src/source/flood_source.ts";
import { createFramer } from "../src/message/frame.ts";
import type { Frame } from "../src/message/framer.ts";
import { ARTICLE_MESSAGE, fillerMessage, textMessage } from "../src/message/message.ts";
import { type Connection, NetError } from "../src/net/net.ts";
import { loadAdapter } from "../src/net/load.ts";
import { runtime } from "../src/kernel/runtime.ts";
import { NumberedVerifier } from "../src/message/numbered.ts";
import type { Sink, Source, SourceEvent } from "../src/source/source.ts";
import { parseSource } from "../src/source/source_kinds.ts";
import { TcpSource } from "../src/source/tcp_source.ts";
import { type Rate, UnitError } from "../src/text/units.ts";
import { PATTERN, send, withServer } from "./peer.ts";
import { until, within } from "./within.ts";

const net = await loadAdapter();
const MIB = 1 << 20;
const LINE: Frame = { kind: "line" };
const encode = (text: string) => new TextEncoder().encode(text);

interface Push {
  length: number;
  messages: number;
  position: number;
}

/** Keeps a copy of what it gets. `onPush` may make the source wait. */
class Collector implements Sink {
  readonly pushes: Push[] = [];
  /** All but `opened`. */
  readonly events: SourceEvent[] = [];
  opened: SourceEvent & { event: "opened" } | undefined;
  bytes = 0;
  messages = 0;
  readonly #parts: Uint8Array[] = [];
  readonly #onPush: (bytes: Uint8Array, position: number) => void | Promise<void>;
  readonly #keep: boolean;
  #inside = false;

  constructor(
    onPush: (bytes: Uint8Array, position: number) => void | Promise<void> = () => {},
    keep = true,
  ) {
    this.#onPush = onPush;
    this.#keep = keep;
  }

  push(bytes: Uint8Array, messages: number, position: number): void | Promise<void> {
    assert(!this.#inside, "one push at a time");
    assert(bytes.length > 0 && messages > 0, `${messages} messages, ${bytes.length} bytes`);
    this.pushes.push({ length: bytes.length, messages, position });
    if (this.#keep) this.#parts.push(bytes.slice());
    this.bytes += bytes.length;
    this.messages += messages;
    const waiting = this.#onPush(bytes, position);
    if (waiting === undefined) return;
    this.#inside = true;
    return waiting.finally(() => this.#inside = false);
  }

  note(event: SourceEvent): void {
    if (event.event === "opened") this.opened = event;
    else this.events.push(event);
  }

  get text(): string {
    return this.#parts.map((part) => new TextDecoder().decode(part)).join("");
  }

  /** The events of a kind. */
  saw<Name extends SourceEvent["event"]>(name: Name): Extract<SourceEvent, { event: Name }>[] {
    return this.events.filter((each): each is Extract<SourceEvent, { event: Name }> =>
      each.event === name
    );
  }
}

/** Runs a source until `enough`, and stops it; rejects with what it rejects with. */
async function runUntil(
  source: Source,
  sink: Collector,
  enough: () => boolean,
  from = 0,
  stream?: string,
): Promise<void> {
  let over = false;
  const running = source.run(sink, from, stream).finally(() => over = true);
  running.catch(() => {});
  try {
    await until("what the source delivers", 20_000, () => over || enough());
  } finally {
    source.stop();
  }
  await within("the source's end", 5000, running);
}

const runToEnd = (source: Source, sink: Sink, from = 0, stream?: string): Promise<void> =>
  within("the source's end", 20_000, source.run(sink, from, stream)).finally(() => source.stop());

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** The lines that a connection sends, one at a time. */
async function* linesOf(connection: Connection): AsyncGenerator<string> {
  let text = "";
  for (let chunk; (chunk = await connection.read(65_536)) !== null;) {
    text += new TextDecoder().decode(chunk);
    for (let end; (end = text.indexOf("\n")) >= 0; text = text.slice(end + 1)) {
      yield text.slice(0, end);
    }
  }
}

describe("parseSource", () => {
  test("a server, a file, or standard input", () => {
    const names = (...texts: string[]) => texts.map((text) => parseSource(text).name);
    assertEquals(names("tcp://[::1]:80", "tcp://feed:9000/"), [
      "tcp://[::1]:80",
      "tcp://feed:9000",
    ]);
    assertEquals(names("-", "a/b:80"), ["standard input", "a/b:80"]);
    for (const text of ["", "tcp://", "tcp://host", "udp://host:1", "tcp://host:0"]) {
      const { message } = assertThrows(() => parseSource(text), UnitError);
      assertEquals(message, "must be tcp://HOST:PORT, a file, or - for standard input");
    }
  });
});

describe(`tcp source on ${runtime}`, () => {
  test("whole messages out of odd pieces, over connections that break and come back", async () => {
    const lines = Array.from({ length: 30_000 }, (_, i) => `message ${i} ${"x".repeat(i % 97)}\n`);
    const whole = lines.join("");
    const sent = encode(whole);
    let connections = 0;
    let at = 0;
    const serve = async (connection: Connection) => {
      connections++;
      // Breaks in the middle of a message, after a third; the next goes on with a whole one.
      const end = connections < 3 ? sent.indexOf(10, connections * 400_000) - 2 : sent.length;
      for (let piece = 1; at < end; piece = piece * 7 % 30_011) {
        const next = sent.subarray(at, Math.min(at + piece, end));
        await send(connection, next);
        at += next.length;
        if (piece % 5 === 0) await pause(0);
      }
      if (connections === 3) return;
      at = sent.indexOf(10, at) + 1;
      connection.close();
    };
    const sink = new Collector((bytes) => assertEquals(bytes.at(-1), 10));
    await withServer(serve, async (address) => {
      const source = new TcpSource({ ...address, frame: LINE });
      assertEquals(source.replayable, false);
      await runUntil(source, sink, () => sink.messages >= lines.length - 2);
    });
    // But for the two in which it broke, all of them, in order.
    const kept = sink.text.split("\n").slice(0, -1);
    assertEquals([kept.length, sink.messages], [lines.length - 2, lines.length - 2]);
    let next = 0;
    for (const line of kept) {
      while (next < lines.length && lines[next] !== `${line}\n`) next++;
      assert(next++ < lines.length, `${line} is out of order`);
    }
    const broken = sink.saw("disconnected");
    assertEquals(broken.map(({ reason }) => reason), ["eof", "eof"]);
    const discarded = broken.reduce((sum, event) => sum + event.discarded, 0);
    // Of each of the two, three bytes were not sent: two, and the end.
    assertEquals(sink.bytes + discarded, sent.length - 2 * 3);
    assertEquals(sink.saw("connected").length, 3);
    assertEquals(sink.saw("connected")[0]!.host, "127.0.0.1");
    assert(sink.pushes.every(({ position }) => position === 0));
  });

  test("a reset is told of by its errno", async () => {
    const sink = new Collector();
    const serve = async (connection: Connection) => {
      await send(connection, encode("one\ntw"));
      await until("the first message", 5000, () => sink.messages === 1);
      connection.reset();
    };
    await withServer(serve, async (address) => {
      const source = new TcpSource({ ...address, frame: LINE });
      await runUntil(source, sink, () => sink.saw("disconnected").length > 0);
    });
    const [broken] = sink.saw("disconnected");
    const { reason, errno, discarded } = broken!;
    assertEquals([reason, errno, discarded], ["reset", "ECONNRESET", 2]);
  });

  test("a server that is not there is tried again, with longer and longer waits", async () => {
    const gone = await net.listen({ host: "127.0.0.1", port: 0, onConnection() {} });
    const { address } = gone;
    await gone.close();
    const sink = new Collector();
    const source = new TcpSource({ ...address, frame: LINE });
    const running = source.run(sink, 0);
    await until("two tries", 5000, () => sink.saw("retrying").length === 2);
    const [first, second] = sink.saw("retrying");
    assertEquals(
      first!.error,
      `cannot connect to 127.0.0.1:${address.port}: nothing listens there (ECONNREFUSED)`,
    );
    assert(first!.inMs >= 50 && first!.inMs <= 100, `${first!.inMs} ms`);
    assert(second!.inMs >= 100 && second!.inMs <= 200, `${second!.inMs} ms`);
    const onConnection = (connection: Connection) => void send(connection, encode("there\n"));
    const listener = await net.listen({ ...address, onConnection });
    await until("the message", 10_000, () => sink.messages === 1);
    source.stop();
    await within("the end", 5000, running);
    await listener.close();
    assertEquals(sink.text, "there\n");
  });

  test("a push that waits stops the reading, until the server's kernel is full", async () => {
    const gate = Promise.withResolvers<void>();
    let taken = 0;
    let movedMs = Infinity;
    const length = 64 * MIB;
    const serve = async (connection: Connection) => {
      while (taken < length) {
        const at = taken % PATTERN.length;
        const count = await connection.write(PATTERN.subarray(at, at + length - taken));
        if (count === 0) break;
        taken += count;
        movedMs = performance.now();
      }
    };
    let same = true;
    let seen = 0;
    const sink = new Collector(async (bytes) => {
      if (sink.pushes.length === 3) await gate.promise;
      for (let i = 0; i < bytes.length; i += 509) {
        same &&= bytes[i] === PATTERN[(seen + i) % PATTERN.length];
      }
      seen += bytes.length;
    }, false);
    await withServer(serve, async (address) => {
      const source = new TcpSource({ ...address, frame: { kind: "fixed", size: 1024 } });
      const running = source.run(sink, 0);
      await until("a full kernel", 10_000, () => performance.now() - movedMs > 100);
      assertEquals(sink.pushes.length, 3);
      assert(taken < length / 2, `${taken} bytes were taken`);
      gate.resolve();
      await until("all of it", 20_000, () => sink.bytes === length);
      source.stop();
      await within("the end", 5000, running);
    });
    assert(same, "damaged");
    assertEquals(sink.messages, length / 1024);
  });

  test("a server that sends nothing for --source-idle is connected anew", async () => {
    const sink = new Collector();
    let connections = 0;
    const serve = (connection: Connection) => {
      connections++;
      void send(connection, encode(`message ${connections}\nhal`));
    };
    await withServer(serve, async (address) => {
      const source = new TcpSource({ ...address, frame: LINE, idleMs: 300 });
      await runUntil(source, sink, () => sink.saw("connected").length === 3);
      const { reason, discarded } = sink.saw("disconnected")[0]!;
      assertEquals([reason, discarded], ["local", 3]);
      const { error } = sink.saw("retrying")[0]!;
      assertEquals(error, `tcp://127.0.0.1:${address.port} has sent nothing for 300 ms`);
    });
    assertEquals(sink.text.startsWith("message 1\nmessage 2\n"), true);
  });

  test("one that sends now and then is not, nor one that must wait for the sink", async () => {
    const gate = Promise.withResolvers<void>();
    const sink: Collector = new Collector(() => sink.messages === 1 ? gate.promise : undefined);
    const serve = async (connection: Connection) => {
      for (let i = 0; i < 40; i++) {
        await send(connection, encode("tick\n"));
        await pause(50);
      }
    };
    await withServer(serve, async (address) => {
      const source = new TcpSource({ ...address, frame: LINE, idleMs: 1000 });
      const running = source.run(sink, 0);
      await until("the first", 5000, () => sink.messages === 1);
      await pause(1500);
      gate.resolve();
      await until("all", 10_000, () => sink.messages === 40);
      assertEquals(sink.events.map(({ event }) => event), ["connected"]);
      source.stop();
      await within("the end", 5000, running);
    });
  });

  test("stops wherever it is: idle, waiting to try again, flooded", async () => {
    await withServer(() => {}, async (address) => {
      const sink = new Collector();
      const source = new TcpSource({ ...address, frame: LINE });
      await runUntil(source, sink, () => sink.saw("connected").length === 1);
      assertEquals(sink.events.length, 1);
    });
    await withServer((connection) => connection.close(), async (address) => {
      const sink = new Collector();
      const source = new TcpSource({ ...address, frame: LINE });
      await runUntil(source, sink, () => sink.saw("retrying").length === 3);
    });
    const flooding = async (connection: Connection) => {
      while (await connection.write(PATTERN) > 0);
    };
    await withServer(flooding, async (address) => {
      const sink = new Collector(() => {}, false);
      const source = new TcpSource({ ...address, frame: { kind: "none" } });
      // Timers have their turn, though reads are answered at once.
      await runUntil(source, sink, () => sink.bytes > 50 * MIB);
    });
    const source = new TcpSource({ host: "127.0.0.1", port: 1, frame: LINE });
    source.stop();
    await runToEnd(source, new Collector());
  });

  test("rejects when messages are not framed so, and with what the sink throws", async () => {
    const serve = (connection: Connection) => send(connection, encode("\0\0\0\x02hiHello World"));
    await withServer(serve, async (address) => {
      const sink = new Collector();
      const source = new TcpSource({ ...address, frame: { kind: "u32" }, onBadFrame: "stop" });
      const { message } = await assertRejects(() => runToEnd(source, sink), Error);
      assertMatch(
        message,
        /^invalid data from tcp:\/\/127\.0\.0\.1:\d+: a message announces 1214606444 bytes, at most 64M .*$/,
      );
      assertEquals(sink.text, "\0\0\0\x02hi");
      for (const asynchronous of [false, true]) {
        const failing = new Collector(() => {
          // One that it would try again after, were it its own.
          const error = new NetError("no room", "ECONNRESET");
          if (asynchronous) return Promise.reject(error);
          throw error;
        });
        const other = new TcpSource({ ...address, frame: { kind: "none" } });
        await assertRejects(() => runToEnd(other, failing), NetError, "no room");
      }
    });
  });
});

describe(`tcp source with acknowledgements on ${runtime}`, () => {
  const STREAM = "0123456789abcdef";
  const frame: Frame = { kind: "fixed", size: 10 };
  const stream = PATTERN.subarray(0, 5000);

  /** A server's side of a connection: what it was told so far, and a wait for more. */
  class Peer {
    readonly said: string[] = [];
    readonly connection: Connection;
    constructor(connection: Connection) {
      this.connection = connection;
      void (async () => {
        for await (const line of linesOf(connection)) this.said.push(line);
      })();
    }
    heard(line: string): Promise<void> {
      return until(line, 5000, () => this.said.includes(line));
    }
    say(text: string): Promise<void> {
      return send(this.connection, encode(text));
    }
    give(from: number, to: number): Promise<void> {
      return send(this.connection, stream.subarray(from, to));
    }
  }

  test("goes on where all is safe, and delivers nothing twice", async () => {
    const peers: Peer[] = [];
    const served: Promise<void>[] = [];
    const sink = new Collector((bytes, position) => {
      assert(bytes.every((byte, i) => byte === stream[position + i]), `damage after ${position}`);
    });
    const delivered = (end: number) =>
      until(`all up to ${end}`, 5000, () => sink.bytes === end - 1000);
    const serve = async (peer: Peer) => {
      peers.push(peer);
      if (peers.length === 1) {
        await peer.heard("resume - -");
        await peer.say(`at 1000 ${STREAM}\n`);
        await peer.give(1000, 2005);
        await delivered(2000);
        source.acknowledge(1500);
        await peer.heard("ack 1500");
      } else if (peers.length === 2) {
        await peer.heard(`resume 1500 ${STREAM}`);
        // In one piece, and cut off in what is delivered already.
        await peer.say(`at 1500 ${STREAM}\n`);
        await until("the answer", 5000, () => sink.saw("connected").length === 2);
        // No more than it has delivered, which is 2000.
        source.acknowledge(9999);
        await peer.give(1500, 1503);
        // Not yet 2000: to this server that is not sent yet.
        await peer.heard("ack 1503");
        await peer.give(1503, 3007);
        await peer.heard("ack 2000");
        await delivered(3000);
        assertEquals(peer.said.slice(-2), ["ack 1503", "ack 2000"]);
      } else {
        await peer.heard(`resume 2000 ${STREAM}`);
        await peer.say(`at 3500 ${STREAM}\n`);
        await peer.give(3500, 5000);
        await until("the rest", 5000, () => sink.bytes === 2000 + 1500);
        for (let position = 2001; position <= 5000; position++) source.acknowledge(position);
        await peer.heard("ack 5000");
        const acks = peer.said.slice(2);
        assert(acks.length <= 3, `gathered: ${acks}`);
        source.stop();
      }
      peer.connection.close();
    };
    let source!: TcpSource;
    const onConnection = (connection: Connection) => served.push(serve(new Peer(connection)));
    await withServer(onConnection, async (address) => {
      source = new TcpSource({ ...address, frame, acknowledged: true, hello: "me" });
      assertEquals(source.replayable, true);
      const running = source.run(sink, 77);
      await until("three connections", 10_000, () => served.length === 3);
      await within("what the server saw", 10_000, Promise.all(served));
      await within("the end", 5000, running);
    });
    assert(peers.every(({ said }) => said[0] === "me"));
    const connected = sink.saw("connected");
    assertEquals(connected.map(({ position }) => position), [1000, 2000, 3500]);
    assertEquals(connected.map(({ missed }) => missed), [0, 0, 500]);
    assert(connected.every((event) => event.stream === STREAM));
    assertEquals(sink.saw("disconnected").map(({ discarded }) => discarded), [5, 7]);
    const expected = sink.pushes.map(({ position }) => position);
    assertEquals(expected, expected.toSorted((a, b) => a - b));
  });

  test("goes on where an earlier life was, and from the beginning in another stream", async () => {
    const other = "fedcba9876543210";
    let answer = `at 500 ${STREAM}\n`;
    let connections = 0;
    const serve = async (connection: Connection) => {
      const peer = new Peer(connection);
      const replaced = answer.includes(other) && ++connections > 1;
      await peer.heard(replaced ? "resume - -" : `resume 500 ${STREAM}`);
      await peer.say(replaced ? `at 20 ${other}\n` : answer);
      await peer.give(500, 700);
    };
    await withServer((connection) => void serve(connection), async (address) => {
      const options = { ...address, frame, acknowledged: true };
      const sink = new Collector();
      await runUntil(new TcpSource(options), sink, () => sink.bytes === 200, 500, STREAM);
      assertEquals(sink.pushes[0]!.position, 500);
      for (
        const [text, expected] of [
          ["Hello World!\n", /reply "Hello World!" must be "at OFFSET STREAM"/],
          ["x".repeat(5000), /longer than 256 bytes/],
        ] as const
      ) {
        answer = text;
        const source = new TcpSource(options);
        const { message } = await assertRejects(
          () => runToEnd(source, new Collector(), 500, STREAM),
          Error,
        );
        assertMatch(message, /^cannot resume the stream of tcp:\/\/127\.0\.0\.1:\d+: .*$/);
        assertMatch(message, expected);
      }
      answer = `at 500 ${other}\n`;
      const replaced = new Collector();
      await runUntil(new TcpSource(options), replaced, () => replaced.bytes === 200, 500, STREAM);
      const error = replaced.saw("retrying")[0]!.error!;
      assertMatch(error, /stream is fedcba9876543210, not 0123456789abcdef/);
      const [connected] = replaced.saw("connected");
      assertEquals([connected!.stream, connected!.position, connected!.missed], [other, 20, 0]);
      assertEquals(replaced.pushes[0]!.position, 20);
    });
  });

  test("a server that hangs up without an answer is tried again", async () => {
    const sink = new Collector();
    let connections = 0;
    const serve = async (connection: Connection) => {
      const peer = new Peer(connection);
      await peer.heard("resume - -");
      if (++connections === 1) return connection.close();
      await peer.say(`at 0 ${STREAM}\n`);
      await peer.give(0, 10);
    };
    await withServer((connection) => void serve(connection), async (address) => {
      const source = new TcpSource({ ...address, frame, acknowledged: true });
      await runUntil(source, sink, () => sink.messages === 1);
    });
    assertMatch(
      sink.saw("retrying")[0]!.error!,
      /^cannot resume the stream of tcp:\/\/127\.0\.0\.1:\d+: .*closed the connection before .* \(EOF\)$/,
    );
    assertEquals(sink.saw("disconnected").length, 0);
  });
});

/** A folder that is gone afterwards. */
async function withFolder(use: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "speedlimit-source-"));
  try {
    await use(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

describe(`file source on ${runtime}`, () => {
  test("all of a file, in whole messages, from any of them on", () =>
    withFolder(async (folder) => {
      const lines = Array.from({ length: 200_000 }, (_, i) => `line ${i}\n`);
      const whole = lines.join("");
      const path = join(folder, "lines");
      writeFileSync(path, whole);
      let stream: string | undefined;
      for (const skipped of [0, 1, 150_000, lines.length]) {
        const from = lines.slice(0, skipped).join("").length;
        const sink = new Collector((bytes) => assertEquals(bytes.at(-1), 10));
        const source = new FileSource({ path, frame: LINE });
        assertEquals(source.replayable, true);
        await runToEnd(source, sink, from, stream);
        stream = sink.opened!.stream;
        assert(sink.text === whole.slice(from));
        assertEquals(sink.messages, lines.length - skipped);
        let at = from;
        for (const { position, length } of sink.pushes) {
          assertEquals(position, at);
          at += length;
        }
        assertEquals(sink.events, [{ event: "ended", discarded: 0 }]);
      }
    }));

  test("what follows the last whole message is delivered if it is a line, else told of", () =>
    withFolder(async (folder) => {
      const path = join(folder, "partial");
      const cases: [content: string, frame: Frame, pushes: number[], discarded: number][] = [
        ["one\ntwo", LINE, [4, 3], 0],
        ["two", LINE, [3], 0],
        ["", LINE, [], 0],
        ["12345678", { kind: "fixed", size: 3 }, [6], 2],
        ["\0\0\0\x01a\0\0\0\x09b", { kind: "u32" }, [5], 5],
        ["anything", { kind: "none" }, [8], 0],
      ];
      for (const [content, frame, lengths, discarded] of cases) {
        for (const rate of ["max", { bytesPerSecond: 1000 }] as const) {
          writeFileSync(path, content);
          const sink = new Collector();
          await runToEnd(new FileSource({ path, frame, rate }), sink);
          const delivered = lengths.reduce((sum, length) => sum + length, 0);
          assertEquals(sink.text, content.slice(0, delivered));
          if (rate === "max") assertEquals(sink.pushes.map(({ length }) => length), lengths);
          assertEquals(sink.events, [{ event: "ended", discarded }]);
        }
      }
    }));

  test("another file under the same name is read from its beginning", () =>
    withFolder(async (folder) => {
      const path = join(folder, "feed");
      const LONG = "x".repeat(99_999) + "\n";
      const read = async (content: string, from: number, stream?: string) => {
        writeFileSync(path, content);
        const sink = new Collector();
        await runToEnd(new FileSource({ path, frame: LINE }), sink, from, stream);
        const { opened } = sink;
        assertEquals(opened?.position ?? 0, sink.pushes[0]?.position ?? opened?.position ?? 0);
        return { text: sink.text, stream: opened?.stream, position: opened?.position };
      };
      const first = await read("one\ntwo\n", 0);
      assertMatch(first.stream!, /^0008[0-9a-f]{12}$/);
      // It has grown.
      assertEquals(await read("one\ntwo\nthree\n", 8, first.stream), {
        ...{ text: "three\n", stream: first.stream, position: 8 },
      });
      for (const other of ["One\ntwo\nthree\n", "one\n", "x\n"]) {
        const { text, stream, position } = await read(other, 8, first.stream);
        assertEquals([text, position, stream === first.stream], [other, 0, false]);
      }
      // That of a source of another kind.
      assertEquals((await read("one\ntwo\n", 8, "0123456789abcdef")).text, "one\ntwo\n");
      // One that has no stream.
      assertEquals(await read("one\ntwo\n", 4), first);
      assertEquals(await read("", 8, first.stream), {
        ...{ text: "", stream: undefined, position: undefined },
      });
      const long = await read(LONG + "end\n", 0);
      assertMatch(long.stream!, /^ffff/);
      assertEquals((await read(LONG + "END\n", LONG.length, long.stream)).text, "END\n");
      assertEquals((await read(LONG.slice(1), 5, long.stream)).position, 5);
      assertEquals((await read("y" + LONG, 5, long.stream)).position, 0);
    }));

  test("what cannot be read is told in one line", () =>
    withFolder(async (folder) => {
      const short = join(folder, "short");
      writeFileSync(short, "123");
      const seen = new Collector();
      await runToEnd(new FileSource({ path: short, frame: LINE }), seen);
      const cases: [path: string, from: number, expected: string][] = [
        [join(folder, "missing"), 0, "there is no such file"],
        [folder, 0, "it is a directory"],
        ["/dev/null", 0, "it is not a regular file; use standard input (-) instead"],
        [
          short,
          4,
          "it has 3 bytes but was read up to 4 before: was it cut, or is it another file?",
        ],
      ];
      for (const [path, from, expected] of cases) {
        const source = new FileSource({ path, frame: LINE });
        const { message } = await assertRejects(
          () => runToEnd(source, new Collector(), from, seen.opened!.stream),
          Error,
        );
        assertEquals(message, `cannot read ${JSON.stringify(path)}: ${expected}`);
      }
      const source = new FileSource({ path: short, frame: LINE, maxMessage: 2 });
      const { message } = await assertRejects(() => runToEnd(source, new Collector()), Error);
      assert(message.startsWith(`invalid data in ${JSON.stringify(short)}: a line is`));
      const failing = new Collector(() => Promise.reject(new Error("no room")));
      const other = new FileSource({ path: short, frame: { kind: "none" } });
      await assertRejects(() => runToEnd(other, failing), Error, "no room");
    }));

  test("at a rate never more than is due, and all of it", () =>
    withFolder(async (folder) => {
      const count = 5000;
      const size = 20;
      const bytesPerSecond = 2 * count * size;
      const contents = {
        fixed: "x".repeat(count * size),
        line: `${"x".repeat(size - 1)}\n`.repeat(count),
        u32: `\0\0\0\x10${"x".repeat(size - 4)}`.repeat(count),
        none: "x".repeat(count * size),
      };
      const replay = async (frame: Frame, rate: Exclude<Rate, "max">) => {
        const path = join(folder, frame.kind);
        const startMs = performance.now();
        const sink: Collector = new Collector((bytes): void | Promise<void> => {
          // The clock is asked after the source asked it: it can only say more.
          const most = (performance.now() - startMs) * bytesPerSecond / 1000;
          assert(sink.bytes <= most, `${sink.bytes} bytes of ${most}`);
          if (frame.kind !== "none") assertEquals(bytes.length % size, 0);
          // One push that takes long: what was due meanwhile is still due.
          if (sink.pushes.length === 20) return pause(100);
        });
        await runToEnd(new FileSource({ path, frame, rate }), sink);
        const seconds = (performance.now() - startMs) / 1000;
        assertEquals(sink.bytes, count * size);
        if (frame.kind !== "none") assertEquals(sink.messages, count);
        assert(seconds >= 0.5, `${seconds} s`);
        // It did not come in one heap at the end.
        assert(sink.pushes.length > 20, `${sink.pushes.length} pushes`);
      };
      const frames: Frame[] = [LINE, { kind: "u32" }, { kind: "fixed", size }];
      for (const [kind, content] of Object.entries(contents)) {
        writeFileSync(join(folder, kind), content);
      }
      await Promise.all([
        // A file without messages has none to count.
        ...[...frames, { kind: "none" } as const].map((frame) => replay(frame, { bytesPerSecond })),
        ...frames.map((frame) => replay(frame, { messagesPerSecond: 2 * count })),
      ]);
    }));

  test("stops between two messages that are not due yet, and when the sink waits", () =>
    withFolder(async (folder) => {
      const path = join(folder, "slow");
      writeFileSync(path, "one\ntwo\n".repeat(1000));
      const slow = new Collector();
      const source = new FileSource({ path, frame: LINE, rate: { messagesPerSecond: 20 } });
      await runUntil(source, slow, () => slow.messages === 1);
      assert(slow.messages < 100);
      assertEquals(slow.events, []);
      const gate = Promise.withResolvers<void>();
      const waiting = new Collector(() => gate.promise);
      const other = new FileSource({ path, frame: LINE });
      const running = other.run(waiting, 0);
      await until("a push", 5000, () => waiting.pushes.length === 1);
      other.stop();
      gate.resolve();
      await within("the end", 5000, running);
      assertEquals(waiting.events, []);
    }));
});

/** A program that reads its standard input, and tells of it; it has no exit of its own. */
const CHILD = `
import { FileSource } from ${
  JSON.stringify(new URL("../src/source/file_source.ts", import.meta.url).href)
};
const frame = { kind: process.argv[2] };
const stopAt = Number(process.argv[3]);
let holdMs = Number(process.argv[4] ?? 0);
const source = new FileSource({ path: "-", frame });
let bytes = 0, messages = 0, sum = 0, positions = 0;
const sink = {
  push(view, count, position) {
    for (const byte of view) sum = (Math.imul(sum, 31) + byte) >>> 0;
    bytes += view.length;
    messages += count;
    positions += position;
    if (messages >= stopAt) setTimeout(() => source.stop(), 20);
    const waiting = new Promise((resolve) => setTimeout(resolve, holdMs));
    holdMs = 0;
    return waiting;
  },
  note: (event) => console.log(JSON.stringify(event)),
};
try {
  await source.run(sink, 0);
  console.log(JSON.stringify({ replayable: source.replayable, bytes, messages, sum, positions }));
} catch (error) {
  console.log(JSON.stringify({ error: error.message }));
}
`;

/** Runs that program with a standard input; what it said, a line each. */
async function readStdin(
  args: readonly string[],
  feed: (child: ChildProcess) => void,
): Promise<unknown[]> {
  const said: unknown[] = [];
  await withFolder(async (folder) => {
    const file = join(folder, "child.mjs");
    writeFileSync(file, `import process from "node:process";${CHILD}`);
    const before = {
      deno: ["run", "-A", "--no-prompt", "--no-config"],
      bun: [],
      node: ["--no-warnings"],
    };
    const child = spawn(process.execPath, [...before[runtime], file, ...args], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    try {
      let text = "";
      child.stdout!.setEncoding("utf8").on("data", (chunk: string) => text += chunk);
      child.stdin!.on("error", () => {});
      const ended = new Promise((resolve) => child.once("close", resolve));
      feed(child);
      await within(`the end of a program that reads standard input`, 20_000, ended);
      for (const line of text.split("\n").slice(0, -1)) said.push(JSON.parse(line));
    } finally {
      child.kill("SIGKILL");
    }
  });
  return said;
}

describe(`standard input on ${runtime}`, () => {
  test("all that comes through a pipe, to a sink that makes it wait", async () => {
    const lines = Array.from({ length: 100_000 }, (_, i) => `line ${i}\n`).join("") + "the last";
    let sum = 0;
    for (const byte of encode(lines)) sum = (Math.imul(sum, 31) + byte) >>> 0;
    const said = await readStdin(["line", "Infinity"], (child) => child.stdin!.end(lines));
    const result = { replayable: false, bytes: lines.length, messages: 100_001, sum, positions: 0 };
    assertEquals(said, [{ event: "ended", discarded: 0 }, result]);
  });

  test("a push that waits stops the reading of a pipe", async () => {
    const startMs = performance.now();
    let takenMs = 0;
    const said = await readStdin(["line", "Infinity", "700"], (child) => {
      const much = "x".repeat(99).concat("\n").repeat(80_000);
      child.stdin!.end(much, () => takenMs = performance.now() - startMs);
    });
    assertEquals((said[1] as { bytes: number }).bytes, 8_000_000);
    // Far more than a pipe holds: it was taken after the wait.
    assert(takenMs >= 700, `${takenMs} ms`);
  });

  test("bytes that are no whole message at the end are told of", async () => {
    const said = await readStdin(["u32", "Infinity"], (child) => {
      child.stdin!.end(Uint8Array.of(0, 0, 0, 1, 65, 0, 0));
    });
    assertEquals(said[0], { event: "ended", discarded: 2 });
  });

  test("a stop ends a read that waits, and the program can end", async () => {
    const said = await readStdin(["line", "1"], (child) => child.stdin!.write("one\ntw"));
    assertEquals(said.length, 1);
    const { bytes, messages } = said[0] as { bytes: number; messages: number };
    assertEquals([bytes, messages], [4, 1]);
  });

  test("a mistake is told in one line", async () => {
    const said = await readStdin(
      ["u32", "Infinity"],
      (child) => child.stdin!.write("Hello World!"),
    );
    const [bad, { error }] = said as [{ event: string }, { error: string }];
    assertEquals(bad.event, "bad-frame");
    assertMatch(error, /^invalid data in standard input: a message announces 1214606444 /);
  });
});

describe(`flood source on ${runtime}`, () => {
  test("numbered messages: never more than is due, none missing, and all of it", async () => {
    const rate = 200_000;
    const size = 32;
    for (const [from, durationMs] of [[0, 300], [123_456_789, 100]] as const) {
      const verifier = new NumberedVerifier(size, from);
      const startMs = performance.now();
      const sink: Collector = new Collector((bytes, position): void | Promise<void> => {
        const most = (performance.now() - startMs) * rate / 1000;
        assert(sink.messages <= most, `${sink.messages} messages of ${most}`);
        assert(bytes.length <= MIB);
        verifier.push(bytes);
        assertEquals(position / size + bytes.length / size, from + sink.messages);
        // One push that takes long: what was due meanwhile is still due.
        if (sink.pushes.length === 20) return pause(50);
      }, false);
      const message = { numbered: true, size } as const;
      const source = new FloodSource({ message, rate, durationMs });
      assertEquals(source.replayable, true);
      await runToEnd(source, sink, from * size);
      assertEquals(sink.messages, rate * durationMs / 1000);
      const { missing, duplicates, outOfOrder, damaged } = verifier;
      assertEquals([missing, duplicates, outOfOrder, damaged], [0, 0, 0, 0]);
      assertEquals(sink.events, [{ event: "ended", discarded: 0 }]);
    }
  });

  test("the planned times are those of the schedule", async () => {
    const planned: number[] = [];
    const sink = new Collector((bytes) => {
      const view = new DataView(bytes.buffer, bytes.byteOffset);
      for (let at = 8; at < bytes.length; at += 20) planned.push(Number(view.getBigUint64(at)));
    });
    const before = (performance.timeOrigin + performance.now()) * 1e6;
    const message = { numbered: true, size: 20 } as const;
    await runToEnd(new FloodSource({ message, rate: 1000, durationMs: 50 }), sink, 7 * 20);
    const after = (performance.timeOrigin + performance.now()) * 1e6;
    assertEquals(planned.length, 50);
    assert(planned[0]! > before - 1e5 && planned[0]! + 49e6 < after + 1e5);
    planned.forEach((ns, i) => assert(Math.abs(ns - planned[0]! - i * 1e6) < 2000, `${i}: ${ns}`));
  });

  test("repeated messages, short and longer than a piece, as fast as they are taken", async () => {
    for (const message of [textMessage(ARTICLE_MESSAGE), fillerMessage(3_000_001)]) {
      const whole = new Uint8Array(message.size);
      for (let at = 0; at < whole.length;) {
        const part = message.slice(at, whole.length - at);
        whole.set(part, at);
        at += part.length;
      }
      const framer = createFramer({ kind: "fixed", size: message.size });
      let seen = 0;
      const sink = new Collector((bytes) => {
        assert(bytes.length <= Math.max(MIB, message.size));
        assertEquals(framer.push(bytes).end, bytes.length);
        for (let i = 0; i < bytes.length; i += 101) {
          if (bytes[i] !== whole[(seen + i) % whole.length]) throw new Error(`damage at ${i}`);
        }
        seen += bytes.length;
      }, false);
      const source = new FloodSource({ message, rate: Infinity });
      // Timers have their turn, though nothing ever waits.
      await runUntil(source, sink, () => sink.bytes > 100 * MIB, 5 * message.size);
      assertEquals(sink.pushes[0]!.position, 5 * message.size);
      assertEquals(sink.bytes, sink.messages * message.size);
      const ending = new FloodSource({ message, rate: Infinity, durationMs: 20 });
      const timed = new Collector(() => {}, false);
      await runToEnd(ending, timed);
      assert(timed.messages > 0);
    }
  });

  test("refuses numbered messages that cannot be", () => {
    const message = { numbered: true, size: 19 } as const;
    assertThrows(() => new FloodSource({ message, rate: 1 }), RangeError, "at least 20, is 19");
  });
});
